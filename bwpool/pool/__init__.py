"""The converters: child processes, each in a slot of its own.

`pool` owns them, `slot` runs one, `wire` and `page` are how the two sides speak,
`converter` is what runs in the child. Nothing here knows of queues or messages.
Importing this package imports none of them, since every child does it first.
"""

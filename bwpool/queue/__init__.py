"""The queue: everything that speaks to NATS, and the only importer of its client.

`contexts` finds out where the server is, `connection` keeps the way to it open,
`topology` provides the streams and the consumer, `publish` fills the queue, `puller`
receives `lease`s from it, `outbox` settles them, `failures` keeps what went wrong,
`dead` finds what can't go on, and puts it back.
"""

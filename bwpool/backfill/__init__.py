"""A backfill: convert a whole archive, and account for every picture in it.

`inputs` finds the pictures and names their jobs, `ledger` keeps what became of each,
`feed` fills the queue with those that are not done yet.
"""

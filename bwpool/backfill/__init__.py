"""A backfill: convert a whole archive, and account for every picture in it.

`sources` finds the files, `names` names their jobs, `inputs` makes both one list;
`ledger` keeps what became of each, and `account` enters it; `feed` fills the queue with
those that are not done yet; `run` is all of it under way.
"""

"""A backfill: convert a whole archive, and account for every picture in it.

`sources` finds the files, `names` names their jobs, `inputs` makes both one list;
`past` says what of it is done, going by the `ledger_file`; `ledger` counts what became
of each, `book` writes it down, and `account` enters it in both; `feed` fills the queue
with those that are not done yet; `run` is all of it under way, and `mark` its name.
"""

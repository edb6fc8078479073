"""Accounting for every input: from our own supervisor, from others', from the outputs.

A job's fate is a settlement of our own supervisor, or an advisory or a failure record
of somebody else's; and if those were missed, a look at the output in the end.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from bwpool.backfill.inputs import Input, is_up_to_date
from bwpool.backfill.ledger import Ledger
from bwpool.policy import Completed, Failed, Terminated
from bwpool.settlement import Settlement


def enter_settlement(ledger: Ledger, settlement: Settlement) -> None:
    """Enter what our own supervisor made of a job."""
    job = settlement.job
    if job is None:
        return
    match settlement.verdict:
        case Completed(converted):
            ledger.convert(job.id, converted.bytes_in, converted.bytes_out)
        case Failed(error) | Terminated(error):
            ledger.fail(job.id, error.kind, error.reason)


def enter_advisory(ledger: Ledger, pictures: dict[str, Input], payload: bytes) -> None:
    """Enter what somebody else has converted."""
    picture = pictures.get(orjson.loads(payload)["id"])
    if picture is not None:
        ledger.convert(picture.job_id, _size(picture.source), _size(picture.output))


def enter_record(ledger: Ledger, payload: bytes) -> None:
    """Enter a failure that somebody recorded."""
    record = orjson.loads(payload)
    if record["final"] and record["id"] is not None:
        ledger.fail(record["id"], record["kind"], record["reason"])


def reconcile(ledger: Ledger, pictures: dict[str, Input]) -> None:
    """Account for what is left when the queue is empty, by its outputs."""
    for job_id in list(ledger.waiting):
        picture = pictures[job_id]
        if is_up_to_date(picture):
            ledger.convert(job_id, _size(picture.source), _size(picture.output))
        else:
            ledger.fail(
                job_id, "unknown", "it left the queue, and its output is not there"
            )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

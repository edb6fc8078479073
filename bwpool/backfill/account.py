"""Accounting for every input: from our own supervisor, from others', from the outputs.

A job's fate is a settlement of our own supervisor, or an advisory or a failure record
of somebody else's; and if those were missed, a look at the output in the end. Somebody
else's job may have an id of ours, so the image counts as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bwpool.backfill.inputs import Input, Inputs, is_up_to_date
from bwpool.backfill.ledger import Ledger
from bwpool.job import converted_id
from bwpool.policy import Completed, Failed, Terminated
from bwpool.queue.records import FailureRecord
from bwpool.settlement import Settlement


def enter_inputs(ledger: Ledger, inputs: Inputs, *, is_forced: bool) -> None:
    """Enter all inputs; those that are up to date are skipped, unless forced."""
    for source, refusal in inputs.refused.items():
        ledger.refuse(str(source), refusal.kind, refusal.reason)
    for picture in inputs.pictures:
        if not is_forced and is_up_to_date(picture):
            ledger.skipped += 1
        else:
            ledger.expect(picture.job_id, str(picture.source))


def enter_settlement(
    ledger: Ledger, images: Mapping[str, str], settlement: Settlement
) -> None:
    """Enter what our own supervisor made of a job; `images` are ours by job id."""
    job = settlement.job
    if job is None or images.get(job.id) != job.image:
        return
    match settlement.verdict:
        case Completed(converted):
            ledger.convert(job.id, converted.bytes_in, converted.bytes_out)
        case Failed(error) | Terminated(error):
            ledger.fail(job.id, error.kind, error.reason)


def enter_advisory(
    ledger: Ledger, pictures: Mapping[str, Input], payload: bytes
) -> None:
    """Enter what somebody else has converted."""
    picture = pictures.get(converted_id(payload) or "")
    if picture is not None:
        ledger.convert(picture.job_id, _size(picture.source), _size(picture.output))


def enter_record(ledger: Ledger, images: Mapping[str, str], payload: bytes) -> None:
    """Enter a failure that somebody recorded; `images` are ours by job id."""
    try:
        record = FailureRecord.from_json(payload)
    except ValueError:
        return  # whoever may publish there may publish nonsense
    job_id = record.id or ""
    if record.final and job_id in images and images[job_id] == record.image:
        ledger.fail(job_id, record.kind, record.reason)


def reconcile(ledger: Ledger, pictures: Mapping[str, Input]) -> None:
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

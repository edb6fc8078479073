"""Accounting for every input: from our own supervisor, from others', from the outputs.

A job's fate is a settlement of our own supervisor, or an advisory or a failure record
of somebody else's; and if those were missed, a look at the output in the end. A
conversion counts once its output is seen. Somebody else's job may have an id of ours,
so the image counts as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from bwpool.backfill.book import WRITE_EVERY, Book
from bwpool.backfill.inputs import Inputs, Seen, look_at
from bwpool.backfill.ledger import Ledger
from bwpool.backfill.past import Past
from bwpool.job import Converted, converted_id
from bwpool.policy import Completed, Failed, Terminated
from bwpool.queue.records import FailureRecord
from bwpool.settlement import Settlement

OUTPUT_MISSING = "output-missing"
"""The kind of a job that is done by all accounts, though its output is not there."""

_ELSEWHERE = "its output is not there: another supervisor may store elsewhere"


class Account:
    """Enters what becomes of each input, for people and for the next run."""

    def __init__(self, ledger: Ledger, inputs: Inputs, past: Past, book: Book) -> None:
        """Enter all inputs: refused, done before, or to be converted."""
        self.ledger = ledger
        self.pictures = {picture.job_id: picture for picture in inputs.pictures}
        """All inputs by job id, those that are done included."""
        self.images = {job_id: each.image for job_id, each in self.pictures.items()}
        self._by_output = {each.name: each for each in inputs.pictures}
        self._before: dict[str, Seen | None] = {}
        """What the output's place held, by the ids of the jobs to be done."""
        self._book = book
        for source, refusal in inputs.refused.items():
            ledger.refuse(str(source), refusal.kind, refusal.reason)
        ledger.skipped = past.done + len(past.adopted) + len(past.finished)
        for picture, seen in (*past.adopted, *past.finished):
            book.convert(picture, seen.size)
        for picture, before in past.to_do:
            ledger.expect(picture.job_id, str(picture.source))
            self._before[picture.job_id] = before
            book.expect(picture, before)

    def enter_settlement(self, settlement: Settlement) -> None:
        """Enter what our own supervisor made of a job."""
        job, verdict = settlement.job, settlement.verdict
        if job is None:
            return
        if self.images.get(job.id) != job.image:
            if isinstance(verdict, Completed):
                self._book.alter(verdict.converted.output)
            return
        match verdict:
            case Completed(converted):
                self._convert(job.id, converted)
            case Failed(error) | Terminated(error):
                self._fail(job.id, error.kind, error.reason)

    def enter_advisory(self, payload: bytes) -> None:
        """Enter what somebody else has converted, if its output is here."""
        job_id = converted_id(payload)
        if job_id is not None and job_id in self.ledger.waiting:
            self._look(job_id)

    def enter_record(self, payload: bytes) -> None:
        """Enter a failure that somebody recorded."""
        if (failure := read_failure(self.images, payload)) is not None:
            self._fail(*failure)

    def refuse(self, job_id: str, kind: str, reason: str) -> None:
        """Enter a job that can't be published."""
        self._fail(job_id, kind, reason)

    def reconcile(self) -> None:
        """Account for what is left when the queue is empty, by its outputs."""
        for job_id in list(self.ledger.waiting):
            if not self._look(job_id):
                self._fail(
                    job_id, OUTPUT_MISSING, f"it left the queue, and {_ELSEWHERE}"
                )

    async def write(self) -> None:
        """Write the ledger; a conversion whose output is gone becomes a failure.

        Raises LedgerError.
        """
        self._lose(await self._book.write())
        self._lose(await self._book.write())  # those that were lost

    async def keep_writing(self) -> None:
        """Write the ledger again and again; never returns."""
        while True:
            await asyncio.sleep(WRITE_EVERY)
            self._lose(await self._book.write_if_possible())

    def _lose(self, outputs: list[str]) -> None:
        for output in outputs:
            picture = self._by_output[output]
            self.ledger.lose(
                picture.job_id, str(picture.source), OUTPUT_MISSING, _ELSEWHERE
            )
            self._book.fail(picture, OUTPUT_MISSING, _ELSEWHERE)

    def _look(self, job_id: str) -> bool:
        """Enter a conversion if there is another output than before."""
        picture = self.pictures[job_id]
        seen = look_at(picture.output)
        if seen is None or seen == self._before.get(job_id):
            return False
        path = str(picture.output)
        self._convert(job_id, Converted(path, picture.seen.size, seen.size, 0))
        return True

    def _convert(self, job_id: str, converted: Converted) -> None:
        if self.ledger.convert(job_id, converted.bytes_in, converted.bytes_out):
            self._book.convert(self.pictures[job_id], converted.bytes_out)

    def _fail(self, job_id: str, kind: str, reason: str) -> None:
        if self.ledger.fail(job_id, kind, reason):
            self._book.fail(self.pictures[job_id], kind, reason)


def read_failure(
    images: Mapping[str, str], payload: bytes
) -> tuple[str, str, str] | None:
    """Read the id, kind and reason of a final failure of one of our jobs, else None.

    `images` are ours by job id.
    """
    try:
        record = FailureRecord.from_json(payload)
    except ValueError:
        return None  # whoever may publish there may publish nonsense
    job_id = record.id or ""
    if not record.final or job_id not in images or images[job_id] != record.image:
        return None
    return job_id, record.kind, record.reason

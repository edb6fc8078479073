"""What became of each input of a backfill. Pure bookkeeping; done when all is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an input was not converted."""

    source: str
    kind: str
    reason: str


@dataclass(slots=True)
class Ledger:
    """Every input is in one of these, from the first moment to the last."""

    waiting: dict[str, str] = field(default_factory=dict)
    """Job ids of inputs that are not accounted for yet, with their sources."""
    converted: int = 0
    skipped: int = 0
    failures: dict[str, Failure] = field(default_factory=dict)
    """By job id, or by source where there could be no job."""
    bytes_in: int = 0
    bytes_out: int = 0
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Of the conversions, by job id: bytes in and out."""

    @property
    def inputs(self) -> int:
        """How many pictures the backfill is about."""
        return len(self.waiting) + self.converted + self.skipped + len(self.failures)

    @property
    def settled(self) -> int:
        """How many of them are accounted for."""
        return self.converted + self.skipped + len(self.failures)

    @property
    def is_complete(self) -> bool:
        """Whether all are."""
        return not self.waiting

    def expect(self, job_id: str, source: str) -> None:
        """Enter an input that is to be converted."""
        self.waiting[job_id] = source

    def convert(self, job_id: str, bytes_in: int, bytes_out: int) -> bool:
        """Enter a conversion; False for an id that nobody waits for."""
        if self.waiting.pop(job_id, None) is None:
            return False
        self.converted += 1
        self.bytes_in += bytes_in
        self.bytes_out += bytes_out
        self._sizes[job_id] = bytes_in, bytes_out
        return True

    def fail(self, job_id: str, kind: str, reason: str) -> bool:
        """Enter a job that ran out of attempts; False if nobody waits for it."""
        source = self.waiting.pop(job_id, None)
        if source is None:
            return False
        self.failures[job_id] = Failure(source, kind, reason)
        return True

    def lose(self, job_id: str, source: str, kind: str, reason: str) -> None:
        """Make what counted as done a failure: its output is not there."""
        if (sizes := self._sizes.pop(job_id, None)) is not None:
            self.converted -= 1
            self.bytes_in -= sizes[0]
            self.bytes_out -= sizes[1]
        else:
            self.skipped -= 1
        self.failures[job_id] = Failure(source, kind, reason)

    def refuse(self, source: str, kind: str, reason: str) -> None:
        """Enter an input that can't be made a job."""
        self.failures[source] = Failure(source, kind, reason)

    def kinds(self) -> Iterable[tuple[str, int]]:
        """Count the failures by kind, the most frequent first."""
        counts: dict[str, int] = {}
        for failure in self.failures.values():
            counts[failure.kind] = counts.get(failure.kind, 0) + 1
        return sorted(counts.items(), key=lambda item: -item[1])

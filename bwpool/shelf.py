"""The shelf: jobs whose outputs can't be stored just now, kept until they can.

Trouble with storage is the supervisor's and not the jobs'. Called by `deliveries`,
which converts, and by the supervisor, which asks how much to pull.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bwpool.background import Background, pauses
from bwpool.errors import JobError, StorageUnavailable
from bwpool.job import Converted, Job
from bwpool.pool.report import Report
from bwpool.queue.lease import Lease

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Kept:
    """A job on the shelf, and what its output met."""

    lease: Lease
    job: Job
    report: Report


class Shelf:
    """Keeps jobs, probes the storage, and has one job tried before all the others."""

    def __init__(
        self,
        probe: Callable[[], None],
        convert: Callable[[Lease, Job], asyncio.Future[Report]],
    ) -> None:
        """`probe` raises StorageUnavailable and may block; `convert` begins a job."""
        self.is_stalled = False
        """Whether nothing more may be pulled but `room`."""
        self.room = 0
        """How many jobs to pull nevertheless: storage is there, yet not for ours."""
        self._probe = probe
        self._convert = convert
        self._kept: deque[Kept] = deque()
        self._is_waiting = False
        self._background = Background()

    def put(self, kept: Kept) -> None:
        """Keep a job; the first one begins the waiting for better times."""
        self._kept.append(kept)
        if not self.is_stalled:
            self.is_stalled = True
            assert isinstance(kept.report.outcome, JobError)
            log.error("storage.unavailable", reason=kept.report.outcome.reason)
            if not self._is_waiting:
                self._is_waiting = True
                self._background.start(self._await_storage())

    def clear(self) -> list[Kept]:
        """Return all that is kept, which is then somebody else's."""
        kept = list(self._kept)
        self._kept.clear()
        return kept

    def note_success(self) -> None:
        """An output was stored: so can be the others."""
        if self.room:
            self._resume()

    async def close(self) -> None:
        """Stop probing."""
        await self._background.close()

    async def _await_storage(self) -> None:
        for pause in pauses():
            await asyncio.sleep(pause)
            # Room for the probe need not be room for an output.
            if self.is_stalled and await self._is_there() and await self._try_one():
                self._resume()
            if not self.is_stalled:
                self._is_waiting = False
                return

    async def _is_there(self) -> bool:
        try:
            await asyncio.to_thread(self._probe)
        except StorageUnavailable as error:
            self.room = 0
            log.error("storage.unavailable", reason=error.reason)  # noqa: TRY400
            return False
        return True

    async def _try_one(self) -> bool:
        """Convert jobs until one tells whether outputs can be stored; say so."""
        while self._kept:
            kept = self._kept.popleft()
            report = await asyncio.shield(self._convert(kept.lease, kept.job))
            match report.outcome:
                case Converted():
                    return True
                case StorageUnavailable():
                    log.error("storage.unavailable", reason=report.outcome.reason)
                    # Perhaps it is this output alone: another job shall show.
                    self.room = 1
                    return False
                case None:  # withdrawn
                    return False
        return True

    def _resume(self) -> None:
        """Let all go on."""
        if not self.is_stalled:
            return
        log.info("storage.available")
        self.is_stalled = False
        self.room = 0
        for kept in self.clear():
            self._convert(kept.lease, kept.job)

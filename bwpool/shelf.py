"""The shelf: jobs whose outputs can't be stored, or sources not read, just now.

Trouble with storage is the supervisor's and not the jobs'. While there is any, nothing
more is pulled, and what is held already waits here, known by its key. Called by
`deliveries`, which converts and hands over, and by the supervisor, which asks how much
to pull.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator

import structlog

from bwpool.background import Background, pauses
from bwpool.errors import JobError, StorageUnavailable
from bwpool.job import Converted
from bwpool.pool.report import NotBegun
from bwpool.queue.lease import Key

HOLD = 120.0
"""Seconds for which jobs are held while the storage as a whole is away; after that
other supervisors get them."""

CALM = 60.0
"""Seconds without trouble after which the pauses between tries are short again. Storage
that comes and goes would otherwise take jobs from supervisors that are well."""

log = structlog.get_logger()


Outcome = Converted | JobError | NotBegun


class Shelf:
    """Keeps jobs, probes the storage, and has one job tried before all the others.

    Where the probe passes and the job that is tried still fails, the others are handed
    back: perhaps another supervisor can store them. One stays, to try with; a different
    one is taken after each try in vain, for it may be this job alone that fails.
    """

    def __init__(
        self,
        probe: Callable[[], None],
        convert: Callable[[Key], None],
        hand_over: Callable[[Key], None],
    ) -> None:
        """Keep nothing yet.

        `probe` raises StorageUnavailable and may block; after `convert` the outcome is
        told to `note`.
        """
        self.is_stalled = False
        """Whether nothing can be stored or read, as far as known."""
        self.on_stall: Callable[[], None] = lambda: None
        """Called when nothing more may be delivered."""
        self._probe = probe
        self._convert = convert
        self._hand_over = hand_over
        self._kept: deque[Key] = deque()
        self._keeps_one = False
        """Whether others were handed back, and so are those that fail from now on."""
        self._wants_another = False
        """Whether the one to try with should be replaced."""
        self._tried: Key | None = None
        """What is converted again at the moment."""
        self._outcome: asyncio.Future[Outcome]
        """What comes of that."""
        self._is_waiting = False
        self._pauses = pauses()
        self._since = 0.0
        """When the waiting began, or ended."""
        self._background = Background()

    def room(self, wanted: int, held: int) -> int:
        """Return how many of `wanted` jobs to pull, while `held` leases are held."""
        if self.is_stalled:
            return int(self._wants_another and wanted > 0 and held < 2)
        return max(0, wanted - len(self._kept))

    def put(self, key: Key, error: JobError) -> None:
        """Keep a job that met `error`; the first one begins the waiting."""
        self._kept.append(key)
        self._wants_another = False
        if not self.is_stalled and key != self._tried:
            self.is_stalled = True
            log.error("storage.unavailable", reason=error.reason)
            self.on_stall()
        if self._keeps_one:
            self._hand_back_all_but(1)
        if not self._is_waiting:
            self._is_waiting = True
            self._background.start(self._await_storage())

    def clear(self) -> list[Key]:
        """Return all that is kept, which is then somebody else's."""
        kept = list(self._kept)
        self._kept.clear()
        return kept

    def note(self, key: Key, outcome: Outcome) -> None:
        """Take note of a conversion's outcome.

        Where an output was stored, others can be, if not all that are kept.
        """
        if key == self._tried and not self._outcome.done():
            self._outcome.set_result(outcome)
        if isinstance(outcome, Converted):
            self._note_success()

    def _note_success(self) -> None:
        if self.is_stalled:
            log.info("storage.available")
            self.is_stalled = self._keeps_one = self._wants_another = False

    async def close(self) -> None:
        """Stop probing."""
        await self._background.close()

    async def _await_storage(self) -> None:
        """Try again, more and more rarely, until nothing is kept."""
        for pause in self._begin_pauses():
            await asyncio.sleep(pause)
            if await self._is_there():
                await self._try_one()
            elif time.monotonic() - self._since > HOLD:
                self._hand_back_all_but(1)
            if not self._kept and not self.is_stalled:
                break
        self._is_waiting = False
        self._since = time.monotonic()

    def _begin_pauses(self) -> Iterator[float]:
        now = time.monotonic()
        if now - self._since > CALM:
            self._pauses = pauses()
        self._since = now
        return self._pauses

    async def _is_there(self) -> bool:
        try:
            await asyncio.to_thread(self._probe)
        except StorageUnavailable as error:
            self._wants_another = False
            log.error("storage.unavailable", reason=error.reason)  # noqa: TRY400
            return False
        return True

    async def _try_one(self) -> None:
        """Convert jobs until one tells whether the others can be stored."""
        while self._kept:
            match await self._retry(self._kept.popleft()):
                case Converted():
                    break
                case StorageUnavailable() as outcome:
                    self._fail(outcome)
                    return
                case NotBegun():
                    return
        self._note_success()
        for key in self.clear():
            self._convert(key)

    async def _retry(self, key: Key) -> Outcome:
        """Convert a job again; if it fails once more, it is back on the shelf."""
        self._tried = key
        self._outcome = asyncio.get_running_loop().create_future()
        try:
            self._convert(key)
            return await self._outcome
        finally:
            self._tried = None

    def _fail(self, error: StorageUnavailable) -> None:
        """Let other supervisors have what is kept; one job stays while we are stalled.

        Room for the probe need not be room for an output.
        """
        if not self.is_stalled:  # some can be stored, so there is always one to try
            self._hand_back_all_but(0)
            return
        log.error("storage.unavailable", reason=error.reason)
        self._wants_another = len(self._kept) < 2
        self._kept.rotate(1)  # what was just tried goes first
        self._hand_back_all_but(1)

    def _hand_back_all_but(self, count: int) -> None:
        self._keeps_one = self.is_stalled
        while len(self._kept) > count:
            self._hand_over(self._kept.popleft())

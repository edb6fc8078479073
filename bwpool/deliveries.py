"""The life of a job, from its delivery to its settlement.

    receive → begin → (pool) → report → settle → (outbox) → acked

Owns which leases are held here and what becomes of each. Called by the supervisor,
which runs the puller, the pool and the outbox around it.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import orjson
import structlog

from bwpool.background import Background
from bwpool.errors import CutShort, JobError
from bwpool.job import Converted, Job, parse_job
from bwpool.policy import (
    Completed,
    Failed,
    Retried,
    Spent,
    Stalled,
    Terminated,
    is_last,
    judge,
)
from bwpool.pool.pool import Pool
from bwpool.pool.report import Report
from bwpool.queue import failures
from bwpool.queue.connection import Connection
from bwpool.queue.facts import ConsumerFacts
from bwpool.queue.lease import Lease
from bwpool.queue.outbox import Outbox
from bwpool.queue.patience import insist
from bwpool.queue.requeue import is_copy
from bwpool.rescue import clear_up, has_failed, may_be_innocent, rescue
from bwpool.settlement import Settlement, failure_record
from bwpool.shelf import Kept, Shelf
from bwpool.sightings import Sightings

MAX_REMEMBERED = 50_000
"""Messages that are remembered after they were settled, in case they come again."""

_EVENTS = {
    Retried: "job.retried",
    Spent: "job.spent",
    Failed: "job.failed",
    Terminated: "job.terminated",
    Stalled: "job.kept",
}

log = structlog.get_logger()

K = TypeVar("K")
V = TypeVar("V")


@dataclass(slots=True)
class Tally:
    """What one supervisor has done so far."""

    converted: int = 0
    retried: int = 0
    failed: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0


@dataclass(slots=True)
class Parts:
    """What deliveries pass through; opened and closed by the supervisor's caller."""

    connection: Connection
    consumer: ConsumerFacts
    """As it was when last looked at."""
    pool: Pool
    probe: Callable[[], None]
    """Raises StorageUnavailable while outputs can't be stored. It may block."""
    advisory_prefixes: tuple[str, ...] = ()
    """Subjects that advisories must be below; none given: any will do."""


@dataclass(frozen=True, slots=True)
class _Spending:
    """Why a message is incurable, as long as its payload is the same."""

    digest: bytes
    job: Job | None
    report: Report


class Deliveries:
    """Every lease held by this supervisor, and the way of each to its end."""

    def __init__(self, parts: Parts, outbox: Outbox) -> None:
        self.tally = Tally()
        self.on_settled: Callable[[Settlement], None] = lambda _settlement: None
        """Called when a delivery has ended, well or not."""
        self.is_leaving = False
        """Whether all that arrives is to be handed back."""
        self.shelf = Shelf(parts.probe, self._convert, self._hand_back)
        """Where jobs wait while outputs can't be stored."""
        self._parts = parts
        self._connection = parts.connection
        self._pool = parts.pool
        self._outbox = outbox
        self._background = Background()
        self._held: dict[tuple[int, int], Lease] = {}
        self._done: dict[tuple[int, int], Settlement] = {}
        """Completed; their acks wait for confirmation."""
        self._acked: OrderedDict[tuple[int, int], None] = OrderedDict()
        """Out of the queue, the latest `MAX_REMEMBERED`."""
        self._spent: OrderedDict[tuple[int, int], _Spending] = OrderedDict()
        """Incurable; their deliveries are being used up."""
        self._sightings = Sightings()
        self._failed_before: set[tuple[int, int]] = set()
        """Failed here at an earlier delivery, not settled since."""
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def _consumer(self) -> ConsumerFacts:
        return self._parts.consumer

    # ── The way of a delivery that goes well ─────────────────────────────────────

    def receive(self, lease: Lease) -> None:
        """Take a delivery.

        Six cases, the first that holds: held here already; done here already; we are
        leaving; known to be hopeless; near its end, perhaps by crashes alone; a job to
        be done.
        """
        key = lease.key
        if (held := self._held.get(key)) is not None:
            held.renew(lease)
            return
        self._held[key] = lease
        if key in self._acked:
            self._outbox.ack(lease)
        elif self.is_leaving:
            self._hand_back(lease)
        elif (spent := self._spent_on(lease)) is not None:
            self._settle(lease, spent.job, spent.report)
        elif self._may_be_innocent(lease):
            self._background.start(self._spare(lease))
        else:
            self._begin(lease)

    def _spent_on(self, lease: Lease) -> _Spending | None:
        """Say why a delivery is hopeless, where an earlier one of it showed that.

        One with another payload is tried again: either was garbled on its way.
        """
        spent = self._spent.get(lease.key)
        if spent is not None and spent.digest != lease.digest:
            del self._spent[lease.key]
            return None
        return spent

    def _begin(self, lease: Lease) -> None:
        """Read the job and give it to the pool; last deliveries go first."""
        try:
            job = parse_job(
                lease.payload,
                self._consumer.stream_subjects,
                self._parts.advisory_prefixes,
            )
        except JobError as error:
            self._settle(lease, None, Report(error, 0.0))
        else:
            self._convert(lease, job)

    def _convert(self, lease: Lease, job: Job) -> asyncio.Future[Report]:
        first = is_last(lease.attempt, self._consumer.max_deliver)
        converting = self._pool.submit(job, first=first)
        converting.add_done_callback(partial(self._report, lease, job))
        return converting

    def _report(
        self, lease: Lease, job: Job, converting: asyncio.Future[Report]
    ) -> None:
        report = converting.result()
        if self._held.get(lease.key) is not lease:
            return  # disowned meanwhile
        if isinstance(report.outcome, CutShort):
            outcome = self._sightings.judge(job.image, report.outcome)
            report = replace(report, outcome=outcome)
        if report.outcome is None:
            self._hand_back(lease)
        else:
            self._settle(lease, job, report)

    def _settle(self, lease: Lease, job: Job | None, report: Report) -> None:
        """Judge an outcome, and do what follows."""
        assert report.outcome is not None
        verdict = judge(report.outcome, lease.attempt, self._consumer.max_deliver)
        settlement = Settlement(lease, job, verdict)
        match verdict:
            case Completed():
                self._complete(settlement, report.elapsed)
            case Stalled() if job is not None and not self.is_leaving:
                self.shelf.put(Kept(lease, job, report))
            case _:
                self._background.start(self._fail(settlement, report))

    def _complete(self, settlement: Settlement, elapsed: float) -> None:
        """Tell whoever asked for it, then acknowledge."""
        lease, job = settlement.lease, settlement.job
        assert job is not None
        self._done[lease.key] = settlement
        self.shelf.note_success()
        if job.advisory is not None:
            self._outbox.publish(job.advisory, orjson.dumps({"id": job.id}))
        self._outbox.ack(lease)
        log.info(
            "job.completed",
            job_id=job.id,
            seq=lease.seq,
            attempt=lease.attempt,
            elapsed=round(elapsed, 4),
        )

    def acked(self, lease: Lease) -> None:
        """Let go of a lease whose ack the server has confirmed."""
        _remember(self._acked, lease.key, None)
        if is_copy(lease.headers):
            self._background.start(self._clear_up(lease))
        else:
            self._finish(lease)

    def _finish(self, lease: Lease) -> None:
        self._failed_before.discard(lease.key)
        settlement = self._done.pop(lease.key, None)
        if settlement is not None and isinstance(settlement.verdict, Completed):
            self._count(settlement.verdict.converted)
        self._release(lease, settlement)

    def _count(self, converted: Converted) -> None:
        self.tally.converted += 1
        self.tally.bytes_in += converted.bytes_in
        self.tally.bytes_out += converted.bytes_out
        self.tally.pixels += converted.pixels

    def _release(self, lease: Lease, settlement: Settlement | None = None) -> None:
        self._held.pop(lease.key, None)
        if not self._held:
            self._empty.set()
        else:
            self._empty.clear()
        if settlement is not None:
            self.on_settled(settlement)

    # ── When a job can't be done ─────────────────────────────────────────────────

    async def _fail(self, settlement: Settlement, report: Report) -> None:
        """Record a failure; only when that is stored, let go of the delivery."""
        is_spending = isinstance(settlement.verdict, Spent)
        if not (is_spending and settlement.lease.key in self._spent):
            await self._record(settlement, report)
        self._let_go(settlement, report)

    async def _record(self, settlement: Settlement, report: Report) -> None:
        record = failure_record(self._consumer, settlement, report)
        log.warning(
            _EVENTS[type(settlement.verdict)],
            job_id=record.id,
            seq=record.seq,
            attempt=record.attempt,
            kind=record.kind,
            reason=record.reason,
        )
        if self._consumer.has_failures:
            await insist(lambda: failures.store(self._connection, record))

    def _let_go(self, settlement: Settlement, report: Report) -> None:
        """End a delivery that failed, as the verdict says."""
        lease = settlement.lease
        match settlement.verdict:
            case Retried(_, delay):
                self.tally.retried += 1
                self._failed_before.add(lease.key)
                self._outbox.nak(lease, delay)
            case Spent():
                # The next deliveries come at once, and to whoever pulls.
                spending = _Spending(lease.digest, settlement.job, report)
                _remember(self._spent, lease.key, spending)
                self._outbox.nak(lease)
            case Failed():
                self.tally.failed += 1
                self._spent.pop(lease.key, None)
                self._failed_before.discard(lease.key)
                self._outbox.nak(lease)
            case Terminated():
                self.tally.failed += 1
                self._outbox.term(lease)
            case Stalled():
                self._hand_back(lease)
                return
        self._release(lease, settlement)

    # ── When a delivery is not the job's failure ─────────────────────────────────

    def _may_be_innocent(self, lease: Lease) -> bool:
        is_suspect = may_be_innocent(lease, self._consumer.max_deliver)
        return is_suspect and lease.key not in self._failed_before

    async def _spare(self, lease: Lease) -> None:
        """Convert a job near its last delivery if it ever failed by itself.

        Else put it back as new, lest the next crash kills it.
        """
        if await has_failed(self._connection, self._consumer, lease):
            if self.is_leaving:
                self._hand_back(lease)
            else:
                self._begin(lease)
        else:
            await self._rescue(lease)

    async def _rescue(self, lease: Lease) -> None:
        """Put a job back as new, and acknowledge the delivery that was its last."""
        await rescue(self._connection, self._consumer, lease)
        self._outbox.ack(lease)

    async def _clear_up(self, lease: Lease) -> None:
        await clear_up(self._connection, self._consumer, lease)
        self._finish(lease)

    def _hand_back(self, lease: Lease) -> None:
        """Give a lease to the others at once, without killing its job by that."""
        if is_last(lease.attempt, self._consumer.max_deliver):
            self._background.start(self._rescue(lease))
        else:
            self._outbox.nak(lease)
            self._release(lease)

    # ── All of them at once ──────────────────────────────────────────────────────

    def extend(self, due: float) -> None:
        """Extend each lease whose ack wait began more than `due` seconds ago."""
        now = time.monotonic()
        for lease in self._held.values():
            if now - lease.extended >= due:
                self._outbox.extend(lease)

    def leave(self) -> None:
        """Hand back what no converter has begun, and all that still arrives."""
        self.is_leaving = True
        self._pool.withdraw()
        for kept in self.shelf.clear():
            self._settle(kept.lease, kept.job, kept.report)

    def disown(self) -> None:
        """Forget every lease: the stream they came from is gone.

        What is being converted is converted to its end, but settled no more.
        """
        for lease in self._held.values():
            lease.is_void = True
        self.shelf.clear()
        self._held.clear()
        self._done.clear()
        self._failed_before.clear()
        self._empty.set()

    async def wait_until_empty(self) -> None:
        """Return when no lease is held."""
        while self._held:
            self._empty.clear()
            await self._empty.wait()

    async def close(self) -> None:
        """Give up what still goes on in the background."""
        await self.shelf.close()
        await self._background.close()


def _remember(memory: OrderedDict[K, V], key: K, value: V) -> None:
    """Keep `value`, and forget the oldest where there would be too many.

    A plain dict finds its oldest entry by passing all that were deleted before it.
    """
    memory[key] = value
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)

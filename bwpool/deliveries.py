"""Carries out what `lifecycle` decides about each delivery that is held here.

Owns the deliveries under way and the memory of those that are gone. What happens to one
comes in as an event (`receive`, `acked`, the pool's report, the storage's condition),
and what follows goes out as actions: to the pool, the outbox, the failures stream, the
shelf. Nothing is decided here. Called by the supervisor.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import orjson
import structlog

from bwpool.background import Background
from bwpool.delivery import (
    NOTHING_PAST,
    Ack,
    Acked,
    Action,
    Answered,
    Ask,
    Cleared,
    ClearUp,
    Complain,
    Convert,
    Delivered,
    Delivery,
    Event,
    Facts,
    HandOver,
    Keep,
    Leaving,
    Nak,
    Past,
    Publish,
    PutBack,
    Recorded,
    RecordFailure,
    Redelivered,
    Remember,
    Reported,
    Requeue,
    Settle,
    State,
    StorageBack,
    Term,
    Thrown,
)
from bwpool.errors import BwpoolError, CutShort
from bwpool.lifecycle import step
from bwpool.policy import with_jitter
from bwpool.pool.pool import Pool
from bwpool.pool.report import Report
from bwpool.queue import failures
from bwpool.queue.connection import Connection
from bwpool.queue.facts import ConsumerFacts
from bwpool.queue.lease import Key, Lease
from bwpool.queue.outbox import Outbox
from bwpool.queue.patience import insist
from bwpool.rescue import clear_up, has_failed, rescue
from bwpool.settlement import Listener, Settlement, failure_record, log_failure
from bwpool.shelf import Shelf
from bwpool.sightings import Sightings
from bwpool.waiting import Waiting

MAX_REMEMBERED = 50_000
"""Messages that are remembered after they were settled, in case they come again."""

log = structlog.get_logger()


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


class Deliveries:
    """Every delivery held by this supervisor, and what is remembered of others."""

    def __init__(self, parts: Parts, outbox: Outbox) -> None:
        self.on_settled: list[Listener] = []
        """Called with each delivery that has ended, well or not."""
        self.shelf = Shelf(
            parts.probe,
            convert=lambda key: self._tell(key, StorageBack()),
            hand_over=lambda key: self._tell(key, HandOver()),
        )
        """Which deliveries wait for the storage, and when they go on."""
        self.waiting = Waiting()
        """Which retries wait on the server."""
        self._parts = parts
        self._outbox = outbox
        self._facts = Facts(parts.consumer, parts.advisory_prefixes)
        self._sightings = Sightings()
        self._held: dict[Key, Delivery] = {}
        self._past: OrderedDict[Key, Past] = OrderedDict()
        """The latest `MAX_REMEMBERED` that may come again."""
        self._background = Background()
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._held)

    # ── What happens ─────────────────────────────────────────────────────────────

    def receive(self, lease: Lease) -> None:
        """Take a delivery."""
        key = lease.key
        if key in self._held:
            self._tell(key, Redelivered(lease))
        else:
            self._held[key] = Delivery(lease)
            self._tell(key, Delivered(self._past.get(key, NOTHING_PAST)))

    def acked(self, lease: Lease) -> None:
        """Take note that the server has confirmed an ack."""
        self._tell(lease.key, Acked())

    def leave(self) -> None:
        """Hand back what no converter has begun, and all that still arrives."""
        self._facts.is_leaving = True
        self._parts.pool.withdraw()
        for key in self.shelf.clear():
            self._tell(key, Leaving())

    def adopt(self, consumer: ConsumerFacts) -> None:
        """Go by what the consumer is now."""
        self._facts.consumer = consumer

    def disown(self) -> None:
        """Forget every delivery: the stream that they came from is gone.

        What is being converted is converted to its end, but settled no more.
        """
        self.shelf.clear()
        self._held.clear()
        self._empty.set()

    def extend(self, due: float) -> None:
        """Extend each lease whose ack wait began more than `due` seconds ago."""
        now = time.monotonic()
        for delivery in self._held.values():
            if now - delivery.lease.extended >= due:
                self._outbox.extend(delivery.lease)

    def _report(self, key: Key, converting: asyncio.Future[Report]) -> None:
        delivery = self._held.get(key)
        try:
            report = self._complete(delivery, converting.result())
            event: Event = Reported(report)
        except Exception as error:  # noqa: BLE001 - told, and an event
            if delivery is not None:
                self._tell(key, _thrown(delivery, error))
            return
        self._tell(key, event)
        self.shelf.note(key, report.outcome)

    def _complete(self, delivery: Delivery | None, report: Report) -> Report:
        """Judge what a single report can't tell, by those before it."""
        if delivery is None or not isinstance(report.outcome, CutShort):
            return report
        assert delivery.job is not None
        outcome = self._sightings.judge(delivery.job.image, report.outcome)
        return replace(report, outcome=outcome)

    # ── From event to actions ────────────────────────────────────────────────────

    def _tell(self, key: Key, event: Event) -> None:
        """Take a step; whatever is thrown on the way is an event as well."""
        delivery = self._held.get(key)
        if delivery is None:
            return  # disowned, or gone when an ack was confirmed twice
        try:
            delivery, actions = step(delivery, event, self._facts)
            self._hold(key, delivery)
            for action in actions:
                self._DO[type(action)](self, delivery, action)
        except Exception as error:  # noqa: BLE001 - told, and an event
            thrown = _thrown(delivery, error)
            if isinstance(event, Thrown):
                self._give_up(delivery)
            else:
                self._tell(key, thrown)

    def _hold(self, key: Key, delivery: Delivery) -> None:
        if delivery.state is not State.GONE:
            self._held[key] = delivery
            return
        del self._held[key]
        if not self._held:
            self._empty.set()

    def _give_up(self, delivery: Delivery) -> None:
        """Let go of a delivery with which nothing more can be done."""
        self._held.pop(delivery.lease.key, None)
        self._outbox.nak(delivery.lease)
        if not self._held:
            self._empty.set()

    def _start(self, delivery: Delivery, doing: Coroutine[Any, Any, Event]) -> None:
        """Do in the background what takes a while; it ends in an event."""
        self._background.start(self._follow(delivery, doing))

    async def _follow(
        self, delivery: Delivery, doing: Coroutine[Any, Any, Event]
    ) -> None:
        try:
            event = await doing
        except Exception as error:  # noqa: BLE001 - told, and an event
            event = _thrown(delivery, error)
        self._tell(delivery.lease.key, event)

    # ── The actions ──────────────────────────────────────────────────────────────

    def _convert(self, delivery: Delivery, action: Convert) -> None:
        converting = self._parts.pool.submit(
            action.job, first=action.is_first, returns=action.returns
        )
        converting.add_done_callback(partial(self._report, delivery.lease.key))

    def _keep(self, delivery: Delivery, action: Keep) -> None:
        self.shelf.put(delivery.lease.key, action.error)

    def _publish(self, _: Delivery, action: Publish) -> None:
        self._outbox.publish(action.subject, orjson.dumps({"id": action.job_id}))

    def _ack(self, delivery: Delivery, _: Ack) -> None:
        self._outbox.ack(delivery.lease)

    def _nak(self, delivery: Delivery, action: Nak) -> None:
        delay = action.delay
        if delay:
            places = self._parts.consumer.max_ack_pending
            delay = self.waiting.admit(with_jitter(delay), places, time.monotonic())
        self._outbox.nak(delivery.lease, delay)

    def _term(self, delivery: Delivery, _: Term) -> None:
        self._outbox.term(delivery.lease)

    def _ask(self, delivery: Delivery, _: Ask) -> None:
        self._start(delivery, self._has_failed(delivery.lease))

    async def _has_failed(self, lease: Lease) -> Event:
        parts = self._parts
        return Answered(await has_failed(parts.connection, parts.consumer, lease))

    def _record(self, delivery: Delivery, _: RecordFailure) -> None:
        self._start(delivery, self._store_record(delivery))

    async def _store_record(self, delivery: Delivery) -> Event:
        record = failure_record(self._parts.consumer, delivery)
        log_failure(delivery, record)
        if self._parts.consumer.has_failures:
            await insist(lambda: failures.store(self._parts.connection, record))
        return Recorded()

    def _requeue(self, delivery: Delivery, _: Requeue) -> None:
        self._start(delivery, self._put_back(delivery.lease))

    async def _put_back(self, lease: Lease) -> Event:
        await rescue(self._parts.connection, self._parts.consumer, lease)
        return PutBack()

    def _clear_up(self, delivery: Delivery, _: ClearUp) -> None:
        self._start(delivery, self._remove_original(delivery.lease))

    async def _remove_original(self, lease: Lease) -> Event:
        await clear_up(self._parts.connection, self._parts.consumer, lease)
        return Cleared()

    def _remember(self, delivery: Delivery, action: Remember) -> None:
        self._past.pop(delivery.lease.key, None)
        if action.past is not NOTHING_PAST:
            self._past[delivery.lease.key] = action.past
        if len(self._past) > MAX_REMEMBERED:
            self._past.popitem(last=False)

    def _settle(self, delivery: Delivery, action: Settle) -> None:
        lease, job, report = delivery.lease, delivery.job, delivery.report
        settlement = Settlement(lease, job, action.verdict, report)
        for listener in self.on_settled:
            listener(settlement)

    def _complain(self, delivery: Delivery, action: Complain) -> None:
        log.error(
            "delivery.unexpected",
            seq=delivery.lease.seq,
            state=delivery.state.value,
            event=type(action.event).__name__,
        )

    _DO: ClassVar[dict[type[Action], Callable[[Deliveries, Delivery, Any], None]]] = {
        Convert: _convert,
        Keep: _keep,
        Publish: _publish,
        Ack: _ack,
        Nak: _nak,
        Term: _term,
        Ask: _ask,
        RecordFailure: _record,
        Requeue: _requeue,
        ClearUp: _clear_up,
        Remember: _remember,
        Settle: _settle,
        Complain: _complain,
    }

    # ── All of them at once ──────────────────────────────────────────────────────

    async def wait_until_empty(self) -> None:
        """Return when no delivery is held."""
        while self._held:
            self._empty.clear()
            await self._empty.wait()

    async def close(self) -> None:
        """Give up what still goes on in the background."""
        await self.shelf.close()
        await self._background.close()


def _thrown(delivery: Delivery, error: Exception) -> Thrown:
    """Tell what was thrown: a refusal in a line, a bug with its traceback."""
    about = {"seq": delivery.lease.seq, "state": delivery.state.value}
    if isinstance(error, BwpoolError):
        log.error("delivery.refused", reason=str(error), **about)
    else:
        log.error("delivery.bug", exc_info=error, **about)
    return Thrown(error)

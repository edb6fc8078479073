"""The supervisor: a puller, a pool and an outbox around the deliveries of a consumer.

It decides how much to pull and when to stop. It runs in one event loop, never blocks
it, and must not import the image libraries.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

import structlog

from bwpool.background import Background, first_of
from bwpool.deliveries import Deliveries, Parts
from bwpool.errors import QueueError
from bwpool.lookout import Lookout
from bwpool.pool.pool import MOST
from bwpool.queue.distance import Distance
from bwpool.queue.facts import Depth, read_depth
from bwpool.queue.lease import Lease
from bwpool.queue.outbox import Outbox
from bwpool.queue.patience import insist
from bwpool.queue.puller import Puller
from bwpool.settings import RunSettings
from bwpool.settlement import Tally, log_completion

EXTEND_AFTER = 1 / 3
"""The share of the ack wait after which a held lease is extended."""

LEASES_SHARE = 1 / 4
"""The share of the consumer's max_ack_pending that one supervisor may hold, unfinished
or on their way: what it holds for a long way to the server, the others can't."""

MAX_UNCONFIRMED = 4_096
"""Acks without confirmation that stop the pulling."""

LOOK_ELSEWHERE_EVERY = 0.25
"""Seconds between two looks, while retries wait, at what other supervisors hold."""

LOOK_FOR_MORE_EVERY = 0.1
"""Seconds between two looks, in a burst, at whether the queue is empty."""

SETTLE_WITHIN = 5.0
"""Seconds for the last words to the server when leaving."""

log = structlog.get_logger()


class Supervisor:
    """Works on one consumer until told to stop, or in a burst until it is empty."""

    def __init__(self, parts: Parts, settings: RunSettings) -> None:
        self.parts = parts
        self._settings = settings
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._background = Background()
        self._outbox = Outbox(
            parts.connection,
            ack_wait=parts.consumer.ack_wait,
            on_acked=self._acked,
        )
        self.tally = Tally()
        self._distance = Distance(parts.connection)
        self.deliveries = Deliveries(parts, self._outbox)
        self.deliveries.on_settled += [log_completion, self.tally]
        self._puller = Puller(
            parts.connection,
            parts.consumer,
            room=self._room,
            on_lease=self._receive,
        )
        self.deliveries.shelf.on_stall = self._puller.renew
        self._lookout = Lookout(parts, self._puller, self._outbox, self.deliveries)

    def __repr__(self) -> str:
        return (
            f"<Supervisor [Leases: {len(self.deliveries)} held, "
            f"{self._outbox.unconfirmed} unconfirmed | {self.parts.pool!r}]>"
        )

    async def run(self) -> bool:
        """Work; True if it ended in an orderly way, False if told to stop at once.

        Raises PoolError if the converters do not start any more, after all leases were
        handed back.
        """
        pool = self.parts.pool
        pool.on_room = self._puller.wake
        self._background.start(self._tend())
        self._background.start(self._lookout.run())
        self._background.start(self._look_elsewhere())
        self._background.start(self._distance.run())
        if self._settings.burst:
            self._background.start(self._stop_when_empty())
        self._puller.start()
        try:
            await first_of(self._stop.wait(), pool.broken)
            await self._drain()
        finally:
            await self._background.close()
            await self.deliveries.close()
            await self._puller.close()
            await self._outbox.close()
        if pool.broken.done():
            pool.broken.result()
        return not self._stop_now.is_set()

    def stop(self) -> None:
        """Drain, then end; called a second time, end at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    def _receive(self, lease: Lease) -> None:
        self.deliveries.receive(lease)

    def _acked(self, lease: Lease) -> None:
        self.deliveries.acked(lease)
        if self._outbox.unconfirmed == MAX_UNCONFIRMED:
            self._puller.wake()

    def _room(self, asked: int) -> int:
        """How many more messages to ask for now, where `asked` are on their way.

        Below 0 if that is too many.
        """
        if self._outbox.is_holding or self._outbox.unconfirmed > MAX_UNCONFIRMED:
            return 0
        limit = self.parts.consumer.max_ack_pending
        most = int(limit * LEASES_SHARE) if limit > 0 else MOST
        room = self.parts.pool.room(asked, self._distance.round_trip, most)
        deliveries = self.deliveries
        more = deliveries.shelf.room(room, len(deliveries))
        if deliveries.shelf.is_stalled:
            return more - asked
        return min(room, more)

    async def _tend(self) -> None:
        """Extend what is held for as long as it is, and repeat unconfirmed acks."""
        while True:
            ack_wait = self.parts.consumer.ack_wait
            period = min(1.0, ack_wait / 12)
            await asyncio.sleep(period)
            self.deliveries.extend(ack_wait * EXTEND_AFTER - period)
            self._outbox.retry_acks()
            if shared := self.parts.pool.share():
                log.info("jobs.shared", count=shared)

    async def _look_elsewhere(self) -> None:
        """Learn how many places others hold, as long as retries of ours wait."""
        waiting = self.deliveries.waiting
        while True:
            await asyncio.sleep(LOOK_ELSEWHERE_EVERY)
            if not waiting.count(time.monotonic()):
                waiting.elsewhere = 0
                continue
            with contextlib.suppress(QueueError):
                depth = await self._depth()
                ours = len(self.deliveries) + waiting.count(time.monotonic())
                waiting.elsewhere = max(0, depth.in_flight - ours)

    async def _drain(self) -> None:
        """Stop pulling, hand back what is not begun, and finish the rest in time."""
        log.info("supervisor.draining", held=len(self.deliveries))
        finishing = asyncio.ensure_future(self._finish())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_timeout):
                await first_of(self._stop_now.wait(), finishing)
        if not finishing.done():
            log.warning("supervisor.abandoning", held=len(self.deliveries))
            self.parts.pool.abandon()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(finishing, SETTLE_WITHIN)
        if not await self._outbox.flush(SETTLE_WITHIN):
            log.warning("supervisor.unsettled", unconfirmed=self._outbox.unconfirmed)

    async def _finish(self) -> None:
        # In this order: what is handed back must not be delivered to us again.
        await self._puller.stop()
        self.deliveries.leave()
        await self.deliveries.wait_until_empty()

    async def _stop_when_empty(self) -> None:
        await self.wait_until_queue_is_empty()
        self.stop()

    async def wait_until_queue_is_empty(self) -> None:
        """Return once nothing waits and nothing is out, here or elsewhere.

        The pull stays open until then: a final nak shows its effect only to a pull.
        """
        while True:
            await asyncio.sleep(LOOK_FOR_MORE_EVERY)
            if not len(self.deliveries) and (await insist(self._depth)).is_empty:
                return

    async def _depth(self) -> Depth:
        return await read_depth(self.parts.connection, self.parts.consumer)

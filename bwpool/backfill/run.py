"""One backfill under way: the queue is filled while the supervisor works on it.

Owns the order of things, and when all is over. Called by the command line, which opens
the server and the supervisor, and shows the ledger.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from functools import partial

import structlog

from bwpool.backfill import account
from bwpool.backfill.feed import fill, resume
from bwpool.backfill.inputs import Input
from bwpool.backfill.ledger import Ledger
from bwpool.embedded import EmbeddedServer
from bwpool.errors import QueueError
from bwpool.queue.facts import Depth, read_depth, records_subject
from bwpool.queue.patience import insist
from bwpool.queue.watch import watching
from bwpool.supervisor import Supervisor

LOOK_EVERY = 0.5
"""Seconds between two looks at a shared queue for inputs that nobody told us of."""

log = structlog.get_logger()


class Run:
    """Converts what the ledger waits for.

    `pictures` are all inputs, those that are done included. `own` is the server if it
    is there for this backfill alone; on a shared one others may convert our pictures,
    and we theirs.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        ledger: Ledger,
        pictures: Sequence[Input],
        own: EmbeddedServer | None = None,
    ) -> None:
        self.was_interrupted = False
        self._supervisor = supervisor
        self._connection = supervisor.parts.connection
        self._consumer = supervisor.parts.consumer
        self._ledger = ledger
        self._pictures = {picture.job_id: picture for picture in pictures}
        self._images = {picture.job_id: picture.image for picture in pictures}
        self._own = own

    def interrupt(self) -> None:
        """End early, in an orderly way; called a second time, at once."""
        self.was_interrupted = True
        self._supervisor.stop()

    async def finish(self) -> None:
        """Convert everything, until that is done or interrupted.

        Raises QueueError where the queue is lost, PoolError where converters don't
        start; what is not accounted for by then still waits in the ledger.
        """
        working = asyncio.ensure_future(self._work())
        if self._own is None:
            await working
            return
        ending = asyncio.ensure_future(self._own.wait())
        await asyncio.wait({working, ending}, return_when="FIRST_COMPLETED")
        if working.done():
            ending.cancel()
            working.result()
            return
        # Not a drain: nothing that it waits for can be confirmed any more.
        working.cancel()
        await asyncio.wait({working})
        raise QueueError(
            f"the server ended: {self._own.store / 'nats-server.log'} says why"
        )

    async def _work(self) -> None:
        self._supervisor.deliveries.on_settled.append(
            partial(account.enter_settlement, self._ledger, self._images)
        )
        to_do = await self._prepare()
        running = asyncio.ensure_future(self._supervisor.run())
        filling = asyncio.ensure_future(self._fill(to_do))
        try:
            await asyncio.wait({running, filling}, return_when="FIRST_COMPLETED")
            if filling.done():
                self._supervisor.stop()
            await running
        finally:
            for task in (running, filling):
                task.cancel()
            await asyncio.wait({running, filling})
        if not filling.cancelled():
            filling.result()

    async def _prepare(self) -> list[Input]:
        """See what the queue holds already; return what is to be published."""
        left: dict[str, str] = {}
        if self._own is None:
            await self._warn_of_others()
        else:
            left = await resume(
                self._connection, self._consumer, self._images, self._ledger.waiting
            )
        waiting = self._ledger.waiting
        return [self._pictures[job_id] for job_id in waiting if job_id not in left]

    async def _fill(self, to_do: Sequence[Input]) -> None:
        """Publish what is not in the queue already, and wait until all is done."""
        if self._own is None:
            await self._fill_shared(to_do)
        else:
            await self._publish(to_do, None)
            await self._supervisor.wait_until_queue_is_empty()
        account.reconcile(self._ledger, self._pictures)

    async def _fill_shared(self, to_do: Sequence[Input]) -> None:
        """The same where others may convert our pictures and we theirs."""
        advisory = self._connection.client.new_inbox()
        converted = partial(account.enter_advisory, self._ledger, self._pictures)
        failed = partial(account.enter_record, self._ledger, self._images)
        records = records_subject(self._consumer)
        async with (
            watching(self._connection, advisory, converted),
            watching(self._connection, records, failed),
        ):
            await self._publish(to_do, advisory)
            while not self._ledger.is_complete:
                await asyncio.sleep(LOOK_EVERY)
                if (await insist(self._depth)).is_empty:
                    return

    async def _publish(self, to_do: Sequence[Input], advisory: str | None) -> None:
        run_id = uuid.uuid4().hex[:12]
        await fill(
            self._connection, self._consumer, to_do, self._ledger, run_id, advisory
        )

    async def _depth(self) -> Depth:
        return await read_depth(self._connection, self._consumer)

    async def _warn_of_others(self) -> None:
        depth = await self._depth()
        if depth.waiting or depth.in_flight:
            log.warning(
                "backfill.foreign_jobs",
                waiting=depth.waiting,
                in_flight=depth.in_flight,
            )
        if depth.pulls:
            log.warning("backfill.other_supervisors", pulls=depth.pulls)

"""One backfill under way: the queue is filled while the supervisor works on it.

Owns the order of things, and when all is over. Called by the command line, which opens
the server and the supervisor, and shows the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Sequence

from bwpool.backfill.account import Account
from bwpool.backfill.feed import fill, resume
from bwpool.backfill.inputs import Input
from bwpool.embedded import EmbeddedServer
from bwpool.errors import QueueError
from bwpool.queue.facts import Depth, read_depth, records_subject
from bwpool.queue.patience import insist
from bwpool.queue.watch import watching
from bwpool.supervisor import Supervisor

LOOK_EVERY = 0.1
"""Seconds between two looks at whether all is accounted for."""

LAST_NAKS = 1.0
"""Seconds for the server to notice that jobs have failed: it counts the last delivery
as used up only while somebody pulls, and only then says so to who listens."""


class Run:
    """Converts what the ledger waits for, from a queue that is its own.

    `own` is the server, if it is there for this backfill alone. On a shared one a
    supervisor may have been started on our consumer to help.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        account: Account,
        own: EmbeddedServer | None = None,
    ) -> None:
        self.was_interrupted = False
        self._supervisor = supervisor
        self._connection = supervisor.parts.connection
        self._consumer = supervisor.parts.consumer
        self._account = account
        self._ledger = account.ledger
        self._own = own

    def interrupt(self) -> None:
        """End early, in an orderly way; called a second time, at once."""
        self.was_interrupted = True
        self._supervisor.stop()

    async def finish(self) -> None:
        """Convert everything, until that is done or interrupted.

        Raises QueueError where the queue is lost, PoolError where converters don't
        start, LedgerError where the ledger can't be written; what is not accounted for
        by then still waits in the ledger.
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
        # What is to be done is in the ledger before the first job is published: should
        # we be killed, the next run knows whose the outputs are.
        await self._account.write()
        writing = asyncio.ensure_future(self._account.keep_writing())
        try:
            await self._convert()
        finally:
            writing.cancel()
            await asyncio.wait({writing})
            await self._account.write()

    async def _convert(self) -> None:
        self._supervisor.deliveries.on_settled.append(self._account.enter_settlement)
        left = await resume(
            self._connection,
            self._consumer,
            self._account.images,
            self._ledger.waiting,
        )
        pictures = self._account.pictures
        to_do = [pictures[each] for each in self._ledger.waiting if each not in left]
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

    async def _fill(self, to_do: Sequence[Input]) -> None:
        """Publish what is not in the queue already, and wait until all is done."""
        if self._own is not None:
            await self._publish(to_do, None)
            await self._account_for_all()
            return
        advisory = self._connection.client.new_inbox()
        records = records_subject(self._consumer)
        async with (
            watching(self._connection, advisory, self._account.enter_advisory),
            watching(self._connection, records, self._account.enter_record),
        ):
            await self._publish(to_do, advisory)
            await self._account_for_all()

    async def _publish(self, to_do: Sequence[Input], advisory: str | None) -> None:
        run_id = uuid.uuid4().hex[:12]
        await fill(
            self._connection, self._consumer, to_do, self._account, run_id, advisory
        )

    async def _account_for_all(self) -> None:
        """Return when every input is accounted for, and the queue has heard of it.

        The queue's own numbers don't decide: after its server was killed, it counts
        messages that are gone as under way until the ack wait is over.
        """
        while not self._ledger.is_complete:
            await asyncio.sleep(LOOK_EVERY)
            held = len(self._supervisor.deliveries)
            if not held and (await insist(self._depth)).is_empty:
                self._account.reconcile()
        if self._ledger.failures:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_NAKS):
                    await self._supervisor.wait_until_queue_is_empty()

    async def _depth(self) -> Depth:
        return await read_depth(self._connection, self._consumer)

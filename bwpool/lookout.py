"""The lookout: notices that the queue is not what it was, or does not deliver.

A consumer or a stream can be deleted, changed or made anew under way, a server can come
back without what it had, and a pull can get stuck. Called by the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import asdict

import structlog

from bwpool.background import pauses
from bwpool.deliveries import Deliveries, Parts
from bwpool.errors import QueueError
from bwpool.queue.facts import ConsumerFacts, Depth, read_depth, read_facts
from bwpool.queue.outbox import Outbox
from bwpool.queue.puller import Puller
from bwpool.settings import QueueSettings

LOOK_EVERY = 5.0
"""Seconds without a delivery after which the queue is looked at."""

CALM = 0.5
"""Seconds between two looks that suspicions lead to."""

ANSWER_WITHIN = 2.0
"""Seconds for an answer: a cluster without a leader gives none, and soon has one."""

LONGEST_PAUSE = 1.0
"""Seconds between two questions at most, since jobs wait to be settled."""

SAY_EVERY = 60.0
"""Seconds between two lines about the same trouble."""

log = structlog.get_logger()


class Lookout:
    """Looks at the queue again when something suggests that it has changed."""

    def __init__(
        self, parts: Parts, puller: Puller, outbox: Outbox, deliveries: Deliveries
    ) -> None:
        self._parts = parts
        self._puller = puller
        self._outbox = outbox
        self._deliveries = deliveries
        self._suspicion = asyncio.Event()
        self._trouble = ""
        """What keeps deliveries away, as far as known."""
        self._said = 0.0
        parts.connection.on_up.append(self.suspect)
        puller.on_refused = self.suspect
        outbox.on_unheard = self.suspect

    def suspect(self) -> None:
        """Look at the queue soon; until then nothing is settled.

        Were the stream another one, an ack would remove a job that nobody has done.
        """
        self._outbox.hold()
        self._suspicion.set()

    async def run(self) -> None:
        """Look whenever there is a reason to; never returns."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._suspicion.wait()
            if self._suspicion.is_set():
                self._suspicion.clear()
                await self._look_again()
                # What is suspicious for good must not keep us busy.
                await asyncio.sleep(CALM)
            elif self._puller.idle >= LOOK_EVERY:
                await self._look_for_trouble()
            else:
                self._trouble = ""

    async def _look_again(self) -> None:
        """Read the facts anew, and go by them."""
        before, now = self._parts.consumer, await self._read_facts()
        if now.stream_created != before.stream_created:
            log.error(
                "queue.recreated", stream=now.stream, disowned=len(self._deliveries)
            )
            self._deliveries.disown()
            self._outbox.disown()
        if now != before:
            log.warning("queue.changed", **_differences(before, now))
        self._parts.consumer = now
        self._deliveries.adopt(now)
        self._outbox.ack_wait = now.ack_wait
        self._outbox.release()
        self._puller.renew()

    async def _read_facts(self) -> ConsumerFacts:
        consumer = self._parts.consumer
        names = QueueSettings(
            stream=consumer.stream, consumer=consumer.name, subject=consumer.subject
        )
        for pause in pauses(longest=LONGEST_PAUSE):
            try:
                async with asyncio.timeout(ANSWER_WITHIN):
                    return await read_facts(self._parts.connection, names)
            except (QueueError, TimeoutError) as error:
                log.error("queue.unusable", error=str(error) or "no answer")  # noqa: TRY400
                await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    async def _look_for_trouble(self) -> None:
        """Find out whether an open pull should have brought something."""
        try:
            depth = await read_depth(self._parts.connection, self._parts.consumer)
        except QueueError as error:
            log.warning("queue.request_failed", error=str(error))
            self.suspect()
            return
        if depth.created != self._parts.consumer.created:
            self.suspect()
            return
        trouble = self._diagnose(depth)
        if trouble == "stuck":
            # The pull may be at fault; never the consumer's deletion.
            self._puller.renew()
        if trouble and trouble != self._trouble:
            log.warning("queue.undelivered", cause=trouble, waiting=depth.waiting)
            self._said = time.monotonic()
        elif trouble and time.monotonic() - self._said > SAY_EVERY:
            log.error(
                "queue.undelivered",
                cause=trouble,
                waiting=depth.waiting,
                remedy=_REMEDY,
            )
            self._said = time.monotonic()
        self._trouble = trouble

    def _diagnose(self, depth: Depth) -> str:
        """Say why messages that wait are not delivered; nothing if all is well."""
        if depth.waiting == 0:
            return ""
        if depth.is_paused:
            return "paused"
        if 0 < self._parts.consumer.max_ack_pending <= depth.in_flight:
            return "max_ack_pending"
        return "stuck"


_REMEDY = "nats consumer info shows its state; a restart of the server may help"


def _differences(before: ConsumerFacts, now: ConsumerFacts) -> dict[str, object]:
    old, new = asdict(before), asdict(now)
    return {name: new[name] for name in new if new[name] != old[name]}

"""The puller: asks the consumer for exactly as much as there is room for.

It works in generations. One generation is one subscription with at most one pull
outstanding; it ends when its heartbeats stay away, or when somebody else finds that it
can't be trusted, and a new one with a new inbox begins. (nats-py's own `fetch` loses
pulls, swallows 409s and can hang in a drain.)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import orjson
import structlog
from nats import errors as nats_errors

from bwpool.background import Background
from bwpool.queue.lease import Lease, read_lease

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

    from bwpool.queue.connection import Connection
    from bwpool.queue.facts import ConsumerFacts

EXPIRES = 30.0
"""Seconds after which a pull that was not satisfied comes back."""

HEARTBEAT = 5.0
"""Seconds between the server's signs of life while a pull waits."""

MISSED_HEARTBEATS = 2.2
"""Heartbeats without a sign of life that end a generation; a bit over two, since the
second may be under way."""

BACK_OFF = 1.0
"""Seconds until the next pull after the server refused one."""

STOP_WITHIN = 5.0
"""Seconds for the last messages on their way when pulling stops."""

log = structlog.get_logger()


class _Generation:
    """One subscription and the pull that is outstanding on it."""

    def __init__(self, puller: Puller, client: Client) -> None:
        self.client = client
        self.inbox = client.new_inbox()
        self.outstanding = 0
        """Messages that the current pull can still deliver."""
        self.heard = time.monotonic()
        self.delivered = time.monotonic()
        """When it delivered, or was asked to."""
        self._puller = puller
        self.subscription: Subscription

    async def open(self) -> None:
        self.subscription = await self.client.subscribe(self.inbox, cb=self._receive)

    async def close(self) -> None:
        """End the subscription, which cancels its pull, after what is on its way."""
        with contextlib.suppress(TimeoutError, nats_errors.Error):
            drained = self.subscription.drain()  # type: ignore[no-untyped-call]
            await asyncio.wait_for(drained, STOP_WITHIN)

    async def _receive(self, msg: Msg) -> None:
        self.heard = time.monotonic()
        if not msg.reply:
            self._puller.on_status(self, msg.headers or {})
        elif (lease := _lease(msg)) is not None:
            self.outstanding -= 1
            self.delivered = self.heard
            self._puller.on_lease(lease)
        if self.outstanding <= 0:
            self._puller.wake()


def _lease(msg: Msg) -> Lease | None:
    """Make a lease of a message, unless somebody else sent it to our inbox."""
    try:
        return read_lease(msg.subject, msg.data, msg.headers, msg.reply)
    except ValueError as error:
        log.warning("queue.no_delivery", reason=str(error))
        return None


class Puller:
    """Keeps one pull open for the room that `room` tells.

    `on_lease` gets each delivery, in the event loop. After `stop` nothing is asked for
    any more, but what was on its way still arrives.
    """

    def __init__(
        self,
        connection: Connection,
        consumer: ConsumerFacts,
        *,
        room: Callable[[], int],
        on_lease: Callable[[Lease], None],
    ) -> None:
        self._connection = connection
        self._subject = connection.api_subject(
            f"CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.name}"
        )
        self._room = room
        self.on_lease = on_lease
        self._generation: _Generation | None = None
        self._wake = asyncio.Event()
        self._back_off_until = 0.0
        self.on_refused: Callable[[], None] = lambda: None
        """Called when the consumer is gone, or would not have us."""
        self._background = Background()

    @property
    def idle(self) -> float:
        """Seconds that a pull has been open without a delivery; 0 if none is."""
        generation = self._generation
        if generation is None or generation.outstanding <= 0:
            return 0.0
        return time.monotonic() - generation.delivered

    def start(self) -> None:
        """Begin to pull."""
        self._background.start(self._run())
        self._background.start(self._watch())
        self._wake.set()

    def wake(self) -> None:
        """Look again whether there is room; in vain while a pull is outstanding."""
        if self._generation is None or self._generation.outstanding <= 0:
            self._wake.set()

    def renew(self) -> None:
        """Begin a new generation: the outstanding pull can't be trusted."""
        old, self._generation = self._generation, None
        if old is not None:
            self._background.start(old.close())
        self._wake.set()

    async def stop(self) -> None:
        """Cancel the outstanding pull, and return when the last message is in."""
        await self._background.close()
        if self._generation is not None and self._connection.is_up:
            await self._generation.close()

    async def close(self) -> None:
        """Stop at once, whatever is on its way."""
        await self._background.close()

    def on_status(self, generation: _Generation, headers: dict[str, str]) -> None:
        """Note what the server says of a pull instead of delivering."""
        status = headers.get("Status", "")
        if status == "100":  # a heartbeat
            return
        generation.outstanding = 0
        reason = headers.get("Description", "")
        if status in ("404", "408"):  # nothing there, or not in time
            return
        # 409: deleted, leadership changed, shutting down, over a limit; 503: nobody
        # answers for this consumer.
        self._back_off_until = time.monotonic() + BACK_OFF
        log.warning("queue.pull_refused", status=status, reason=reason)
        self.on_refused()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            wait = self._back_off_until - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            try:
                await self._pull()
            except nats_errors.Error as error:
                # Down: somebody renews when it is up again.
                log.debug("queue.pull_interrupted", error=repr(error))

    async def _pull(self) -> None:
        if not self._connection.is_up:
            return
        if self._generation is None:
            generation = _Generation(self, self._connection.client)
            await generation.open()
            self._generation = generation
        generation = self._generation
        batch = self._room()
        if generation.outstanding > 0 or batch <= 0:
            return
        generation.outstanding = batch
        generation.heard = generation.delivered = time.monotonic()
        request = {
            "batch": batch,
            "expires": int(EXPIRES * 1e9),
            "idle_heartbeat": int(HEARTBEAT * 1e9),
        }
        await generation.client.publish(
            self._subject, orjson.dumps(request), generation.inbox
        )

    async def _watch(self) -> None:
        """Wake after a refusal, and renew when the server's heartbeats stay away."""
        while True:
            await asyncio.sleep(1.0)
            self.wake()
            generation = self._generation
            if generation is None or not self._connection.is_up:
                continue
            silence = time.monotonic() - generation.heard
            if generation.outstanding and silence > MISSED_HEARTBEATS * HEARTBEAT:
                log.warning("queue.pull_silent", silence=round(silence, 1))
                self.renew()
                await self._connection.check()

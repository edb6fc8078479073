"""The puller: asks the consumer for exactly as much as there is room for.

It works in generations. One generation is one subscription, and the pulls that are open
on it: the next one is sent before the last one is exhausted, since the way to the
server may be long. It ends when its heartbeats stay away, or when somebody else finds
that it can't be trusted, and a new one with a new inbox begins. (nats-py's own `fetch`
loses pulls, swallows 409s and can hang in a drain.)
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
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

CALM = 1.0
"""Seconds without a delivery after which an empty queue is assumed."""

BACK_OFF = 1.0
"""Seconds until the next pull after the server refused one."""

STOP_WITHIN = 5.0
"""Seconds for the last messages on their way when pulling stops."""

log = structlog.get_logger()


class _Generation:
    """One subscription and the pulls that are open on it."""

    def __init__(self, puller: Puller, client: Client) -> None:
        self.client = client
        self.inbox = client.new_inbox()
        self.outstanding = 0
        """Messages that the open pulls can still deliver, all together: a message does
        not say which pull it belongs to."""
        self._pulls: deque[tuple[float, int]] = deque()
        """When each pull was sent, and for how many messages; exhausted ones too."""
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

    def note_pull(self, batch: int) -> None:
        """Count a pull that is sent now."""
        self.heard = now = time.monotonic()
        if self.outstanding <= 0:
            self.delivered = now
            self._pulls.clear()
        self.outstanding = max(0, self.outstanding) + batch
        self._pulls.append((now, batch))

    def note_end(self, headers: dict[str, str]) -> None:
        """Count a pull that has come back, with what it did not deliver."""
        rest = headers.get("Nats-Pending-Messages", "")
        self.outstanding -= int(rest) if rest.isdecimal() else self.outstanding

    def forget_old_pulls(self) -> None:
        """Let go of pulls that should have come back: a full server drops some."""
        oldest = time.monotonic() - EXPIRES - HEARTBEAT
        while self._pulls and self._pulls[0][0] < oldest:
            self._pulls.popleft()
        open_at_most = sum(batch for _, batch in self._pulls)
        self.outstanding = min(self.outstanding, open_at_most)

    async def _receive(self, msg: Msg) -> None:
        self.heard = time.monotonic()
        if not msg.reply:
            self._puller.on_status(self, msg.headers or {})
            self._puller.wake()
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
    """Keeps pulls open for the room that `room` tells.

    It is given how many messages are asked for already, and returns for how many more
    to ask, or, below 0, that too many are. `on_lease` gets each delivery, in the event
    loop. After `stop` nothing is asked for any more, but what was on its way still
    arrives.
    """

    def __init__(
        self,
        connection: Connection,
        consumer: ConsumerFacts,
        *,
        room: Callable[[int], int],
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
        """Look again whether there is room."""
        generation = self._generation
        if generation is None or self._more(generation) > 0:
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
        reason = headers.get("Description", "")
        if status in ("404", "408"):  # nothing there, or not in time
            generation.note_end(headers)
            return
        generation.outstanding = 0
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
        batch = self._more(generation)
        if batch <= 0:
            return
        generation.note_pull(batch)
        request = {
            "batch": batch,
            "expires": int(EXPIRES * 1e9),
            "idle_heartbeat": int(HEARTBEAT * 1e9),
        }
        await generation.client.publish(
            self._subject, orjson.dumps(request), generation.inbox
        )

    def _more(self, generation: _Generation) -> int:
        """For how many messages to ask now; below 0 if for too many already."""
        asked = max(0, generation.outstanding)
        more = self._room(asked)
        # Where nothing comes, a few large pulls wait better than many small ones.
        is_calm = time.monotonic() - generation.delivered > CALM
        return 0 if is_calm and 0 < more < asked else more

    async def _watch(self) -> None:
        """Wake after a refusal, and renew when the server's heartbeats stay away.

        So too when more is asked for than there is room: what waits here when others
        could do it can't be taken back any more.
        """
        while True:
            await asyncio.sleep(1.0)
            self.wake()
            generation = self._generation
            if generation is None or not self._connection.is_up:
                continue
            generation.forget_old_pulls()
            if generation.outstanding > 0 and self._more(generation) < 0:
                self.renew()
                continue
            silence = time.monotonic() - generation.heard
            if generation.outstanding and silence > MISSED_HEARTBEATS * HEARTBEAT:
                log.warning("queue.pull_silent", silence=round(silence, 1))
                self.renew()
                await self._connection.check()

"""The outbox: all that the supervisor tells the server about its leases.

Whoever settles a lease only leaves a note here; one task sends them in order, so that
an advisory is out before its ack, and neighbouring notes share a write. An ack counts
when the server has confirmed it, and is sent again until then.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
import structlog
from nats import errors as nats_errors

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

    from bwpool.queue.connection import Connection
    from bwpool.queue.lease import Lease

CONFIRM_WITHIN = 2.0
"""Seconds after which an ack that was not confirmed is sent again."""

GATHER = 0.005
"""Seconds for which notes gather after the last ones were sent: each write wakes the
server, on a core that a converter could use."""

_ACK, _NAK, _EXTEND, _TERM = b"+ACK", b"-NAK", b"+WPI", b"+TERM"

log = structlog.get_logger()


@dataclass(slots=True)
class _Note:
    subject: str
    payload: bytes
    reply: str = ""
    expires: float = math.inf
    """The time after which it must not be sent: a late nak hits another's lease."""
    settles: bool = False
    """Whether it is about a lease."""


@dataclass(slots=True)
class _Unconfirmed:
    lease: Lease
    sent: float


class Outbox:
    """Sends what it is given as soon as the connection allows."""

    def __init__(
        self,
        connection: Connection,
        *,
        ack_wait: float,
        on_acked: Callable[[Lease], None],
    ) -> None:
        self.ack_wait = ack_wait
        self.on_unheard: Callable[[], None] = lambda: None
        """Called when nobody was there to hear an ack."""
        self._connection = connection
        self._on_acked = on_acked
        self._is_holding = False
        self._notes: deque[_Note] = deque()
        self._extensions: deque[_Note] = deque()
        """Sent even while the rest is held: at worst they harm nobody."""
        self._unconfirmed: dict[str, _Unconfirmed] = {}
        self._count = 0
        self._sent = 0.0
        self._wake = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._client: Client | None = None
        self._inbox = ""
        self._task = asyncio.create_task(self._run(), name="outbox")

    @property
    def is_holding(self) -> bool:
        """Whether nothing is settled at the moment."""
        return self._is_holding

    @property
    def unconfirmed(self) -> int:
        """How many acks the server has not confirmed yet."""
        return len(self._unconfirmed)

    def publish(self, subject: str, payload: bytes) -> None:
        """Publish a message of the job's own, without confirmation."""
        self._add(_Note(subject, payload))

    def ack(self, lease: Lease) -> None:
        """Acknowledge `lease`; `on_acked` follows when the server has confirmed it."""
        self._count += 1
        token = str(self._count)
        self._unconfirmed[token] = _Unconfirmed(lease, time.monotonic())
        self._send_ack(token, lease)

    def nak(self, lease: Lease, delay: float = 0.0) -> None:
        """Hand `lease` back, to be delivered again after `delay` seconds."""
        payload = _NAK
        if delay:
            payload += b" " + orjson.dumps({"delay": int(delay * 1e9)})
        expires = lease.extended + self.ack_wait
        self._tell(_Note(lease.reply, payload, expires=expires))

    def term(self, lease: Lease) -> None:
        """Have the message removed, undone; bare, as servers before 2.10.4 want it."""
        self._tell(_Note(lease.reply, _TERM))

    def extend(self, lease: Lease) -> None:
        """Begin the ack wait of `lease` anew, unless the connection is down."""
        if self._connection.is_up:
            lease.extended = time.monotonic()
            self._extensions.append(_Note(lease.reply, _EXTEND))
            self._wake.set()

    def retry_acks(self) -> None:
        """Send again what has waited too long for its confirmation."""
        if not self._connection.is_up or self._is_holding:
            return
        now = time.monotonic()
        # In order of sending: whatever is sent again moves to the end.
        for token, ack in list(self._unconfirmed.items()):
            if now - ack.sent < CONFIRM_WITHIN:
                break
            del self._unconfirmed[token]
            self._unconfirmed[token] = _Unconfirmed(ack.lease, now)
            self._send_ack(token, ack.lease)

    def hold(self) -> None:
        """Settle nothing until `release`: nobody knows whose jobs it would hit."""
        self._is_holding = True

    def release(self) -> None:
        """Go on, and send all acks again: what was on its way may be lost."""
        self._is_holding = False
        for ack in self._unconfirmed.values():
            ack.sent = -math.inf
        self.retry_acks()
        self._wake.set()

    def disown(self) -> None:
        """Forget every note about a lease: the stream they came from is gone."""
        self._unconfirmed.clear()
        self._notes = deque(note for note in self._notes if not note.settles)
        self._confirmed.set()

    async def flush(self, timeout: float) -> bool:
        """Wait until all is sent and every ack confirmed; False if time ran out."""
        with contextlib.suppress(TimeoutError, nats_errors.Error):
            async with asyncio.timeout(timeout):
                while self._notes or self._unconfirmed:
                    self._confirmed.clear()
                    await self._confirmed.wait()
                await self._connection.client.flush()
                return True
        return False

    async def close(self) -> None:
        """Stop sending; what is still here stays unsent."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _tell(self, note: _Note) -> None:
        note.settles = True
        self._add(note)

    def _add(self, note: _Note) -> None:
        self._notes.append(note)
        self._wake.set()

    def _send_ack(self, token: str, lease: Lease) -> None:
        self._tell(_Note(lease.reply, _ACK, reply=token))

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            # Under load neighbours share a write; a single note goes out at once.
            if time.monotonic() - self._sent < GATHER:
                await asyncio.sleep(GATHER)
            self._wake.clear()
            if not self._connection.is_up:
                continue
            try:
                await self._send_all()
            except (nats_errors.Error, OSError) as error:
                # Down again: `release` wakes us when it is up.
                log.debug("outbox.interrupted", error=repr(error))
            except Exception:
                # Without this task nothing would ever be settled again.
                log.exception("outbox.bug")
            self._sent = time.monotonic()
            self._confirmed.set()

    async def _send_all(self) -> None:
        client = self._connection.client
        if client is not self._client:
            await self._listen(client)
        while self._extensions:
            await self._send(client, self._extensions[0])
            self._extensions.popleft()
        notes = self._notes
        while notes and not self._is_holding:
            await self._send(client, notes[0])
            notes.popleft()

    async def _send(self, client: Client, note: _Note) -> None:
        if note.expires <= time.monotonic():
            return
        reply = self._inbox + note.reply if note.reply else ""
        try:
            await client.publish(note.subject, note.payload, reply)
        except (nats_errors.BadSubjectError, nats_errors.MaxPayloadError) as error:
            log.warning("outbox.dropped", subject=note.subject, error=repr(error))
        except (nats_errors.Error, OSError):
            raise
        except Exception:
            if not self._connection.is_up:
                raise  # uvloop says RuntimeError of a socket that is closed
            # An ack is sent again, and whatever else it is about comes again.
            log.exception("outbox.dropped", subject=note.subject)

    async def _listen(self, client: Client) -> None:
        """Subscribe to confirmations on a new client."""
        self._inbox = client.new_inbox() + "."
        await client.subscribe(self._inbox + "*", cb=self._on_confirmation)
        self._client = client

    async def _on_confirmation(self, msg: Msg) -> None:
        if msg.headers and "Status" in msg.headers:
            self.on_unheard()  # `retry_acks` goes on
            return
        token = msg.subject[len(self._inbox) :]
        ack = self._unconfirmed.pop(token, None)
        if ack is not None:
            self._on_acked(ack.lease)
            if not self._unconfirmed:
                self._confirmed.set()

"""Jobs into the stream, many at once, each confirmed.

Owns pipelined publishing and what can keep a message out of the stream. Called by
`submit` and `backfill`; knows nothing of a job but its bytes.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from bwpool.errors import QueueError
from bwpool.queue.connection import Connection

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

WINDOW = 1000
"""Messages under way at once: more gain nothing, and strain a slow server."""
CONFIRM_TIMEOUT = 10.0
"""Seconds until a missing confirmation is given up, or a lost server."""

_ID_HEADER_BYTES = 27
"""What `Nats-Msg-Id` costs besides the id: `NATS/1.0␍␊Nats-Msg-Id: ␍␊␍␊`."""
_TOO_LARGE = 10054


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to store."""

    payload: bytes
    id: str | None = None
    """Its Nats-Msg-Id: stored once within the stream's duplicate window."""


@dataclass(frozen=True, slots=True)
class Stored:
    """The stream has the message."""

    seq: int
    duplicate: bool
    """A message with this id was stored before, as `seq`; it may be gone by now."""


@dataclass(frozen=True, slots=True)
class NotStored:
    """The stream doesn't have the message, or nobody knows."""

    reason: str
    is_retryable: bool
    """Whether the same message may be accepted later; give it an id to retry."""


Receipt = Stored | NotStored


async def submit(
    connection: Connection,
    subject: str,
    messages: Iterable[Outgoing],
    *,
    max_msg_bytes: int = -1,
) -> AsyncIterator[Receipt]:
    """Store messages, `WINDOW` at a time; yield a receipt for each, in their order.

    `max_msg_bytes` is the stream's limit: what is larger isn't sent, and an id that
    would pass it is left out. Raises QueueError once the server stays away. Close
    the iterator (`contextlib.aclosing`) when leaving it early.
    """
    publisher = _Publisher(connection, subject, max_msg_bytes)
    clock = asyncio.get_running_loop().time
    under_way: deque[tuple[asyncio.Future[Receipt], float]] = deque()
    try:
        for message in messages:
            future = await publisher.send(message)
            under_way.append((future, clock() + CONFIRM_TIMEOUT))
            while under_way and (len(under_way) >= WINDOW or under_way[0][0].done()):
                yield await _receipt(*under_way.popleft())
        while under_way:
            yield await _receipt(*under_way.popleft())
    finally:
        await publisher.close()


class _Publisher:
    """Sends messages and matches confirmations, over one inbox per nats client."""

    def __init__(
        self, connection: Connection, subject: str, max_msg_bytes: int
    ) -> None:
        self._connection = connection
        self._subject = subject
        self._max_msg_bytes = max_msg_bytes
        self._client: Client | None = None
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._numbers = itertools.count()
        self._waiting: dict[str, asyncio.Future[Receipt]] = {}

    async def send(self, message: Outgoing) -> asyncio.Future[Receipt]:
        """Send one message; the result resolves once it is confirmed or refused."""
        future = asyncio.get_running_loop().create_future()
        size = len(message.payload)
        if 0 <= self._max_msg_bytes < size:
            future.set_result(_too_large(size, self._max_msg_bytes))
            return future
        if not self._connection.is_up:
            await self._connection.wait_up(CONFIRM_TIMEOUT)
        if self._client is not self._connection.client:
            await self._listen()
        reply = f"{self._inbox}{next(self._numbers)}"
        self._waiting[reply] = future
        try:
            await self._connection.publish(
                self._subject, message.payload, reply, self._headers(message)
            )
        except QueueError as error:
            del self._waiting[reply]
            future.set_result(NotStored(str(error), is_retryable=True))
        return future

    async def close(self) -> None:
        """Stop listening for confirmations."""
        if self._subscription is not None and self._client is not None:
            if not self._client.is_closed:
                await self._subscription.unsubscribe()
            self._subscription = None

    async def _listen(self) -> None:
        await self.close()
        self._client = self._connection.client
        self._inbox = f"{self._client.new_inbox()}."
        self._subscription = await self._client.subscribe(
            f"{self._inbox}*", cb=self._confirm
        )

    async def _confirm(self, reply: Msg) -> None:
        future = self._waiting.pop(reply.subject, None)
        if future is not None and not future.done():
            future.set_result(_read(reply, self._subject))

    def _headers(self, message: Outgoing) -> dict[str, str] | None:
        if message.id is None:
            return None
        size = _ID_HEADER_BYTES + len(message.id.encode()) + len(message.payload)
        fits = self._max_msg_bytes < 0 or size <= self._max_msg_bytes
        return {"Nats-Msg-Id": message.id} if fits else None


async def _receipt(future: asyncio.Future[Receipt], deadline: float) -> Receipt:
    if not future.done():
        try:
            async with asyncio.timeout_at(deadline):
                await future
        except TimeoutError:
            reason = f"no confirmation within {CONFIRM_TIMEOUT:g} s"
            return NotStored(reason, is_retryable=True)
    return future.result()


def _read(reply: Msg, subject: str) -> Receipt:
    """Read the stream's answer to a published message."""
    if not reply.data:
        # Only the server's own status 503 is empty.
        return NotStored(
            f"no stream stores {subject}: run bwpool setup", is_retryable=False
        )
    answer: dict[str, Any] = orjson.loads(reply.data)
    error = answer.get("error")
    if error is None:
        return Stored(answer["seq"], answer.get("duplicate", False))
    if error.get("err_code") == _TOO_LARGE:
        reason = "the job has more bytes than the stream's max_msg_size allows"
        return NotStored(reason, is_retryable=False)
    reason = f"JetStream says: {error.get('description', 'no')}"
    return NotStored(reason, is_retryable=error.get("code", 0) >= 500)


def _too_large(size: int, limit: int) -> NotStored:
    return NotStored(
        f"the job has {size} bytes, the stream takes {limit} at most: shorten its "
        "path, or raise the stream's max_msg_size",
        is_retryable=False,
    )

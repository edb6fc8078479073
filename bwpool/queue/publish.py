"""Filling the queue: confirmed publishing, many messages at a time.

Owns the pipeline of messages and confirmations, and what is said of a message that
can't be stored. Called by `submit` and `backfill`; knows nothing of a job but its
bytes. An inbox of its own costs a fifth of what nats-py's `publish` does a message.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bwpool.errors import InvalidJob, QueueError
from bwpool.queue.answers import CONFIRMATION, read_answer
from bwpool.queue.connection import Connection
from bwpool.queue.lease import MSG_ID
from bwpool.queue.requeue import header_bytes

IN_FLIGHT = 1000
"""Messages that wait for their confirmation together; more is no faster."""

CONFIRM_WITHIN = 5.0
"""Seconds for a confirmation, after which the message is published again."""

TRIES = 6

REFUSED_PAUSE = 0.25
"""Seconds before the first try after nobody took the message, doubling from there.

While a stream changes its leader it looks as if there were none.
"""

AWAY_FOR = 30.0
"""Seconds that a lost server is waited for."""

_TOO_LARGE = 10054

_NOT_NOW = frozenset({10008, 10009})
"""JetStream's error codes of a cluster without a leader."""


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be published."""

    payload: bytes
    id: str | None = None
    """Makes publishing it twice store it once, within the stream's window."""

    @property
    def headers(self) -> dict[str, str] | None:
        """Its headers, if it has any."""
        return {MSG_ID: self.id} if self.id else None


@dataclass(frozen=True, slots=True)
class Stored:
    """The stream's confirmation."""

    seq: int
    duplicate: bool
    """It was there before, at `seq`; it may be gone from there by now."""


Outcome = Stored | InvalidJob


async def publish(
    connection: Connection, subject: str, message: Message, max_msg_bytes: int
) -> Stored:
    """Publish one message and return when the stream has stored it.

    `max_msg_bytes` is the stream's, -1 for none. Raises InvalidJob for a message that
    is too long, QueueError if no confirmation comes.
    """
    async with aclosing(
        publish_all(connection, subject, [message], max_msg_bytes)
    ) as outcomes:
        outcome = await anext(outcomes)
    if isinstance(outcome, InvalidJob):
        raise outcome
    return outcome


async def publish_all(
    connection: Connection,
    subject: str,
    messages: Iterable[Message],
    max_msg_bytes: int,
) -> AsyncGenerator[Outcome, None]:
    """Publish messages, a window at a time, and yield what became of each, in order.

    Raises QueueError as `publish` does; too long a message is yielded, not raised.
    Close the iterator (`contextlib.aclosing`) when leaving it early.
    """
    publisher = _Publisher(connection, subject)
    window: deque[_Publication] = deque()
    try:
        for message in messages:
            publication = _Publication(message)
            window.append(publication)
            if too_long := _too_long(message, max_msg_bytes):
                publication.outcome.set_result(too_long)
            else:
                await publisher.send(publication)
            while window and (len(window) >= IN_FLIGHT or window[0].outcome.done()):
                yield await publisher.settle(window)
        while window:
            yield await publisher.settle(window)
    finally:
        await publisher.close()


class _Publication:
    """A message on its way."""

    __slots__ = ("deadline", "message", "outcome", "refusal", "tries")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.outcome: asyncio.Future[Outcome | QueueError] = (
            asyncio.get_running_loop().create_future()
        )
        self.tries = 0
        self.deadline = 0.0
        """When it is sent again."""
        self.refusal: QueueError | None = None
        """Why it was not stored the last time, if anybody said so."""


class _NotNow(QueueError):
    """A refusal that may be over in a moment."""


class _Publisher:
    """Sends messages and matches confirmations, with one inbox on each nats client."""

    def __init__(self, connection: Connection, subject: str) -> None:
        self._connection = connection
        self._subject = subject
        self._client: Client | None = None
        self._inbox = ""
        self._subscription: Subscription | None = None
        self._numbers = itertools.count()
        self._waiting: dict[str, _Publication] = {}
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._refused = self._loop.create_future()
        """Done when a message is to be sent again earlier than it seemed."""

    async def send(self, publication: _Publication) -> None:
        """Send a message, again perhaps; raises QueueError where that is pointless."""
        if not self._connection.is_up:
            await self._connection.wait_up(AWAY_FOR)
        if self._client is not self._connection.client:
            await self._listen()
        if publication.tries == TRIES:
            raise publication.refusal or QueueError(
                f"the server does not confirm what is published to {self._subject}"
            )
        publication.tries += 1
        publication.refusal = None
        publication.deadline = self._clock() + CONFIRM_WITHIN
        reply = f"{self._inbox}{next(self._numbers)}"
        self._waiting[reply] = publication
        message = publication.message
        await self._connection.publish(
            self._subject, message.payload, reply, message.headers
        )

    async def settle(self, window: deque[_Publication]) -> Outcome:
        """Wait for the oldest message's outcome, and take it off the window."""
        oldest = window[0]
        while not oldest.outcome.done():
            if self._refused.done():
                self._refused = self._loop.create_future()
            # Not wait_for: that would cancel what a late confirmation still sets.
            await asyncio.wait(
                [oldest.outcome, self._refused],
                timeout=oldest.deadline - self._clock(),
                return_when="FIRST_COMPLETED",
            )
            now = self._clock()
            for publication in window:
                # What was lost was lost together.
                if not publication.outcome.done() and publication.deadline <= now:
                    await self.send(publication)
        outcome = window.popleft().outcome.result()
        if isinstance(outcome, QueueError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Stop listening for confirmations."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None and self._client and not self._client.is_closed:
            await subscription.unsubscribe()

    async def _listen(self) -> None:
        await self.close()
        self._client = self._connection.client
        self._inbox = f"{self._client.new_inbox()}."
        self._subscription = await self._client.subscribe(
            f"{self._inbox}*", cb=self._confirm
        )

    async def _confirm(self, reply: Msg) -> None:
        publication = self._waiting.pop(reply.subject, None)
        if publication is None or publication.outcome.done():
            return
        outcome = _read(reply, self._subject)
        if isinstance(outcome, _NotNow):
            self._postpone(publication, outcome)
        else:
            publication.outcome.set_result(outcome)

    def _postpone(self, publication: _Publication, refusal: QueueError) -> None:
        pause = REFUSED_PAUSE * 2 ** (publication.tries - 1)
        publication.refusal = refusal
        publication.deadline = self._clock() + pause
        if not self._refused.done():
            self._refused.set_result(None)


def _read(reply: Msg, subject: str) -> Outcome | QueueError:
    """Read the stream's answer to a published message."""
    if not reply.data:
        # Only the server's own status 503 is empty.
        return _NotNow(f"no stream stores {subject}: run bwpool setup")
    try:
        answer = read_answer(subject, reply.data, CONFIRMATION)
    except QueueError as malformed:
        return malformed
    if (error := answer.get("error")) is None:
        return Stored(answer["seq"], bool(answer.get("duplicate")))
    if error.get("err_code") == _TOO_LARGE:
        return InvalidJob("the job has more bytes than the stream's max_msg_size")
    kind = _NotNow if error.get("err_code") in _NOT_NOW else QueueError
    return kind(f"{subject} is not stored: {error.get('description')}")


def _too_long(message: Message, max_msg_bytes: int) -> InvalidJob | None:
    size = len(message.payload) + header_bytes(message.headers or {})
    if not 0 <= max_msg_bytes < size:
        return None
    return InvalidJob(
        f"the job has {size} bytes, headers included, but the stream takes at most "
        f"{max_msg_bytes}: shorten the path or raise max_msg_size"
    )

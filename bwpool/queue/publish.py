"""Filling the queue: confirmed publishing, many messages at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import islice

from nats import errors as nats_errors
from nats.js import errors as js_errors

from bwpool.errors import InvalidJob, QueueError
from bwpool.queue.connection import Connection
from bwpool.queue.requeue import MSG_ID, header_bytes

IN_FLIGHT = 256
"""Messages that wait for their confirmation together; more is no faster."""

CONFIRM_WITHIN = 5.0
"""Seconds for a confirmation, after which the message is published again."""

TRIES = 6


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
    """It was there before, at `seq`."""


async def publish(
    connection: Connection, subject: str, message: Message, max_msg_bytes: int
) -> Stored:
    """Publish one message and return when the stream has stored it.

    `max_msg_bytes` is the stream's, -1 for none. Raises InvalidJob for a message that
    is too long, QueueError if no confirmation comes.
    """
    _check_size(message, max_msg_bytes)
    context = connection.client.jetstream(timeout=CONFIRM_WITHIN)
    problem: Exception | None = None
    for _ in range(TRIES):
        try:
            stored = await context.publish(
                subject, message.payload, headers=message.headers
            )
        except (js_errors.NoStreamResponseError, nats_errors.TimeoutError) as error:
            problem = error
        except (nats_errors.Error, js_errors.Error) as error:
            raise QueueError(f"can't publish to {subject}: {error}") from error
        else:
            return Stored(stored.seq, bool(stored.duplicate))
    if isinstance(problem, js_errors.NoStreamResponseError):
        raise QueueError(f"no stream stores {subject}: run bwpool setup")
    raise QueueError(f"the server does not confirm what is published to {subject}")


async def publish_all(
    connection: Connection,
    subject: str,
    messages: Iterable[Message],
    max_msg_bytes: int,
) -> AsyncIterator[Stored | InvalidJob]:
    """Publish messages, a window at a time, and yield what became of each, in order.

    Raises QueueError as `publish` does; too long a message is yielded, not raised.
    """

    async def attempt(message: Message) -> Stored | InvalidJob:
        try:
            return await publish(connection, subject, message, max_msg_bytes)
        except InvalidJob as error:
            return error

    remaining = iter(messages)
    while window := list(islice(remaining, IN_FLIGHT)):
        for outcome in await asyncio.gather(*map(attempt, window)):
            yield outcome


def _check_size(message: Message, max_msg_bytes: int) -> None:
    size = len(message.payload) + header_bytes(message.headers or {})
    if 0 <= max_msg_bytes < size:
        raise InvalidJob(
            f"the job has {size} bytes, headers included, but the stream takes at most "
            f"{max_msg_bytes}: shorten the path or raise max_msg_size"
        )

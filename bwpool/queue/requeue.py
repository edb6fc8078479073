"""Putting a job back into the queue as if it were new, without losing it on the way."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from nats import errors as nats_errors

from bwpool.errors import QueueError
from bwpool.queue.connection import ApiError, Connection
from bwpool.queue.facts import ConsumerFacts
from bwpool.queue.lease import COPY_OF, MSG_ID, Lease
from bwpool.queue.messages import (
    TOO_LARGE,
    Receipt,
    delete_message,
    get_message,
    store_message,
)
from bwpool.queue.patience import Refused

_COPY_ID = re.compile(r"rq:([1-9][0-9]{0,19})\.[A-Za-z0-9_-]{16}")
"""The whole of it: the sequence of the original, and a hash of what only the server
and those who may read the stream know of that."""

_UNSENDABLE = (nats_errors.BadSubjectError, nats_errors.MaxPayloadError)
"""What nats-py says of a message that it won't send to any server."""

_BLOCK_BYTES = len(b"NATS/1.0\r\n\r\n")
_LINE_BYTES = len(b": \r\n")


def header_bytes(headers: dict[str, str]) -> int:
    """Count what `headers` add to a message; JetStream's size limit includes it."""
    if not headers:
        return 0
    lines = (
        len(k.encode()) + len(v.encode()) + _LINE_BYTES for k, v in headers.items()
    )
    return _BLOCK_BYTES + sum(lines)


class Requeueable(Protocol):
    """A message, delivered or only stored."""

    @property
    def seq(self) -> int: ...  # noqa: D102
    @property
    def stored(self) -> int: ...  # noqa: D102
    @property
    def subject(self) -> str: ...  # noqa: D102
    @property
    def payload(self) -> bytes: ...  # noqa: D102


async def put_back(
    connection: Connection,
    consumer: ConsumerFacts,
    message: Requeueable,
    marks: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Publish a message's job anew, with `marks` as headers; return its new sequence.

    The old message is left to be acknowledged or deleted. The id is made from the old
    message, so that doing this twice stores one copy; where somebody else used that id
    for another message, or the copy is gone, it is left out. Headers that would break
    the size limit are left out, the id first. Raises QueueError while the job is not
    known to be stored, Refused if it never will be.
    """
    headers = {MSG_ID: _copy_id(consumer, message), **marks}
    for name in list(headers):
        if 0 <= consumer.max_msg_bytes < header_bytes(headers) + len(message.payload):
            del headers[name]
    copy = await _publish(connection, message, headers)
    if copy.duplicate and not await _is_copied(connection, consumer, message, copy.seq):
        del headers[MSG_ID]
        copy = await _publish(connection, message, headers)
    return copy.seq


async def remove_original(
    connection: Connection, consumer: ConsumerFacts, copy: Lease
) -> None:
    """Delete the message that `copy` was made of, where it was left behind.

    That happens when a supervisor dies right after it put the message back. Headers
    say what whoever publishes wants: only a message of which `copy` must have its id,
    and which has the same content, is deleted.
    """
    copy_id = copy.headers[MSG_ID]
    match = _COPY_ID.fullmatch(copy_id)
    if match is None or (seq := int(match[1])) >= copy.seq:
        return
    original = await get_message(connection, consumer.stream, {"seq": seq})
    if original is None or _copy_id(consumer, original) != copy_id:
        return
    if _is_same(original, copy):
        await delete_message(connection, consumer.stream, seq)


def _copy_id(consumer: ConsumerFacts, message: Requeueable) -> str:
    """Make the id of a message's copy: the same for whoever puts it back.

    Whoever may only publish can't use it beforehand, since the time at which the server
    stored the message, to the nanosecond, is told to readers alone.
    """
    origin = f"{consumer.stream_created} {message.seq} {message.stored}"
    digest = hashlib.blake2b(origin.encode(), digest_size=12).digest()
    return f"{COPY_OF}{message.seq}.{base64.urlsafe_b64encode(digest).decode()}"


async def _publish(
    connection: Connection, message: Requeueable, headers: dict[str, str]
) -> Receipt:
    subject, payload = message.subject, message.payload
    try:
        return await store_message(connection, subject, payload, headers)
    except QueueError as error:
        is_final = isinstance(error.__cause__, _UNSENDABLE) or (
            isinstance(error, ApiError) and error.err_code == TOO_LARGE
        )
        kind = Refused if is_final else QueueError
        raise kind(f"can't put message {message.seq} back: {error}") from error


async def _is_copied(
    connection: Connection, consumer: ConsumerFacts, message: Requeueable, seq: int
) -> bool:
    """Whether the message at `seq`, said to be the copy, is there and is one."""
    copy = await get_message(connection, consumer.stream, {"seq": seq})
    return copy is not None and copy.seq != message.seq and _is_same(copy, message)


def _is_same(one: Requeueable, other: Requeueable) -> bool:
    return (one.subject, one.payload) == (other.subject, other.payload)

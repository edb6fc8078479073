"""Putting a job back into the queue as if it were new, without losing it on the way."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from nats import errors as nats_errors
from nats.js import errors as js_errors

from bwpool.errors import QueueError
from bwpool.queue.connection import Connection
from bwpool.queue.messages import delete_message, get_message

MSG_ID = "Nats-Msg-Id"

_COPY_OF = "rq:"
"""Begins the id of a message that was put back; the old sequence follows."""

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
    def subject(self) -> str: ...  # noqa: D102
    @property
    def payload(self) -> bytes: ...  # noqa: D102


async def put_back(
    connection: Connection,
    message: Requeueable,
    max_msg_bytes: int,
    marks: Mapping[str, str] = MappingProxyType({}),
) -> int:
    """Publish a message's job anew, with `marks` as headers; return its new sequence.

    The old message is left to be acknowledged or deleted. The id is made from the old
    sequence, so that doing this twice stores one copy; headers that would break the
    size limit are left out. Raises QueueError while it is not known to be stored.
    """
    headers = {MSG_ID: f"{_COPY_OF}{message.seq}", **marks}
    for name in list(headers):
        if 0 <= max_msg_bytes < header_bytes(headers) + len(message.payload):
            del headers[name]
    try:
        stored = await connection.client.jetstream().publish(
            message.subject, message.payload, headers=headers or None
        )
    except (nats_errors.Error, js_errors.Error) as error:
        raise QueueError(f"can't put message {message.seq} back: {error}") from error
    if stored.duplicate and stored.seq == message.seq:
        raise QueueError(f"message {message.seq} was taken for its own copy")
    return stored.seq


def is_copy(headers: Mapping[str, str]) -> bool:
    """Whether a message with these headers was put back once."""
    return headers.get(MSG_ID, "").startswith(_COPY_OF)


async def remove_original(
    connection: Connection, stream: str, copy: Requeueable, headers: Mapping[str, str]
) -> None:
    """Delete the message that `copy` was made of, where it was left behind.

    That happens when a supervisor dies right after it put the message back. Only a
    message with the same content is deleted, whatever the headers say.
    """
    number = headers[MSG_ID].removeprefix(_COPY_OF)
    if not number.isascii() or not number.isdigit():
        return
    original = await get_message(connection, stream, {"seq": int(number)})
    if original is None or original.seq == copy.seq:
        return
    if (original.subject, original.payload) == (copy.subject, copy.payload):
        await delete_message(connection, stream, original.seq)

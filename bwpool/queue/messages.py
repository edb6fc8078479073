"""Messages that a stream stores: read, walked and deleted one by one.

A second consumer on a work queue is refused, so looking goes through the stream.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bwpool.queue.connection import ApiError, Connection

NOT_FOUND = 10037
"""JetStream's error code for a sequence or subject without a message."""

GONE = 10057
"""JetStream's error code for deleting what is not there."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message as the stream keeps it."""

    seq: int
    subject: str
    payload: bytes
    headers: dict[str, str]
    time: datetime
    """When it was stored."""


async def next_message(
    connection: Connection, stream: str, subject: str, seq: int
) -> StoredMessage | None:
    """Return the first message on `subject` at `seq` or later; None if there is none.

    Raises QueueError.
    """
    body = {"seq": seq, "next_by_subj": subject}
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", body)
    except ApiError as error:
        if error.err_code == NOT_FOUND:
            return None
        raise
    return _read(answer["message"])


async def walk(
    connection: Connection, stream: str, subject: str, *, last: int | None = None
) -> AsyncIterator[StoredMessage]:
    """Yield the messages on `subject` in order, up to the sequence `last`."""
    seq = 1
    while last is None or seq <= last:
        message = await next_message(connection, stream, subject, seq)
        if message is None or (last is not None and message.seq > last):
            return
        yield message
        seq = message.seq + 1


async def delete_message(connection: Connection, stream: str, seq: int) -> None:
    """Delete a message, without overwriting it; one that is gone already is fine."""
    try:
        await connection.api(
            f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True}
        )
    except ApiError as error:
        if error.err_code not in (NOT_FOUND, GONE):
            raise


def _read(message: dict[str, Any]) -> StoredMessage:
    return StoredMessage(
        seq=message["seq"],
        subject=message["subject"],
        payload=base64.b64decode(message.get("data", "")),
        headers=_read_headers(base64.b64decode(message.get("hdrs", ""))),
        time=datetime.fromisoformat(message["time"]),
    )


def _read_headers(block: bytes) -> dict[str, str]:
    lines = block.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}

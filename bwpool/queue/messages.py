"""Messages that a stream stores: read, walked and deleted one by one.

A second consumer on a work queue is refused, so looking goes through the stream.
"""

from __future__ import annotations

import base64
import calendar
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bwpool.queue.answers import CONFIRMATION, malformed, read_answer
from bwpool.queue.connection import ApiError, Connection
from bwpool.queue.shapes import read_time

NOT_FOUND = 404
"""JetStream's code for a stream, sequence or subject that is not there."""

_LAST = 2**63 - 1
"""No stream comes that far."""

TOO_LARGE = 10054
"""JetStream's error code for a message above the stream's max_msg_size."""

GONE = 10057
"""JetStream's error code for deleting what is not there."""


_FRACTION = re.compile(r"\.([0-9]+)")


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message as the stream keeps it."""

    seq: int
    subject: str
    payload: bytes
    headers: dict[str, str]
    time: datetime
    """When the server stored it, by the server's clock."""
    stored: int
    """The same to the nanosecond, since 1970, as a lease has it."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A stream's confirmation that it stores a message."""

    seq: int
    duplicate: bool
    """Its id was used before, by the message at `seq`, which may be gone by now."""


async def store_message(
    connection: Connection, subject: str, payload: bytes, headers: dict[str, str]
) -> Receipt:
    """Publish a message to the stream that stores `subject`, and have it confirmed.

    Raises NoResponders where no stream does, ApiError for a refusal, or QueueError.
    """
    reply = await connection.request(subject, payload, headers=headers or None)
    answer = read_answer(subject, reply.data, CONFIRMATION)
    if (error := answer.get("error")) is not None:
        raise ApiError(
            error.get("code") or 0,
            error.get("err_code") or 0,
            error.get("description") or "no reason given",
        )
    return Receipt(answer["seq"], answer.get("duplicate") or False)


async def get_message(
    connection: Connection, stream: str, query: dict[str, Any]
) -> StoredMessage | None:
    """Return the message that `query` names; None if there is none, or no stream.

    Queries: `{"seq": n}`, `{"last_by_subj": s}`, `{"seq": n, "next_by_subj": s}`.
    """
    suffix = f"STREAM.MSG.GET.{stream}"
    try:
        answer = await connection.api(suffix, query)
    except ApiError as error:
        if error.code != NOT_FOUND:
            raise
        return None
    try:
        return _read(answer["message"], query.get("seq", 1))
    except ValueError as error:
        raise malformed(connection.api_subject(suffix), error) from None


async def messages_on(
    connection: Connection, stream: str, subject: str, up_to: int | None = None
) -> AsyncIterator[StoredMessage]:
    """Yield what is stored on `subject`, oldest first, up to a sequence."""
    seq = 1
    while up_to is None or seq <= up_to:
        query = {"seq": seq, "next_by_subj": subject}
        message = await get_message(connection, stream, query)
        if message is None or (up_to is not None and message.seq > up_to):
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
        if error.code != NOT_FOUND and error.err_code != GONE:
            raise


def _read(message: dict[str, Any], first: int) -> StoredMessage:
    """Read a message whose sequence is `first` at least; ValueError if it can't be."""
    if not first <= message["seq"] <= _LAST:
        # Whoever walks on from there would never come to an end.
        raise ValueError(f"message.seq is {message['seq']}")
    return StoredMessage(
        seq=message["seq"],
        subject=message["subject"],
        payload=base64.b64decode(message.get("data") or ""),
        headers=_read_headers(base64.b64decode(message.get("hdrs") or "")),
        time=read_time(message["time"]),
        stored=nanoseconds(message["time"]),
    )


def nanoseconds(stamp: str) -> int:
    """Read an RFC 3339 time to the nanosecond, which `datetime` cuts off.

    JetStream's own precision, in which reply subjects have it as well. Raises
    ValueError.
    """
    seconds = calendar.timegm(datetime.fromisoformat(stamp).utctimetuple())
    fraction = _FRACTION.search(stamp)
    digits = fraction[1][:9] if fraction else ""
    return seconds * 10**9 + int(digits.ljust(9, "0"))


def _read_headers(block: bytes) -> dict[str, str]:
    lines = block.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}

"""The records of failed attempts, as the failures stream keeps them.

Owns what is on a record's subject. Called by the supervisor (to store a record, and to
ask for earlier ones), by `dead` and by the command line; knows of converters only what
a record says.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

from bwpool.errors import QueueError, StorageUnavailable
from bwpool.queue.connection import ApiError, Connection, NoResponders
from bwpool.queue.drift import FAILURES_STREAM
from bwpool.queue.messages import (
    TOO_LARGE,
    StoredMessage,
    get_message,
    messages_on,
    store_message,
)
from bwpool.queue.patience import Refused
from bwpool.queue.records import ConverterEnd, FailureRecord, write_ever_shorter

__all__ = [
    "ConverterEnd",
    "FailureRecord",
    "has_record",
    "last_record",
    "latest_record",
    "records_of",
    "store",
]

_HEADER_BYTES = 1024
"""Kept free for a record's headers."""


async def store(connection: Connection, record: FailureRecord) -> None:
    """Keep a record; return once the server has confirmed it, or raise QueueError.

    Where it is too large for the server or the stream it is shortened; Refused if
    nothing helps. Stored again because a confirmation got lost, it is kept once.
    """
    limit = connection.client.max_payload - _HEADER_BYTES
    for data in write_ever_shorter(record):
        if len(data) <= limit and await _store(connection, record, data):
            return
    raise Refused(
        f"{FAILURES_STREAM} takes no record of message {record.seq}, however short: "
        "raise its max_msg_size"
    )


async def _store(connection: Connection, record: FailureRecord, data: bytes) -> bool:
    """Store what was written of a record; False if it is too large for the stream."""
    subject = _subject(record.stream, record.consumer, record.seq)
    headers = {"Nats-Msg-Id": f"{subject}.{record.attempt}.{record.time.isoformat()}"}
    try:
        await store_message(connection, subject, data, headers)
    except NoResponders:
        raise QueueError(
            f"there is no stream {FAILURES_STREAM} for failures: run bwpool setup"
        ) from None
    except ApiError as error:
        if error.err_code == TOO_LARGE:
            return False
        raise QueueError(
            f"{FAILURES_STREAM} doesn't take a failure: {error.description}"
        ) from None
    return True


async def has_record(
    connection: Connection, stream: str, consumer: str, seq: int, before_attempt: int
) -> bool:
    """Tell whether an earlier attempt at this very message failed by itself.

    Trouble with storage was recorded too, but was the supervisor's.
    """
    message = await get_message(connection, stream, {"seq": seq})
    if message is None:
        return False
    if await last_record(connection, stream, consumer, message) is None:
        return False
    async for record in records_of(connection, stream, consumer, message):
        is_own = record.kind != StorageUnavailable.kind
        if is_own and record.attempt < before_attempt:
            return True
    return False


async def last_record(
    connection: Connection, stream: str, consumer: str, message: StoredMessage
) -> FailureRecord | None:
    """Return the latest record of this very message, if it has any."""
    subject = _subject(stream, consumer, message.seq)
    return await _last(connection, subject, message.time)


async def latest_record(
    connection: Connection, stream: str, consumer: str, seq: int
) -> FailureRecord | None:
    """Return the latest record of a message that may be removed already."""
    message = await get_message(connection, stream, {"seq": seq})
    if message is not None:
        return await last_record(connection, stream, consumer, message)
    subject = _subject(stream, consumer, seq)
    return await _last(connection, subject, datetime.min.replace(tzinfo=UTC))


async def _last(
    connection: Connection, subject: str, since: datetime
) -> FailureRecord | None:
    query = {"last_by_subj": subject}
    stored = await get_message(connection, FAILURES_STREAM, query)
    if stored is None or stored.time < since:
        return None
    found = _parse(stored)
    if found is None:
        # Whoever may publish there may publish nonsense, but hides no record by it.
        async for each in messages_on(connection, FAILURES_STREAM, subject):
            if each.time >= since:
                found = _parse(each) or found
    return found


async def records_of(
    connection: Connection, stream: str, consumer: str, message: StoredMessage
) -> AsyncIterator[FailureRecord]:
    """Yield all records of this very message, oldest first."""
    subject = _subject(stream, consumer, message.seq)
    async for stored in messages_on(connection, FAILURES_STREAM, subject):
        record = _read(stored, message)
        if record is not None:
            yield record


def _subject(stream: str, consumer: str, seq: int) -> str:
    return f"bwpool.failures.{stream}.{consumer}.{seq}"


def _read(stored: StoredMessage, message: StoredMessage) -> FailureRecord | None:
    """Read a record, unless it is somebody else's.

    One that was stored before the message itself belongs to another message, since a
    stream that was re-created counts from 1 again. The server's clock decides, not
    the supervisors'.
    """
    return None if stored.time < message.time else _parse(stored)


def _parse(stored: StoredMessage) -> FailureRecord | None:
    """Read what somebody stored as a record, if it is one of the message it names."""
    try:
        record = FailureRecord.from_json(stored.payload)
    except ValueError:
        return None
    subject = _subject(record.stream, record.consumer, record.seq)
    return record if stored.subject == subject else None

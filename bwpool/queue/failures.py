"""Jobs that failed: their records, and the dead messages that they explain.

Owns what is in the failures stream. Called by the supervisor (to store a record, and
to ask for earlier ones) and by the command line (to list); knows of converters only
what a record says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from bwpool.errors import QueueError
from bwpool.queue.connection import Connection, NoResponders
from bwpool.queue.drift import FAILURES_STREAM
from bwpool.queue.facts import consumer_info, read_facts
from bwpool.queue.messages import StoredMessage, get_message, messages_on
from bwpool.queue.records import ConverterEnd, FailureRecord, write_fitting
from bwpool.settings import QueueSettings

__all__ = [
    "UNKNOWN",
    "ConverterEnd",
    "Failed",
    "FailureRecord",
    "has_record",
    "list_failed",
    "store",
]

UNKNOWN = "unknown"
"""The kind of a dead message without a record."""

_LOOKUPS = 64
"""Records read at once."""
_HEADER_BYTES = 1024
"""Kept free for a record's headers."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A dead message: the fields of `failed list --json`, in their order."""

    seq: int
    id: str | None
    image: str | None
    kind: str
    reason: str
    attempts: int
    """Deliveries used."""
    time: str


async def store(connection: Connection, record: FailureRecord) -> None:
    """Keep a record; return once the server has confirmed it, or raise QueueError.

    Stored again because a confirmation got lost, it is kept once.
    """
    subject = _subject(record.stream, record.consumer, record.seq)
    data = write_fitting(record, connection.client.max_payload - _HEADER_BYTES)
    headers = {"Nats-Msg-Id": f"{subject}.{record.attempt}.{record.time.isoformat()}"}
    try:
        reply = await connection.request(subject, data, headers=headers)
    except NoResponders:
        raise QueueError(
            f"there is no stream {FAILURES_STREAM} for failures: run bwpool setup"
        ) from None
    if (error := orjson.loads(reply.data).get("error")) is not None:
        raise QueueError(
            f"{FAILURES_STREAM} doesn't take a failure: {error.get('description')}"
        )


async def has_record(
    connection: Connection, stream: str, consumer: str, seq: int, before_attempt: int
) -> bool:
    """Tell whether an earlier attempt at this very message was recorded."""
    message = await get_message(connection, stream, {"seq": seq})
    if message is None:
        return False
    subject = _subject(stream, consumer, seq)
    last = await _last_record(connection, subject, message)
    if last is None or last.attempt < before_attempt:
        return last is not None
    # This attempt has a record already; are there others?
    async for stored in messages_on(connection, FAILURES_STREAM, subject):
        record = _read(stored, message)
        if record is not None and record.attempt < before_attempt:
            return True
    return False


async def list_failed(
    connection: Connection, names: QueueSettings
) -> AsyncIterator[Failed]:
    """Yield the dead messages of a queue, oldest first.

    A message that was delivered and is still stored is dead if its last record says
    so, if the server's advisory was captured, or if nothing at all is under way.
    Raises QueueError.
    """
    facts = await read_facts(connection, names)
    consumer = await consumer_info(connection, names)
    if consumer is None:
        raise QueueError(f"the consumer {names.consumer} has just been deleted")
    # Where deliveries are unlimited, they can't be used up.
    is_idle = facts.max_deliver > 0 and consumer["num_ack_pending"] == 0
    coroner = _Coroner(connection, names, facts.max_deliver, is_idle=is_idle)
    delivered: int = consumer["delivered"]["stream_seq"]
    for subject in facts.filter_subjects or (">",):
        batch: list[StoredMessage] = []
        async for message in messages_on(connection, names.stream, subject, delivered):
            batch.append(message)
            if len(batch) == _LOOKUPS:
                for row in await coroner.examine(batch):
                    yield row
                batch = []
        for row in await coroner.examine(batch):
            yield row


@dataclass(frozen=True, slots=True)
class _Death:
    """The server's word that a message ran out of deliveries."""

    deliveries: int
    time: datetime


class _Coroner:
    """Tells the dead from those under way, and what they died of."""

    def __init__(
        self,
        connection: Connection,
        names: QueueSettings,
        max_deliver: int,
        *,
        is_idle: bool,
    ) -> None:
        self._connection = connection
        self._names = names
        self._max_deliver = max_deliver
        self._is_idle = is_idle
        self._deaths: dict[int, _Death] | None = None

    async def examine(self, messages: list[StoredMessage]) -> list[Failed]:
        """Return a row for each of the messages that is dead."""
        lookups = (self._record_of(message) for message in messages)
        records = await asyncio.gather(*lookups)
        rows = [
            await self._examine(message, record)
            for message, record in zip(messages, records, strict=True)
        ]
        return [row for row in rows if row is not None]

    async def _examine(
        self, message: StoredMessage, record: FailureRecord | None
    ) -> Failed | None:
        if record is not None and record.final:
            used = max(record.attempt, record.max_deliver)
            return _row(message, record, used, record.time)
        death = (await self._read_deaths()).get(message.seq)
        if death is not None and death.time >= message.time:
            return _row(message, record, death.deliveries, death.time)
        if self._is_idle:
            return _row(message, record, self._max_deliver, message.time)
        return None

    async def _record_of(self, message: StoredMessage) -> FailureRecord | None:
        subject = _subject(self._names.stream, self._names.consumer, message.seq)
        return await _last_record(self._connection, subject, message)

    async def _read_deaths(self) -> dict[int, _Death]:
        """Read the captured advisories, once, and only if records don't do."""
        if self._deaths is None:
            self._deaths = {}
            subject = (
                "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES."
                f"{self._names.stream}.{self._names.consumer}"
            )
            async for stored in messages_on(self._connection, FAILURES_STREAM, subject):
                advisory = orjson.loads(stored.payload)
                death = _Death(advisory["deliveries"], stored.time)
                self._deaths[advisory["stream_seq"]] = death
        return self._deaths


def _subject(stream: str, consumer: str, seq: int) -> str:
    return f"bwpool.failures.{stream}.{consumer}.{seq}"


async def _last_record(
    connection: Connection, subject: str, message: StoredMessage
) -> FailureRecord | None:
    query = {"last_by_subj": subject}
    stored = await get_message(connection, FAILURES_STREAM, query)
    return None if stored is None else _read(stored, message)


def _read(stored: StoredMessage, message: StoredMessage) -> FailureRecord | None:
    """Read a record, unless it is somebody else's.

    One that was stored before the message itself belongs to another message, since a
    stream that was re-created counts from 1 again. The server's clock decides, not
    the supervisors'.
    """
    if stored.time < message.time:
        return None
    try:
        return FailureRecord.from_json(stored.payload)
    except ValueError:
        return None


def _row(
    message: StoredMessage,
    record: FailureRecord | None,
    attempts: int,
    time: datetime,
) -> Failed:
    job_id, image = _job_of(message.payload)
    return Failed(
        seq=message.seq,
        id=job_id,
        image=image,
        kind=record.kind if record else UNKNOWN,
        reason=record.reason if record else "its deliveries ran out unexplained",
        attempts=attempts,
        time=time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    )


def _job_of(payload: bytes) -> tuple[str | None, str | None]:
    """Read what can be read of a job that may be no job at all."""
    try:
        job = orjson.loads(payload)
    except ValueError:
        return None, None
    if not isinstance(job, dict):
        return None, None
    job_id, image = job.get("id"), job.get("image")
    return (
        job_id if isinstance(job_id, str) else None,
        image if isinstance(image, str) else None,
    )

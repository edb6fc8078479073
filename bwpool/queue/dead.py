"""The dead: messages whose deliveries ran out, found, put back and removed.

Owns how they are told from those under way. Called by the command line; the records
that explain them are kept by `failures`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from bwpool.errors import QueueError
from bwpool.job import names_of, subject_matches
from bwpool.queue.advisories import read_advisory
from bwpool.queue.connection import Connection
from bwpool.queue.drift import FAILURES_STREAM
from bwpool.queue.facts import (
    ConsumerFacts,
    consumer_info,
    deaths_subject,
    read_facts,
)
from bwpool.queue.failures import FailureRecord, last_record, records_of
from bwpool.queue.messages import (
    StoredMessage,
    delete_message,
    get_message,
    messages_on,
)
from bwpool.queue.requeue import put_back
from bwpool.settings import QueueSettings

UNKNOWN = "unknown"
"""The kind of a dead message without a record."""

AT_ONCE = 64
"""Messages that are looked up, put back or removed together."""


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


@dataclass(frozen=True, slots=True)
class Case:
    """A dead message with all that is known of it."""

    failed: Failed
    message: StoredMessage
    records: tuple[FailureRecord, ...]
    """One for each attempt that was recorded, oldest first."""


async def list_failed(
    connection: Connection, names: QueueSettings
) -> AsyncIterator[Failed]:
    """Yield the dead messages of a queue, oldest first.

    A message that was delivered and is still stored is dead if its last record says
    so, if the server's advisory was captured, or if nothing at all is under way.
    Raises QueueError.
    """
    coroner = await _coroner(connection, names)
    for subject in coroner.subjects:
        walk = messages_on(connection, names.stream, subject, coroner.delivered)
        batch: list[StoredMessage] = []
        async for message in walk:
            batch.append(message)
            if len(batch) == AT_ONCE:
                for row in await coroner.examine(batch):
                    yield row
                batch = []
        for row in await coroner.examine(batch):
            yield row


async def find_failed(
    connection: Connection, names: QueueSettings, seqs: Iterable[int]
) -> list[Failed]:
    """Return those of `seqs` that are dead, in order; raises QueueError."""
    coroner = await _coroner(connection, names)
    found: list[Failed] = []
    for some in _batches(sorted(set(seqs))):
        messages = await asyncio.gather(
            *(get_message(connection, names.stream, {"seq": seq}) for seq in some)
        )
        there = [m for m in messages if m is not None and coroner.may_be_dead(m)]
        found += await coroner.examine(there)
    return found


async def describe(connection: Connection, names: QueueSettings, seq: int) -> Case:
    """Return all that is known of a dead message; QueueError if it is none."""
    found = await find_failed(connection, names, [seq])
    message = await get_message(connection, names.stream, {"seq": seq})
    if not found or message is None:
        raise QueueError(f"{seq} is not a failed job: bwpool failed list shows them")
    records = [
        record
        async for record in records_of(
            connection, names.stream, names.consumer, message
        )
    ]
    return Case(found[0], message, tuple(records))


async def requeue(
    connection: Connection, names: QueueSettings, seqs: Collection[int]
) -> AsyncIterator[tuple[int, int]]:
    """Put dead messages back as new, many at a time; yield old and new sequence.

    Each is stored anew before the old one is deleted. Interrupted and called again
    within the stream's duplicate window, it goes on where it was: what was stored but
    not deleted is recognised by its id. Raises QueueError.
    """
    facts = await read_facts(connection, names)
    for some in _batches(seqs):
        moved = await asyncio.gather(
            *(_requeue(connection, facts, seq) for seq in some)
        )
        for old, new in zip(some, moved, strict=True):
            if new is not None:
                yield old, new


async def _requeue(
    connection: Connection, facts: ConsumerFacts, seq: int
) -> int | None:
    message = await get_message(connection, facts.stream, {"seq": seq})
    if message is None:
        return None  # somebody else was faster
    new = await put_back(connection, facts, message)
    await delete_message(connection, facts.stream, seq)
    return new


async def drop(
    connection: Connection, names: QueueSettings, seqs: Collection[int]
) -> None:
    """Remove dead messages from the stream for good; their records stay."""
    for some in _batches(seqs):
        await asyncio.gather(
            *(delete_message(connection, names.stream, seq) for seq in some)
        )


def _batches(seqs: Collection[int]) -> Iterator[list[int]]:
    seqs = list(seqs)
    for start in range(0, len(seqs), AT_ONCE):
        yield seqs[start : start + AT_ONCE]


@dataclass(frozen=True, slots=True)
class _Death:
    """The server's word that a message ran out of deliveries."""

    deliveries: int
    time: datetime


async def _coroner(connection: Connection, names: QueueSettings) -> _Coroner:
    facts = await read_facts(connection, names)
    consumer = await consumer_info(connection, names)
    if consumer is None:
        raise QueueError(f"the consumer {names.consumer} has just been deleted")
    # Where deliveries are unlimited, they can't be used up.
    is_idle = facts.max_deliver > 0 and consumer["num_ack_pending"] == 0
    delivered: int = consumer["delivered"]["stream_seq"]
    return _Coroner(connection, facts, delivered, is_idle=is_idle)


class _Coroner:
    """Tells the dead from those under way, and what they died of."""

    def __init__(
        self,
        connection: Connection,
        facts: ConsumerFacts,
        delivered: int,
        *,
        is_idle: bool,
    ) -> None:
        self.subjects = facts.filter_subjects or (">",)
        """Where the consumer's messages are."""
        self.delivered = delivered
        """No message after this one was delivered, so none is dead."""
        self._connection = connection
        self._facts = facts
        self._is_idle = is_idle
        self._deaths: dict[int, _Death] | None = None

    def may_be_dead(self, message: StoredMessage) -> bool:
        """Whether the consumer has delivered so far that it may have had this one."""
        is_ours = any(subject_matches(each, message.subject) for each in self.subjects)
        return is_ours and message.seq <= self.delivered

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
            return _row(message, record, self._facts.max_deliver, message.time)
        return None

    async def _record_of(self, message: StoredMessage) -> FailureRecord | None:
        facts = self._facts
        return await last_record(self._connection, facts.stream, facts.name, message)

    async def _read_deaths(self) -> dict[int, _Death]:
        """Read the captured advisories, once, and only if records don't do."""
        if self._deaths is None:
            self._deaths = {}
            subject = deaths_subject(self._facts)
            async for stored in messages_on(self._connection, FAILURES_STREAM, subject):
                # Whoever may publish there may publish nonsense.
                with contextlib.suppress(ValueError):
                    advisory = read_advisory(stored.payload)
                    death = _Death(advisory.deliveries, stored.time)
                    self._deaths[advisory.seq] = death
        return self._deaths


def _row(
    message: StoredMessage,
    record: FailureRecord | None,
    attempts: int,
    time: datetime,
) -> Failed:
    job_id, image = names_of(message.payload)
    return Failed(
        seq=message.seq,
        id=job_id,
        image=image,
        kind=record.kind if record else UNKNOWN,
        reason=record.reason if record else "its deliveries ran out unexplained",
        attempts=attempts,
        time=time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
    )

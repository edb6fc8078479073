"""What the server says about a queue: the numbers that rule, and the dead.

Owns how JetStream's answers about streams and consumers are read. Called by
`topology`, `failures`, the supervisor and `status`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bwpool.errors import QueueError
from bwpool.queue.connection import ApiError, Connection
from bwpool.queue.drift import FAILURES_STREAM, filters
from bwpool.settings import QueueSettings

_NOT_FOUND = 404
_ACK_WAIT = 30e9
"""JetStream's own, in nanoseconds."""
_SETUP = "run bwpool setup, or add --setup"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerFacts:
    """What a supervisor has to respect, whoever configured it."""

    stream: str
    name: str
    """The consumer's."""
    subject: str
    """The subject that jobs are sent to."""
    ack_wait: float
    """Seconds until an unacknowledged message is delivered again."""
    max_deliver: int
    """Deliveries of a message; -1 if unlimited."""
    max_ack_pending: int
    """Deliveries under way, all supervisors together; -1 if unlimited."""
    filter_subjects: tuple[str, ...]
    """What the consumer gets; empty if everything."""
    stream_subjects: tuple[str, ...]
    """What the stream stores."""
    max_msg_bytes: int
    """Headers and payload of a message; -1 if unlimited."""
    duplicate_window: float
    """Seconds for which a Nats-Msg-Id is remembered."""
    stream_created: str
    """When the stream was created: another stream's sequences mean other jobs."""
    created: str
    """When the consumer was: another one delivers everything again."""
    has_failures: bool
    """Whether the failures stream exists."""


async def read_facts(connection: Connection, names: QueueSettings) -> ConsumerFacts:
    """Read what rules the queue.

    Raises QueueError where the stream or the consumer is missing, or the consumer is
    of a kind that can't be shared job by job.
    """
    stream = await stream_info(connection, names.stream)
    if stream is None:
        raise QueueError(f"there is no stream {names.stream}: {_SETUP}")
    consumer = await consumer_info(connection, names)
    if consumer is None:
        raise QueueError(
            f"the stream {names.stream} has no consumer {names.consumer}: {_SETUP}"
        )
    config = consumer["config"]
    _check_kind(names, config)
    # A server-side backoff replaces ack_wait, delivery by delivery.
    waits = config.get("backoff") or [config.get("ack_wait") or _ACK_WAIT]
    return ConsumerFacts(
        stream=names.stream,
        name=names.consumer,
        subject=names.subject,
        ack_wait=min(waits) / 1e9,
        max_deliver=config.get("max_deliver") or -1,
        max_ack_pending=config.get("max_ack_pending") or -1,
        filter_subjects=filters(config),
        stream_subjects=tuple(stream["config"].get("subjects") or ()),
        max_msg_bytes=stream["config"].get("max_msg_size") or -1,
        duplicate_window=(stream["config"].get("duplicate_window") or 0) / 1e9,
        stream_created=stream["created"],
        created=consumer["created"],
        has_failures=await stream_info(connection, FAILURES_STREAM) is not None,
    )


@dataclass(frozen=True, slots=True)
class Depth:
    """How much there is in a queue, for all its supervisors together."""

    waiting: int
    """Messages that were never delivered, or are to be delivered again."""
    in_flight: int
    """Deliveries that are not settled yet, delayed ones included."""
    delivered: int
    """The highest stream sequence ever delivered."""
    created: str
    """When the consumer was."""
    is_paused: bool
    """Whether an operator has stopped its deliveries."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits and nothing is out."""
        return self.waiting == 0 and self.in_flight == 0


async def read_depth(connection: Connection, consumer: ConsumerFacts) -> Depth:
    """Ask how much there is; raises QueueError, also where the consumer is gone."""
    info = await connection.api(f"CONSUMER.INFO.{consumer.stream}.{consumer.name}")
    return Depth(
        waiting=info["num_pending"],
        in_flight=info["num_ack_pending"],
        delivered=info["delivered"]["stream_seq"],
        created=info["created"],
        is_paused=bool(info.get("paused")),
    )


def deaths_subject(consumer: ConsumerFacts) -> str:
    """Return the subject on which JetStream says that deliveries have run out."""
    kind = "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES"
    return f"{kind}.{consumer.stream}.{consumer.name}"


def records_subject(consumer: ConsumerFacts) -> str:
    """Return the subject of all failure records of a consumer."""
    return f"bwpool.failures.{consumer.stream}.{consumer.name}.*"


async def count_dead(connection: Connection, names: QueueSettings) -> int:
    """Count the messages in the stream whose deliveries are used up.

    They are what is neither pending nor under way. Stream and consumer can only be
    read one after the other: counted again while messages come and go in between,
    and then best-effort.
    """
    for _ in range(5):
        before = await _stored(connection, names)
        consumer = await consumer_info(connection, names)
        if consumer is None:
            return 0
        subjects = filters(consumer["config"]) or (">",)
        stored = sum([await _stored_on(connection, names, s) for s in subjects])
        dead: int = max(
            0, stored - consumer["num_pending"] - consumer["num_ack_pending"]
        )
        if dead == 0 or before == await _stored(connection, names):
            return dead
    return dead


async def stream_info(connection: Connection, stream: str) -> dict[str, Any] | None:
    """Return a stream's info, or None where there is none."""
    return await _info(connection, f"STREAM.INFO.{stream}")


async def consumer_info(
    connection: Connection, names: QueueSettings
) -> dict[str, Any] | None:
    """Return the consumer's info, or None where there is none."""
    return await _info(connection, f"CONSUMER.INFO.{names.stream}.{names.consumer}")


async def _info(connection: Connection, suffix: str) -> dict[str, Any] | None:
    try:
        return await connection.api(suffix)
    except ApiError as error:
        if error.code != _NOT_FOUND:
            raise
        return None


async def _stored(connection: Connection, names: QueueSettings) -> tuple[int, int]:
    info = await stream_info(connection, names.stream)
    state = info["state"] if info else {"messages": 0, "last_seq": 0}
    return state["messages"], state["last_seq"]


async def _stored_on(connection: Connection, names: QueueSettings, subject: str) -> int:
    """Count the messages stored on `subject`, wildcards included."""
    offset = count = 0
    while True:
        body = {"subjects_filter": subject, "offset": offset}
        info = await connection.api(f"STREAM.INFO.{names.stream}", body)
        subjects: dict[str, int] = info["state"].get("subjects") or {}
        count += sum(subjects.values())
        offset += len(subjects)
        # The server lists 100,000 subjects at a time.
        if not subjects or offset >= (info.get("total") or 0):
            return count


def _check_kind(names: QueueSettings, config: dict[str, Any]) -> None:
    consumer = f"the consumer {names.consumer} of {names.stream}"
    if config.get("deliver_subject"):
        raise QueueError(f"{consumer} pushes; bwpool pulls: name another --consumer")
    if (policy := config.get("ack_policy")) != "explicit":
        raise QueueError(
            f"{consumer} has the ack policy {policy!r}; bwpool acknowledges every job "
            "on its own: name a --consumer with 'explicit'"
        )

"""A queue of one's own in a shared stream: a subject below the shared one, a consumer.

Jobs there go to nobody who was not told of it. Owns how it is made and removed. Called
by `backfill`.
"""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from bwpool.errors import QueueError
from bwpool.job import subject_matches
from bwpool.queue.connection import ApiError, Connection, Forbidden, NoResponders
from bwpool.queue.drift import filters
from bwpool.queue.facts import consumer_info, stream_info
from bwpool.queue.messages import NOT_FOUND
from bwpool.settings import QueueSettings

TRIES = 5
"""For each request that removes the queue: a cluster may be without a leader."""

TRY_EVERY = 2.0

_PAST_LAST = str(1 << 53)
"""A sequence that no subject has reached."""
_NOT_STORED_YET = 10071
"""JetStream's error code for a message that expects another last sequence."""
_OF_ONE_CONSUMER = (
    "metadata",
    "filter_subjects",
    "opt_start_seq",
    "opt_start_time",
    "pause_until",
)
"""What is not copied from the shared consumer; metadata without the server's is."""


def own_names(shared: QueueSettings, run: str) -> QueueSettings:
    """Name the queue of `run` beside a shared one."""
    return QueueSettings(
        stream=shared.stream,
        consumer=f"{shared.consumer}-backfill-{run}",
        subject=f"{shared.subject}.backfill-{run}",
    )


async def check_own(
    connection: Connection, shared: QueueSettings, run: str
) -> dict[str, Any]:
    """Return the configuration that the consumer of `run` gets: the shared one's.

    Raises QueueError where stream, consumer or credentials don't allow a queue of its
    own, and says what does without.
    """
    own = own_names(shared, run)
    stream = await stream_info(connection, shared.stream)
    if stream is None:
        raise QueueError(f"there is no stream {shared.stream}: run bwpool setup")
    consumer = await consumer_info(connection, shared)
    if consumer is None:
        raise QueueError(
            f"the stream {shared.stream} has no consumer {shared.consumer}: "
            "run bwpool setup"
        )
    _check_room(stream["config"], consumer["config"], shared, own)
    try:
        await _check_publishing(connection, own)
    except (ApiError, Forbidden) as error:
        raise _refusal(shared, str(error)) from None
    return _copy(consumer["config"], own)


async def provide_own(
    connection: Connection, shared: QueueSettings, run: str, config: dict[str, Any]
) -> None:
    """Make the consumer of `run`, unless it is there; raises QueueError."""
    own = own_names(shared, run)
    try:
        if await consumer_info(connection, own) is None:
            await connection.api(
                f"CONSUMER.CREATE.{own.stream}.{own.consumer}.{own.subject}",
                {"stream_name": own.stream, "config": config, "action": "create"},
            )
    except (ApiError, Forbidden) as error:
        raise _refusal(shared, str(error)) from None


async def remove_own(connection: Connection, own: QueueSettings) -> None:
    """Remove the consumer, then what is stored on its subject; QueueError."""
    await _insist(connection, f"CONSUMER.DELETE.{own.stream}.{own.consumer}", None)
    purge = {"filter": own.subject}
    await _insist(connection, f"STREAM.PURGE.{own.stream}", purge)


def _check_room(
    stream: dict[str, Any],
    consumer: dict[str, Any],
    shared: QueueSettings,
    own: QueueSettings,
) -> None:
    """Raise QueueError unless the subject is stored, and goes to nobody else."""
    stored = stream.get("subjects") or ()
    if not any(subject_matches(each, own.subject) for each in stored):
        raise _refusal(shared, f"the stream doesn't store {shared.subject}.>")
    taken = filters(consumer)
    if not taken:
        raise _refusal(
            shared, f"the consumer {shared.consumer} has no filter and takes everything"
        )
    if any(subject_matches(each, own.subject) for each in taken):
        raise _refusal(
            shared,
            f"the consumer {shared.consumer} takes {', '.join(taken)}, "
            f"and {shared.subject}.> with it",
        )


async def _check_publishing(connection: Connection, own: QueueSettings) -> None:
    """Publish what can't be stored, to see whether a job could be."""
    headers = {
        "Nats-Expected-Stream": own.stream,
        "Nats-Expected-Last-Subject-Sequence": _PAST_LAST,
    }
    try:
        reply = await connection.request(own.subject, headers=headers)
    except NoResponders:
        raise QueueError(f"no stream stores {own.subject}: try again") from None
    error = orjson.loads(reply.data).get("error") or {}
    if error.get("err_code") != _NOT_STORED_YET:
        description = error.get("description", "it stores anything")
        raise ApiError(error.get("code", 0), error.get("err_code", 0), description)


def _copy(shared: dict[str, Any], own: QueueSettings) -> dict[str, Any]:
    config = {key: shared[key] for key in shared if key not in _OF_ONE_CONSUMER}
    metadata = shared.get("metadata") or {}
    mine = {key: metadata[key] for key in metadata if not key.startswith("_nats.")}
    return (
        config
        | {
            "durable_name": own.consumer,
            "name": own.consumer,
            "filter_subject": own.subject,
            "deliver_policy": "all",
        }
        | ({"metadata": mine} if mine else {})
    )


async def _insist(connection: Connection, suffix: str, body: Any) -> None:
    """Ask a few times; what is gone already is fine."""
    for left in reversed(range(TRIES)):
        try:
            await connection.api(suffix, body)
        except ApiError as error:
            if error.code == NOT_FOUND:
                return
            if not left:
                raise
        except QueueError as error:
            if not left or isinstance(error, Forbidden):
                raise
        else:
            return
        await asyncio.sleep(TRY_EVERY)


def _refusal(shared: QueueSettings, reason: str) -> QueueError:
    return QueueError(
        f"a backfill can't have a queue of its own in {shared.stream}: {reason}; "
        f"--enqueue-only sends the jobs to {shared.subject}, for the supervisors there"
    )

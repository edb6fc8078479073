"""Filling the queue with what a backfill has left to do."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence

import orjson

from bwpool.backfill.account import Account
from bwpool.backfill.inputs import Input
from bwpool.errors import InvalidJob
from bwpool.job import names_of
from bwpool.queue.connection import Connection
from bwpool.queue.dead import list_failed
from bwpool.queue.facts import ConsumerFacts, read_depth
from bwpool.queue.messages import (
    delete_message,
    get_message,
    messages_on,
)
from bwpool.queue.publish import Message, Stored, publish, publish_all
from bwpool.queue.requeue import put_back
from bwpool.settings import QueueSettings


async def resume(
    connection: Connection,
    consumer: ConsumerFacts,
    images: Mapping[str, str],
    waiting: Container[str],
) -> dict[str, str]:
    """Make what an earlier run left ready to be delivered; return it, id to image.

    `images` are this run's inputs by job id, `waiting` the ids of those that are to be
    converted. Only for a queue that is ours alone, where what was delivered before is
    nobody's now. Four cases, the first that holds: a job that this run's inputs have
    replaced, or that is done, is deleted; one that waits is left as it is; a dead one
    of other inputs is left dead; whatever else was delivered becomes new.
    """
    left: dict[str, str] = {}
    newest = await get_message(
        connection, consumer.stream, {"last_by_subj": consumer.subject}
    )
    if newest is None:
        return left
    delivered = (await read_depth(connection, consumer)).delivered
    dead = await _dead(connection, consumer) if delivered else set()
    # Up to the newest: what is put back is stored behind it.
    walk = messages_on(connection, consumer.stream, consumer.subject, newest.seq)
    async for message in walk:
        job_id, image = names_of(message.payload)
        if job_id is None or image is None:
            job_id = image = ""  # no job of anybody's
        is_ours = job_id in images
        is_wanted = job_id in waiting and job_id not in left
        if is_ours and not (is_wanted and images[job_id] == image):
            await delete_message(connection, consumer.stream, message.seq)
            continue
        if message.seq in dead and not is_ours:
            continue
        if message.seq <= delivered:
            await put_back(connection, consumer, message)
            await delete_message(connection, consumer.stream, message.seq)
        left[job_id] = image
    return left


async def fill(
    connection: Connection,
    consumer: ConsumerFacts,
    pictures: Sequence[Input],
    account: Account,
    run_id: str,
    advisory: str | None = None,
) -> None:
    """Publish a job for each picture; one that the stream can't take is a failure.

    `advisory` is where to tell of each conversion. A message's id begins with `run_id`:
    publishing it again stores it once, yet a later run is no duplicate.
    """
    outcomes = publish_all(
        connection,
        consumer.subject,
        _messages(pictures, run_id, advisory),
        consumer.max_msg_bytes,
    )
    position = 0
    async for outcome in outcomes:
        picture = pictures[position]
        position += 1
        if isinstance(outcome, InvalidJob):
            account.refuse(picture.job_id, outcome.kind, outcome.reason)
        elif outcome.duplicate and picture.job_id in account.ledger.waiting:
            await _make_sure(connection, consumer, picture, outcome, advisory)


async def _make_sure(
    connection: Connection,
    consumer: ConsumerFacts,
    picture: Input,
    duplicate: Stored,
    advisory: str | None,
) -> None:
    """Publish a job again, as new, if the message that it doubles is gone."""
    query = {"seq": duplicate.seq}
    if await get_message(connection, consumer.stream, query) is None:
        message = Message(_payload(picture, advisory))
        await publish(connection, consumer.subject, message, consumer.max_msg_bytes)


def _messages(
    pictures: Sequence[Input], run_id: str, advisory: str | None
) -> Iterator[Message]:
    for number, picture in enumerate(pictures):
        yield Message(_payload(picture, advisory), id=f"{run_id}-{number}")


def _payload(picture: Input, advisory: str | None) -> bytes:
    job = {"id": picture.job_id, "image": picture.image}
    if advisory is not None:
        job["advisory"] = advisory
    return orjson.dumps(job)


async def _dead(connection: Connection, consumer: ConsumerFacts) -> set[int]:
    names = QueueSettings(
        stream=consumer.stream, consumer=consumer.name, subject=consumer.subject
    )
    return {failed.seq async for failed in list_failed(connection, names)}

"""Filling the queue with what a backfill has left to do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

import orjson

from bwpool.backfill.inputs import Input
from bwpool.backfill.ledger import Ledger
from bwpool.errors import InvalidJob
from bwpool.queue.connection import Connection
from bwpool.queue.facts import ConsumerFacts, read_depth
from bwpool.queue.messages import StoredMessage, delete_message, messages_on
from bwpool.queue.publish import Message, publish_all
from bwpool.queue.requeue import put_back


async def resume(connection: Connection, consumer: ConsumerFacts) -> set[str]:
    """Make what an earlier run left ready to be delivered; return its job ids.

    Only for a queue that is ours alone: what was delivered before is nobody's now, and
    would otherwise wait for its ack wait, or lie dead.
    """
    job_ids = set()
    delivered = (await read_depth(connection, consumer)).delivered
    async for message in messages_on(connection, consumer.stream, consumer.subject):
        job_id = _job_id(message)
        if job_id is not None:
            job_ids.add(job_id)
        if message.seq <= delivered:
            await put_back(connection, message, consumer.max_msg_bytes)
            await delete_message(connection, consumer.stream, message.seq)
    return job_ids


async def fill(
    connection: Connection,
    consumer: ConsumerFacts,
    pictures: Sequence[Input],
    ledger: Ledger,
    advisory: str | None,
) -> None:
    """Publish a job for each picture; one that the stream can't take is a failure.

    `advisory` is where to tell of each conversion. A message's id carries this call's
    own number: publishing it again stores it once, yet a later run is no duplicate.
    """
    run_id = uuid.uuid4().hex[:12]
    outcomes = publish_all(
        connection,
        consumer.subject,
        _messages(pictures, run_id, advisory),
        consumer.max_msg_bytes,
    )
    position = 0
    async for outcome in outcomes:
        if isinstance(outcome, InvalidJob):
            job_id = pictures[position].job_id
            ledger.fail(job_id, outcome.kind, outcome.reason)
        position += 1


def _messages(
    pictures: Sequence[Input], run_id: str, advisory: str | None
) -> Iterator[Message]:
    for number, picture in enumerate(pictures):
        job = {"id": picture.job_id, "image": picture.source.as_uri()}
        if advisory is not None:
            job["advisory"] = advisory
        yield Message(orjson.dumps(job), id=f"{run_id}-{number}")


def _job_id(message: StoredMessage) -> str | None:
    try:
        fields = orjson.loads(message.payload)
    except orjson.JSONDecodeError:
        return None
    job_id = fields.get("id") if isinstance(fields, dict) else None
    return job_id if isinstance(job_id, str) else None

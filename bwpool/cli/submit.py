"""`bwpool submit`: put jobs into the queue."""

from __future__ import annotations

import asyncio
import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson

from bwpool.backfill.account import enter_record
from bwpool.backfill.ledger import Ledger
from bwpool.cli.common import (
    DONE,
    FAILED,
    Common,
    CommonSettings,
    Queue,
    Server,
    endpoint_of,
    execute,
    flat,
)
from bwpool.errors import ConfigError, InvalidJob
from bwpool.job import check_advisory, check_id
from bwpool.queue.connection import Connection
from bwpool.queue.facts import (
    ConsumerFacts,
    deaths_subject,
    read_facts,
    records_subject,
)
from bwpool.queue.publish import Message, publish
from bwpool.queue.watch import watching
from bwpool.settings import Format, Method, QueueSettings, ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitSettings:
    """What the jobs say besides their source."""

    id: str | None = None
    """The job's id, for a single image; random hex if not given."""
    advisory: str | None = None
    """The subject to tell when an image is converted."""
    method: Method | None = None
    """The way from gray to black and white; the supervisor's if not given."""
    format: Format | None = None
    """What to encode as; the supervisor's if not given."""
    quality: int | None = None
    """JPEG and WebP quality; the supervisor's if not given."""
    wait: bool = False
    """Wait until every image is converted or has failed."""
    json: bool = False
    """Report one JSON object a line on stdout."""


def submit(
    *images: str,
    settings: Annotated[SubmitSettings, flat("Options")] = SubmitSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Put one job per image into the queue, and print where the stream stored it.

    Example: `bwpool submit color.jpg --id 5e91425f --wait`

    Parameters
    ----------
    images
        Paths, or URIs such as `file:///data/color.jpg`. A path is what the supervisors'
        machines know it by.
    """

    async def command() -> int:
        jobs = [_job(image, settings) for image in images]
        if not jobs:
            raise ConfigError("nothing to submit: name images")
        if settings.id is not None and len(jobs) > 1:
            raise ConfigError("--id names one job: submit the images one by one")
        async with await Connection.open(endpoint_of(server, common)) as connection:
            consumer = await read_facts(connection, queue)
            _check(settings, consumer)
            if settings.wait:
                return await _submit_and_wait(connection, consumer, jobs, settings)
            await _submit(connection, consumer, jobs, settings)
            return DONE

    return execute(common, command, log_level="warning")


Job = dict[str, str | int]


def _job(image: str, settings: SubmitSettings) -> Job:
    """Make a job of an image and the options."""
    uri = image if "://" in image else Path(image).absolute().as_uri()
    job: Job = {"id": settings.id or secrets.token_hex(16), "image": uri}
    optional = {
        "advisory": settings.advisory,
        "method": settings.method,
        "format": settings.format,
        "quality": settings.quality,
    }
    return job | {name: value for name, value in optional.items() if value is not None}


def _check(settings: SubmitSettings, consumer: ConsumerFacts) -> None:
    """Find out here what would make every job invalid there."""
    try:
        if settings.id is not None:
            check_id(settings.id)
        if settings.advisory:
            check_advisory(settings.advisory, consumer.stream_subjects)
    except InvalidJob as error:
        raise ConfigError(error.reason) from None
    if settings.quality is not None and not 1 <= settings.quality <= 100:
        raise ConfigError("--quality is a whole number from 1 to 100")


async def _submit(
    connection: Connection,
    consumer: ConsumerFacts,
    jobs: list[Job],
    settings: SubmitSettings,
) -> dict[int, str]:
    """Publish the jobs one after the other, printing each one's sequence.

    Returns the job ids by sequence.
    """
    sequences = {}
    for job in jobs:
        message = Message(orjson.dumps(job))
        try:
            stored = await publish(
                connection, consumer.subject, message, consumer.max_msg_bytes
            )
        except InvalidJob as error:
            raise ConfigError(f"{job['image']}: {error.reason}") from None
        if settings.json:
            print(orjson.dumps({"seq": stored.seq, **job}).decode(), flush=True)
        else:
            print(stored.seq, job["id"], job["image"], flush=True)
        sequences[stored.seq] = str(job["id"])
    return sequences


async def _submit_and_wait(
    connection: Connection,
    consumer: ConsumerFacts,
    jobs: list[Job],
    settings: SubmitSettings,
) -> int:
    """Listen first, so that not even the fastest conversion is missed."""
    ledger = Ledger()
    settled = asyncio.Event()
    sequences: dict[int, str] = {}
    advisory = settings.advisory or connection.client.new_inbox()
    for job in jobs:
        job["advisory"] = advisory
        ledger.expect(str(job["id"]), str(job["image"]))

    def converted(payload: bytes) -> None:
        ledger.convert(orjson.loads(payload)["id"], 0, 0)
        settled.set()

    def failed(payload: bytes) -> None:
        enter_record(ledger, payload)
        settled.set()

    def died(payload: bytes) -> None:
        # Where failures are recorded, the record came first.
        job_id = sequences.get(orjson.loads(payload)["stream_seq"], "")
        ledger.fail(job_id, "unknown", "its deliveries ran out")
        settled.set()

    async with (
        watching(connection, advisory, converted),
        watching(connection, records_subject(consumer), failed),
        watching(connection, deaths_subject(consumer), died),
    ):
        sequences = await _submit(connection, consumer, jobs, settings)
        while not ledger.is_complete:
            await settled.wait()
            settled.clear()
    for failure in ledger.failures.values():
        print(f"{failure.source}: {failure.kind}: {failure.reason}", file=sys.stderr)
    return FAILED if ledger.failures else DONE

"""`bwpool submit`: put jobs into the queue."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import orjson

from bwpool.backfill.account import read_failure
from bwpool.backfill.ledger import Ledger
from bwpool.cli.common import (
    DONE,
    FAILED,
    Common,
    CommonSettings,
    Queue,
    Server,
    as_json_line,
    endpoint_of,
    execute,
    flat,
    printable,
)
from bwpool.errors import ConfigError, InvalidJob
from bwpool.job import check_advisory, check_id, converted_id
from bwpool.queue.advisories import read_advisory
from bwpool.queue.connection import Connection
from bwpool.queue.facts import (
    ConsumerFacts,
    deaths_subject,
    read_facts,
    records_subject,
)
from bwpool.queue.publish import Message, publish
from bwpool.queue.watch import watching
from bwpool.settings import FormatName, MethodName, QueueSettings, ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitSettings:
    """What the jobs say besides their source."""

    id: str | None = None
    """The job's id, for a single image; random hex if not given."""
    advisory: str | None = None
    """The subject to tell when an image is converted."""
    method: MethodName | None = None
    """The way from gray to black and white; the supervisor's if not given."""
    format: FormatName | None = None
    """What to encode as; the supervisor's if not given."""
    quality: int | None = None
    """JPEG and WebP quality; the supervisor's if not given."""
    wait: bool = False
    """Wait until every image is converted or has failed."""
    json: bool = False
    """Report one JSON object a line on stdout; with `--wait`, what became of each."""


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
            tell = partial(_tell_stored, as_json=settings.json)
            await _submit(connection, consumer, jobs, tell)
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
    tell: Callable[[int, Job], None],
) -> None:
    """Publish the jobs one after the other, telling each one's sequence."""
    for job in jobs:
        message = Message(orjson.dumps(job))
        try:
            stored = await publish(
                connection, consumer.subject, message, consumer.max_msg_bytes
            )
        except InvalidJob as error:
            raise ConfigError(f"{job['image']}: {error.reason}") from None
        tell(stored.seq, job)


def _tell_stored(seq: int, job: Job, *, as_json: bool) -> None:
    if as_json:
        print(as_json_line({"seq": seq, **job}), flush=True)
    else:
        print(printable(f"{seq} {job['id']} {job['image']}"), flush=True)


async def _submit_and_wait(
    connection: Connection,
    consumer: ConsumerFacts,
    jobs: list[Job],
    settings: SubmitSettings,
) -> int:
    """Submit, and print what becomes of each job: as JSON, or what failed on stderr."""
    following = _Following(jobs, is_json=settings.json)
    advisory = settings.advisory or connection.client.new_inbox()
    for job in jobs:
        job["advisory"] = advisory
    # Listening begins first, so that not even the fastest conversion is missed.
    async with (
        watching(connection, advisory, following.note_converted),
        watching(connection, records_subject(consumer), following.note_failed),
        watching(connection, deaths_subject(consumer), following.note_death),
    ):
        await _submit(connection, consumer, jobs, following.note_stored)
        await following.finish()
    return FAILED if following.ledger.failures else DONE


class _Following:
    """What becomes of jobs: noted as it is heard, printed once their sequences are."""

    def __init__(self, jobs: list[Job], *, is_json: bool) -> None:
        self.ledger = Ledger()
        self._images = {str(job["id"]): str(job["image"]) for job in jobs}
        for job_id, image in self._images.items():
            self.ledger.expect(job_id, image)
        self._is_json = is_json
        self._ids: dict[int, str] = {}
        """Job ids by sequence, of those whose end was not printed yet."""
        self._news = asyncio.Event()

    def note_stored(self, seq: int, job: Job) -> None:
        self._ids[seq] = str(job["id"])
        if not self._is_json:
            _tell_stored(seq, job, as_json=False)

    def note_converted(self, payload: bytes) -> None:
        self.ledger.convert(converted_id(payload) or "", 0, 0)
        self._news.set()

    def note_failed(self, payload: bytes) -> None:
        if (failure := read_failure(self._images, payload)) is not None:
            self.ledger.fail(*failure)
        self._news.set()

    def note_death(self, payload: bytes) -> None:
        try:
            seq = read_advisory(payload).seq
        except ValueError:
            return  # whoever may publish there may publish nonsense
        # Where failures are recorded, the record came first.
        job_id = self._ids.get(seq, "")
        self.ledger.fail(job_id, "unknown", "its deliveries ran out")
        self._news.set()

    async def finish(self) -> None:
        """Print each job's end as it comes, and return after the last."""
        while True:
            for seq, job_id in list(self._ids.items()):
                if job_id not in self.ledger.waiting:
                    self._tell_end(seq, job_id)
                    del self._ids[seq]
            if not self._ids:
                return
            await self._news.wait()
            self._news.clear()

    def _tell_end(self, seq: int, job_id: str) -> None:
        failure = self.ledger.failures.get(job_id)
        if self._is_json:
            end = {
                "seq": seq,
                "id": job_id,
                "image": self._images[job_id],
                "outcome": "failed" if failure else "converted",
                "kind": failure.kind if failure else None,
                "reason": failure.reason if failure else None,
            }
            print(as_json_line(end), flush=True)
        if failure:
            told = f"{failure.source}: {failure.kind}: {failure.reason}"
            print(printable(told), file=sys.stderr)

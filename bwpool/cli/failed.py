"""`bwpool failed`: the jobs that ran out of attempts, and what to do with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cyclopts
import orjson

from bwpool.cli.common import (
    DONE,
    FAILED,
    Common,
    CommonSettings,
    Queue,
    Server,
    as_json_line,
    complain,
    endpoint_of,
    execute,
    flat,
    printable,
)
from bwpool.cli.session import STORE
from bwpool.embedded import EmbeddedServer, find_running
from bwpool.errors import JOB_ERRORS, ConfigError
from bwpool.queue import dead
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.dead import UNKNOWN, Case, Failed
from bwpool.settings import QueueSettings, ServerSettings

app = cyclopts.App(
    name="failed", help="Look at the jobs that ran out of attempts; try them again."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceSettings:
    """Where to look for failures, and how to report."""

    out: str = ""
    """Look into the store of a backfill to this folder, instead of at a server."""
    json: bool = False
    """Print one JSON object a line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListSettings(PlaceSettings):
    """Which failures to list."""

    kind: str | None = None
    """Only failures of this kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceSettings(ListSettings):
    """Which failures to do something with."""

    all: bool = False
    """Every failure there is."""


@app.command(name="list")
def list_(
    *,
    settings: Annotated[ListSettings, flat("Options")] = ListSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """List the jobs that ran out of attempts, by kind, with the reason of each.

    Example: `bwpool failed list --kind bad-image`
    """

    async def command() -> int:
        check_kind(settings.kind)
        async with _opened(settings, server, common) as connection:
            jobs = [
                job
                async for job in dead.list_failed(connection, queue)
                if settings.kind in (None, job.kind)
            ]
        _show_list(jobs, as_json=settings.json)
        return DONE

    return execute(common, command, log_level="warning")


@app.command
def show(
    seq: int,
    /,
    *,
    settings: Annotated[PlaceSettings, flat("Options")] = PlaceSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Show all that is known of one: its message, and a record of each attempt.

    Example: `bwpool failed show 121`

    Parameters
    ----------
    seq
        The message's sequence, as `bwpool failed list` prints it.
    """

    async def command() -> int:
        async with _opened(settings, server, common) as connection:
            case = await dead.describe(connection, queue, seq)
        _show_case(case, as_json=settings.json)
        return DONE

    return execute(common, command, log_level="warning")


@app.command
def requeue(
    *seqs: int,
    settings: Annotated[ChoiceSettings, flat("Options")] = ChoiceSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Put failed jobs back into the queue, as if they were new.

    Example: `bwpool failed requeue --kind source-missing`

    Safe to interrupt and to call again: no job is lost, and none is queued twice.

    Parameters
    ----------
    seqs
        Their messages' sequences, as `bwpool failed list` prints them.
    """

    async def command() -> int:
        _check_choice(seqs, settings)
        async with _opened(settings, server, common) as connection:
            chosen, code = await _choose(connection, queue, seqs, settings)
            count = 0
            async for old, new in dead.requeue(connection, queue, chosen):
                count += 1
                if settings.json:
                    print(as_json_line({"seq": old, "new_seq": new}), flush=True)
        if not settings.json:
            print(f"{_jobs(count)} put back into the queue")
        return code

    return execute(common, command, log_level="warning")


@app.command
def drop(
    *seqs: int,
    settings: Annotated[ChoiceSettings, flat("Options")] = ChoiceSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Remove failed jobs from the queue for good; the records of them stay.

    Example: `bwpool failed drop 121 122`

    Parameters
    ----------
    seqs
        Their messages' sequences, as `bwpool failed list` prints them.
    """

    async def command() -> int:
        _check_choice(seqs, settings)
        async with _opened(settings, server, common) as connection:
            chosen, code = await _choose(connection, queue, seqs, settings)
            await dead.drop(connection, queue, chosen)
        if settings.json:
            for seq in chosen:
                print(as_json_line({"seq": seq}))
        else:
            print(f"{_jobs(len(chosen))} removed")
        return code

    return execute(common, command, log_level="warning")


def check_kind(kind: str | None) -> None:
    """Raise ConfigError for a kind that no failure is of."""
    kinds = [*JOB_ERRORS, UNKNOWN]
    if kind is not None and kind not in kinds:
        raise ConfigError(f"there is no kind {kind!r}; there are {', '.join(kinds)}")


def _check_choice(seqs: tuple[int, ...], settings: ChoiceSettings) -> None:
    ways = (bool(seqs), settings.all, settings.kind is not None)
    if sum(ways) != 1:
        raise ConfigError("say which: either sequences, or --all, or --kind KIND")
    check_kind(settings.kind)


async def _choose(
    connection: Connection,
    queue: QueueSettings,
    seqs: tuple[int, ...],
    settings: ChoiceSettings,
) -> tuple[list[int], int]:
    """Return the sequences that are meant, and the exit code if all else goes well."""
    if not seqs:
        kind = settings.kind
        found = dead.list_failed(connection, queue)
        return [job.seq async for job in found if kind in (None, job.kind)], DONE
    chosen = [job.seq for job in await dead.find_failed(connection, queue, seqs)]
    for seq in sorted(set(seqs) - set(chosen)):
        complain(f"{seq} is not a failed job: bwpool failed list shows them")
    return chosen, DONE if set(chosen) == set(seqs) else FAILED


@asynccontextmanager
async def _opened(
    place: PlaceSettings, server: ServerSettings, common: CommonSettings
) -> AsyncIterator[Connection]:
    """Connect to where the failures are: a server, or a backfill's own store."""
    async with AsyncExitStack() as stack:
        if place.out:
            endpoint = await _open_store(stack, Path(place.out) / STORE)
        else:
            endpoint = endpoint_of(server, common)
        yield await stack.enter_async_context(await Connection.open(endpoint))


async def _open_store(stack: AsyncExitStack, store: Path) -> Endpoint:
    """Find the server of a backfill's store, or start one until the stack is closed."""
    if not store.is_dir():
        raise ConfigError(f"there is no store in {store}: was that a backfill's --out?")
    if (running := find_running(store)) is not None:
        return running
    own = await EmbeddedServer.start(store)
    await stack.enter_async_context(own)
    return own.endpoint


def _show_list(jobs: list[Failed], *, as_json: bool) -> None:
    if as_json:
        for job in jobs:
            print(as_json_line(job))
        return
    if not jobs:
        print("no job has failed")
    counts = Counter(job.kind for job in jobs)
    for kind, count in counts.most_common():
        print(f"{printable(kind)}: {_jobs(count)}")
        for job in jobs:
            if job.kind == kind:
                print(f"  {job.seq}  {_name(job)}: {printable(job.reason)}")


def _show_case(case: Case, *, as_json: bool) -> None:
    payload = case.message.payload.decode(errors="replace")
    if as_json:
        records = [orjson.loads(record.to_json()) for record in case.records]
        known = {name: getattr(case.failed, name) for name in Failed.__slots__}
        known |= {"payload": payload, "records": records}
        print(as_json_line(known))
        return
    failed = case.failed
    told = f"{failed.kind}  {_name(failed)}: {failed.reason}"
    print(f"{failed.seq}  {printable(told)}")
    print(f"subject   {printable(case.message.subject)}")
    print(f"stored    {case.message.time.isoformat()}")
    print(f"payload   {printable(payload)}")
    for record in case.records:
        told = (
            f"attempt   {record.attempt} of {record.max_deliver}, "
            f"{record.time.isoformat(timespec='seconds')} on {record.host}, "
            f"after {record.elapsed:g} s: {record.kind}: {record.reason}"
        )
        print(printable(told))
        if (end := record.converter) is not None:
            print(
                f"          converter {end.pid}, exit code {end.exitcode}, signal "
                f"{end.signal}, {end.max_rss_bytes / 1e6:.0f} MB at most"
            )
            for line in end.stderr.splitlines():
                print(f"          | {printable(line)}")


def _name(job: Failed) -> str:
    return printable(job.id or job.image or "(unreadable)")


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"

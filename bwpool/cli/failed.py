"""`bwpool failed`: the jobs that ran out of attempts."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cyclopts
import orjson

from bwpool.cli.common import (
    DONE,
    Common,
    CommonSettings,
    Queue,
    Server,
    endpoint_of,
    execute,
    flat,
)
from bwpool.cli.run import STORE
from bwpool.embedded import EmbeddedServer
from bwpool.errors import ConfigError
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.failures import Failed, list_failed
from bwpool.settings import QueueSettings, ServerSettings

app = cyclopts.App(name="failed", help="Look at the jobs that ran out of attempts.")


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedSettings:
    """Which failures to look at, and how to show them."""

    out: str = ""
    """Look into the store of a backfill to this folder, instead of at a server."""
    json: bool = False
    """Print one JSON object a line."""


@app.command(name="list")
def list_(
    *,
    settings: Annotated[FailedSettings, flat("Options")] = FailedSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """List the jobs that ran out of attempts, with the reason of each.

    Example: `bwpool failed list --server localhost:4222`
    """

    async def command() -> int:
        async with AsyncExitStack() as stack:
            endpoint = endpoint_of(server, common)
            if settings.out:
                endpoint = await _open_store(stack, Path(settings.out) / STORE)
            connection = await Connection.open(endpoint)
            await stack.enter_async_context(connection)
            jobs = [job async for job in list_failed(connection, queue)]
        _show(jobs, as_json=settings.json)
        return DONE

    return execute(common, command, log_level="warning")


async def _open_store(stack: AsyncExitStack, store: Path) -> Endpoint:
    """Start a server on a backfill's store, to be stopped with the stack."""
    if not store.is_dir():
        raise ConfigError(f"there is no store in {store}: was that a backfill's --out?")
    own = await EmbeddedServer.start(store)
    await stack.enter_async_context(own)
    return Endpoint(urls=(own.url,))


def _show(jobs: list[Failed], *, as_json: bool) -> None:
    if as_json:
        for job in jobs:
            print(orjson.dumps(job).decode())
        return
    if not jobs:
        print("no job has failed")
    for job in jobs:
        name = job.id or job.image or "(unreadable)"
        print(f"{job.seq}  {job.kind}  {name}: {job.reason}")

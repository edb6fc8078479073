"""`bwpool run`: the supervisor in the foreground."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import structlog

from bwpool.cli.common import (
    Common,
    CommonSettings,
    Converters,
    Converting,
    Queue,
    Server,
    endpoint_of,
    execute,
    flat,
)
from bwpool.cli.session import STORE, make_out, supervising, until_stopped
from bwpool.cli.setup import provide
from bwpool.embedded import EmbeddedServer
from bwpool.queue.topology import wanted
from bwpool.settings import (
    ConvertSettings,
    PoolSettings,
    QueueSettings,
    RunSettings,
    ServerSettings,
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSettings:
    """What to provide before the supervisor starts."""

    setup: bool = False
    """Create the stream and the consumer first if they are missing."""
    embedded: bool = False
    """Start a server of our own first, which keeps its messages in OUT/.bwpool."""


def run(
    *,
    convert: Converting = ConvertSettings(),
    pool: Converters = PoolSettings(),
    ending: Annotated[RunSettings, flat("Running")] = RunSettings(),
    start: Annotated[StartSettings, flat("Running")] = StartSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Pull jobs from the queue and convert their pictures until told to stop.

    Example: `bwpool run --server localhost:4222 --out /data/bw --procs 16`

    SIGTERM or Ctrl-C drains: what is being converted is finished, the rest is handed
    back. A second one stops at once. More machines means more of these on the same
    consumer.
    """

    async def command() -> int:
        make_out(convert)
        async with contextlib.AsyncExitStack() as stack:
            endpoint = endpoint_of(server, common)
            if start.embedded:
                store = Path(convert.out) / STORE
                own = await EmbeddedServer.start(store)
                await stack.enter_async_context(own)
                endpoint = own.endpoint
                log.info(
                    "server.ready", url=own.url, password_file=str(own.password_file)
                )
            if start.embedded or start.setup:
                await provide(endpoint, wanted(queue))
            supervisor = await stack.enter_async_context(
                supervising(endpoint, queue, convert, pool, ending)
            )
            if not convert.source_root:
                log.warning("sources.unrestricted", remedy="name a --source-root")
            if not supervisor.parts.consumer.has_failures:
                log.warning("failures.not_kept", remedy="run bwpool setup")
            return await until_stopped(supervisor, is_burst=ending.burst)

    return execute(common, command)

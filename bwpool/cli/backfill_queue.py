"""Where a backfill's jobs wait: on a server of its own, or in a queue on a shared one.

Called by `backfill`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bwpool.backfill.mark import Mark
from bwpool.cli.setup import provide
from bwpool.embedded import EmbeddedServer
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.facts import stream_info
from bwpool.queue.own import check_own, own_names, provide_own, remove_own
from bwpool.queue.topology import wanted
from bwpool.settings import QueueSettings

EMBEDDED_MSG_BYTES = 65_536
"""The size limit of an embedded stream: percent-encoded paths exceed the seed's 512."""


@dataclass(frozen=True, slots=True)
class Place:
    """A queue that is a backfill's own, and where it is."""

    endpoint: Endpoint
    names: QueueSettings
    server: EmbeddedServer | None = None
    """The server, if it is ours as well."""


@contextlib.asynccontextmanager
async def embedded_place(store: Path, names: QueueSettings) -> AsyncIterator[Place]:
    """Start a server for the backfill alone, whose queue has the plain names."""
    async with await EmbeddedServer.start(store) as server:
        endpoint = server.endpoint
        await provide(endpoint, wanted(names, max_msg_bytes=EMBEDDED_MSG_BYTES))
        yield Place(endpoint, names, server)


async def shared_place(endpoint: Endpoint, shared: QueueSettings, mark: Mark) -> Place:
    """Make a queue of the run's own on a shared server, or find it again."""
    async with await Connection.open(endpoint) as connection:
        check = await check_own(connection, shared, mark.run)
        # Noted before it is made: a killed run's must be found.
        mark.add_queue(await _key(connection, shared))
        await provide_own(connection, shared, mark.run, check)
        return Place(endpoint, own_names(shared, mark.run))


async def remove_shared(endpoint: Endpoint, shared: QueueSettings, mark: Mark) -> None:
    """Remove what the run has on a shared server; raises QueueError."""
    async with await Connection.open(endpoint) as connection:
        if (key := await _key(connection, shared)) in mark.queues:
            await remove_own(connection, own_names(shared, mark.run))
            mark.drop_queue(key)


async def _key(connection: Connection, shared: QueueSettings) -> str:
    """Name a queue so that one of the same name elsewhere is another."""
    stream = await stream_info(connection, shared.stream)
    created = stream["created"] if stream else ""
    return f"{created} {shared.stream} {shared.consumer} {shared.subject}"

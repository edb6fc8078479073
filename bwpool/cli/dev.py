"""`bwpool dev`: a server to play with."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson

from bwpool.cli.common import (
    DONE,
    FAILED,
    Common,
    CommonSettings,
    Queue,
    complain,
    execute,
    flat,
)
from bwpool.cli.setup import provide
from bwpool.embedded import EmbeddedServer
from bwpool.queue.contexts import Endpoint
from bwpool.queue.topology import wanted
from bwpool.settings import QueueSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSettings:
    """Where the server keeps its messages."""

    store: Path = Path(".bwpool")
    """The folder that the server keeps its messages in."""
    json: bool = False
    """Print the URL as one JSON object."""


def dev(
    *,
    settings: Annotated[DevSettings, flat("Options")] = DevSettings(),
    queue: Queue = QueueSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Run a server with JetStream and bwpool's streams in the foreground.

    Example: `bwpool dev`, and elsewhere `NATS_URL=… bwpool run --out bw`
    """

    async def command() -> int:
        async with await EmbeddedServer.start(settings.store) as server:
            await provide(Endpoint(urls=(server.url,)), wanted(queue))
            if settings.json:
                print(orjson.dumps({"url": server.url}).decode(), flush=True)
            else:
                print(server.url, flush=True)
            return await _until_stopped(server)

    return execute(common, command)


async def _until_stopped(server: EmbeddedServer) -> int:
    """Wait for a signal, or for the server's own end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    stopping = asyncio.ensure_future(stop.wait())
    ending = asyncio.ensure_future(server.wait())
    await asyncio.wait({stopping, ending}, return_when="FIRST_COMPLETED")
    stopping.cancel()
    if ending.done():
        complain(f"the server ended: {server.store / 'nats-server.log'} says why")
        return FAILED
    ending.cancel()
    return DONE

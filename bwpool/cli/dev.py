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
from bwpool.embedded import Access, EmbeddedServer
from bwpool.queue.topology import wanted
from bwpool.settings import QueueSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSettings:
    """Where the server keeps its messages, and where it listens."""

    store: Path = Path(".bwpool")
    """The folder that the server keeps its messages in."""
    port: int | None = None
    """The port to listen on; the one of the last start if not given, at first any."""
    json: bool = False
    """Print the URL as one JSON object."""


def dev(
    *,
    settings: Annotated[DevSettings, flat("Options")] = DevSettings(),
    queue: Queue = QueueSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Run a server with JetStream and bwpool's streams in the foreground.

    Its URL carries the password that keeps others out. Both are the same at each start
    on the same store.

    Example: `bwpool dev`, and elsewhere `NATS_URL=… bwpool run --out bw`
    """

    async def command() -> int:
        access = Access(port=settings.port, is_kept=True)
        async with await EmbeddedServer.start(settings.store, access=access) as server:
            await provide(server.endpoint, wanted(queue))
            stop = _stop_on_signals()  # whoever reads the URL may send one at once
            _show(server.url_with_password, as_json=settings.json)
            return await _until_stopped(server, stop)

    return execute(common, command)


def _show(url: str, *, as_json: bool) -> None:
    """Print the URL alone in its line, and what to do with it."""
    if as_json:
        print(orjson.dumps({"url": url}).decode(), flush=True)
        return
    print(url)
    print(f"next, in another terminal: NATS_URL={url} bwpool run --out out", flush=True)


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _until_stopped(server: EmbeddedServer, stop: asyncio.Event) -> int:
    """Wait until it is to stop, or for the server's own end."""
    stopping = asyncio.ensure_future(stop.wait())
    ending = asyncio.ensure_future(server.wait())
    await asyncio.wait({stopping, ending}, return_when="FIRST_COMPLETED")
    stopping.cancel()
    if ending.done():
        complain(f"the server ended: {server.store / 'nats-server.log'} says why")
        return FAILED
    ending.cancel()
    return DONE

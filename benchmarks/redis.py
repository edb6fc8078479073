"""How a Redis of our own is run, and asked what Celery has left in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from benchmarks.drain import wait_until_none_is_left
from benchmarks.processes import running

START_TIMEOUT = 10.0


class Redis:
    """A Redis that listens on a socket file and logs every write to the disk."""

    def __init__(
        self, path: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.url = f"redis+socket://{path}"
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def serving(cls, folder: Path) -> AsyncIterator[Self]:
        """Run a server that keeps its log in `folder`, as durable as JetStream's."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "socket"
        options = ("--port", "0", "--unixsocket", str(path), "--dir", str(folder))
        durable = ("--appendonly", "yes", "--appendfsync", "everysec", "--save", "")
        async with running("redis-server", *options, *durable):
            reader, writer = await _connect(path)
            yield cls(path, reader, writer)
            writer.close()

    async def left(self) -> int:
        """Count what waits and what is not acknowledged."""
        self._writer.write(b"LLEN celery\r\nHLEN unacked\r\n")
        answers = [await self._reader.readline() for _ in range(2)]
        return sum(int(answer.removeprefix(b":")) for answer in answers)

    async def wait_until_empty(self) -> None:
        """Return once everything is acknowledged."""
        await wait_until_none_is_left(self.left)


async def _connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(START_TIMEOUT):
        while True:
            with contextlib.suppress(OSError):
                return await asyncio.open_unix_connection(path)
            await asyncio.sleep(0.02)  # nothing but the socket tells

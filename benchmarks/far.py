"""A TCP proxy that makes a server seem far away: what passes through comes later.

Run as a program, `python -m benchmarks.far PORT SECONDS`, it listens on a free port of
this machine, prints it, and hands all bytes on to PORT and back, each after half of
SECONDS; so a round trip takes SECONDS longer. A process of its own, so that it takes no
time from what is measured but on the cores they share.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import AsyncIterator
from typing import cast
from urllib.parse import urlsplit

from benchmarks.processes import running


@contextlib.asynccontextmanager
async def far_away(url: str, round_trip: float) -> AsyncIterator[str]:
    """Yield a URL under which the server at `url` is `round_trip` seconds away."""
    parts = urlsplit(url)
    given = (str(parts.port), str(round_trip))
    command = (sys.executable, "-m", "benchmarks.far", *given)
    async with running(*command, stdout=PIPE) as process:
        assert process.stdout is not None
        port = (await process.stdout.readline()).decode().strip()
        login = parts.netloc.rpartition("@")[0]
        there = f"{login}@127.0.0.1:{port}" if login else f"127.0.0.1:{port}"
        yield parts._replace(netloc=there).geturl()


class _Way(asyncio.Protocol):
    """One direction of a connection: what comes in here goes out there, later."""

    def __init__(self, delay: float) -> None:
        self.other: _Way
        self._delay = delay
        self._under_way: deque[bytes] = deque()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to hand on; a NATS server speaks first, so nothing came before."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand on what came, when it is due."""
        self.other.send_later(data)

    def connection_lost(self, _error: Exception | None) -> None:
        """Close the other end, after all that is under way."""
        self.other.send_later(b"")

    def send_later(self, data: bytes) -> None:
        """Send `data` after the delay; nothing: close."""
        self._under_way.append(data)
        # In order: the loop calls what is due at different times one by one.
        asyncio.get_running_loop().call_later(self._delay, self._send)

    def _send(self) -> None:
        data = self._under_way.popleft()
        if self._transport is None or self._transport.is_closing():
            return
        if data:
            self._transport.write(data)
        else:
            self._transport.close()


async def serve(port: int, round_trip: float) -> None:
    """Listen, and hand on until the process is ended."""
    loop = asyncio.get_running_loop()
    connecting: set[asyncio.Task[object]] = set()

    def accept() -> _Way:
        near, far = _Way(round_trip / 2), _Way(round_trip / 2)
        near.other, far.other = far, near
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(lambda: far, "127.0.0.1", port)  # type: ignore[arg-type]
        )
        connecting.add(task)
        task.add_done_callback(connecting.discard)
        return near

    server = await loop.create_server(accept, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))

"""Real NATS servers and wires for the tests: started, stopped, killed, cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path

START_TIMEOUT = 10.0


class NatsServer:
    """A nats-server process with JetStream on a free loopback port.

    Restarted, it keeps its port and its store. `extra` is added to its configuration.
    """

    def __init__(self, binary: str, folder: Path, extra: str = "") -> None:
        self.binary = binary
        self.folder = folder
        self.extra = extra
        self.port = -1
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> NatsServer:
        """Start, and return once clients can connect."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / "store"}" }}\n'
            f'ports_file_dir: "{self.folder}"\n{self.extra}\n'
        )
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "-c", str(config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        name = f"{Path(self.binary).name}_{self.process.pid}.ports"
        self.port = self._read_port(self.folder / name)
        return self

    def _read_port(self, ports_file: Path) -> int:
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError, ValueError, LookupError):
                url: str = json.loads(ports_file.read_bytes())["nats"][0]
                return int(url.rpartition(":")[2])
            time.sleep(0.005)
        raise RuntimeError((self.folder / "server.log").read_text())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP and SIGCONT suspend and resume it."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        """Stop as an operator does, and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop as a power cut does, and wait."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(START_TIMEOUT)
            self.process = None


class Wire:
    """A TCP proxy to `port` that records what clients send, and can go dead."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.sent = b""
        """Everything clients sent, in order."""
        self.connections = 0
        self._alive = asyncio.Event()
        self._alive.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def open(self) -> Wire:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"nats://127.0.0.1:{port}"
        return self

    async def close(self) -> None:
        """Stop listening and cut everything."""
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def cut(self) -> None:
        """Reset the connections there are."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def go_dead(self) -> None:
        """Pass on nothing more, read nothing more, close nothing: a dead network."""
        self._alive.clear()

    def come_back(self) -> None:
        """Pass on what is sent again."""
        self._alive.set()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        upstream = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, upstream[1]]
        for source, sink, is_client in (
            (reader, upstream[1], True),
            (upstream[0], writer, False),
        ):
            task = asyncio.create_task(self._pump(source, sink, is_client=is_client))
            self._tasks.add(task)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        *,
        is_client: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                if is_client:
                    self.sent += chunk
                await self._alive.wait()
                sink.write(chunk)
                await sink.drain()
            sink.close()

"""Real NATS servers and wires for the tests: started, stopped, killed, cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bwpool import guard

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
        self.pid = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> NatsServer:
        """Start, and return once clients can connect."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob("*.ports"):
            stale.unlink()
        config = self.folder / "server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / "store"}" }}\n'
            f'ports_file_dir: "{self.folder}"\n{self.extra}\n'
        )
        with (self.folder / "server.log").open("ab") as log:
            # The guard sees to it that killed tests leave no servers behind.
            command = (sys.executable, "-I", "-S", guard.__file__)
            server = (str(Path(self.binary).resolve()), "-c", str(config))
            self.process = subprocess.Popen(
                command + server,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        self._read_ports()
        return self

    def configure(self, extra: str) -> None:
        """Replace what was added to the configuration, and have it read again."""
        config = self.folder / "server.conf"
        config.write_text(config.read_text().replace(self.extra, extra))
        self.extra = extra
        self.send(signal.SIGHUP)

    def _read_ports(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            for file in self.folder.glob("*.ports"):
                with contextlib.suppress(ValueError, LookupError):
                    url: str = json.loads(file.read_bytes())["nats"][0]
                    self.port = int(url.rpartition(":")[2])
                    self.pid = int(file.stem.rpartition("_")[2])
                    return
            time.sleep(0.005)
        raise RuntimeError((self.folder / "server.log").read_text())

    def send(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP and SIGCONT suspend and resume it."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Stop as an operator does, and wait."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Stop as a power cut does, and wait."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.send(number)
                self.send(signal.SIGCONT)
            self.process.communicate(timeout=START_TIMEOUT)
            self.process = None


def publish_raw(server: NatsServer, *lines: bytes) -> None:
    """Publish what no client would: bytes of the protocol, as they are."""
    with socket.create_connection(("127.0.0.1", server.port), START_TIMEOUT) as peer:
        stream = peer.makefile("rwb")
        options = b'{"verbose":false,"pedantic":false,"headers":true}'
        stream.write(b"CONNECT " + options + b"\r\n" + b"".join(lines) + b"PING\r\n")
        stream.flush()
        while (said := stream.readline()) != b"PONG\r\n":
            assert said.startswith(b"INFO"), said


class Wire:
    """A TCP proxy to `port` that records what clients send, and can go dead."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.sent = bytearray()
        """Everything clients sent, in order."""
        self.connections = 0
        self.garble: tuple[bytes, bytes] | None = None
        """What clients get instead of what, once: the same number of bytes."""
        self._gates: list[asyncio.Event] = []
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

    def say(self, line: bytes) -> None:
        """Say something to the clients, as if the server had."""
        for writer in self._writers[::2]:
            writer.write(line)

    def go_dead(self) -> None:
        """Let the connections there are hang: a dead network. New ones work."""
        for gate in self._gates:
            gate.clear()

    def come_back(self) -> None:
        """Let them go on where they hung."""
        for gate in self._gates:
            gate.set()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        upstream = await asyncio.open_connection("127.0.0.1", self.target)
        self._writers += [writer, upstream[1]]
        gate = asyncio.Event()
        gate.set()
        self._gates.append(gate)

        async def up() -> None:
            async for chunk in _chunks(reader, upstream[1]):
                self.sent += chunk
                await gate.wait()
                upstream[1].write(chunk)

        async def down() -> None:
            async for chunk in _chunks(upstream[0], writer):
                await gate.wait()
                writer.write(self._garbled(chunk))

        self._tasks |= {asyncio.create_task(up()), asyncio.create_task(down())}

    def _garbled(self, chunk: bytes) -> bytes:
        if self.garble is None or self.garble[0] not in chunk:
            return chunk
        (before, after), self.garble = self.garble, None
        return chunk.replace(before, after, 1)


async def _chunks(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter
) -> AsyncIterator[bytes]:
    """Yield what arrives, at the sink's pace; close the sink at the end."""
    with contextlib.suppress(OSError):
        while chunk := await source.read(65536):
            yield chunk
            await sink.drain()
    sink.close()

"""What `faults` needs to break things: servers, supervisors, a queue, and a count.

Every process here is started by us and ended by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from PIL import Image

from benchmarks import leash
from benchmarks.fault_supervisor import LOG
from bwpool import guard
from bwpool.embedded import find_server
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.dead import Failed, list_failed
from bwpool.queue.drift import SECOND
from bwpool.queue.facts import (
    ConsumerFacts,
    Depth,
    deaths_subject,
    read_depth,
    read_facts,
)
from bwpool.queue.messages import StoredMessage, messages_on
from bwpool.queue.publish import Message, publish_all
from bwpool.queue.topology import FAILURES_STREAM, Topology, wanted
from bwpool.settings import QueueSettings

NAMES = QueueSettings()
LOOK_EVERY = 0.02


class Server:
    """A nats-server on a fixed loopback port, which keeps its store."""

    def __init__(self, folder: Path, cluster: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.cluster = cluster
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start, and return when it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nserver_name: "{self.folder.name}"\n'
            f'jetstream {{ store_dir: "{self.folder / "store"}" }}\n{self.cluster}\n'
        )
        command = (find_server(), "-c", str(config), "-P", str(self.folder / "pid"))
        # The guard ends the server should we be killed.
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - returns at once
                (sys.executable, "-I", "-S", guard.__file__, *command),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(20):
            while not await _listens(self.port):
                await asyncio.sleep(LOOK_EVERY)

    async def end(self, number: signal.Signals) -> None:
        """End it by a signal, and wait."""
        process, self._process = self._process, None
        if process is not None:
            os.kill(int((self.folder / "pid").read_text()), number)
            await asyncio.to_thread(process.wait, 20)


class Supervisor:
    """A supervisor process, its complaints in a file."""

    def __init__(self, url: str, out: Path, **options: Any) -> None:
        self._url = url
        self._options = {"out": str(out), "procs": 4, "timeout": 2.0} | options
        self._log = out.parent / "supervisor.log"
        self.process: asyncio.subprocess.Process

    async def start(self) -> Supervisor:
        """Start, and return when it pulls."""
        await self.launch()
        assert self.process.stdout is not None
        async with asyncio.timeout(30):
            if await self.process.stdout.readline() != b"ready\n":
                raise RuntimeError(f"no supervisor: {self._log} says why")
        return self

    async def launch(self) -> None:
        """Start it without waiting."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", leash.__file__),
                *(sys.executable, "-m", "benchmarks.fault_supervisor", self._url),
                json.dumps(self._options),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self.process.returncode is None

    def converters(self) -> list[int]:
        """Return its converters' process ids."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if _is_converter(int(child))]

    async def kill(self) -> None:
        """End it as a crash does."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def drain(self) -> int:
        """End it in an orderly way; return its exit code."""
        self.process.terminate()
        return await self.process.wait()


def _is_converter(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@dataclass(slots=True)
class Rig:
    """A queue on a server, and a folder for what comes of it."""

    server: Server
    connection: Connection
    facts: ConsumerFacts
    folder: Path

    @property
    def out(self) -> Path:
        """Where outputs go."""
        return self.folder / "out"

    def supervisor(self, **options: Any) -> Supervisor:
        """Make a supervisor of this queue."""
        return Supervisor(self.server.url, self.out, **options)

    async def publish(self, payloads: Iterable[bytes]) -> None:
        """Put jobs into the queue."""
        messages = (Message(payload) for payload in payloads)
        async for _ in publish_all(self.connection, NAMES.subject, messages, -1):
            pass

    async def depth(self) -> Depth:
        """Ask for the queue's depth, as often as it takes."""
        return await insistently(lambda: read_depth(self.connection, self.facts))

    async def wait_until_empty(self, timeout: float) -> None:
        """Return when nothing waits and nothing is out, twice in a row."""
        async with asyncio.timeout(timeout):
            seen = 0
            while seen < 2:
                seen = seen + 1 if (await self.depth()).is_empty else 0
                await asyncio.sleep(0.2)

    async def failed(self) -> list[Failed]:
        """List the dead."""
        return [job async for job in list_failed(self.connection, NAMES)]

    async def messages(self) -> list[StoredMessage]:
        """Return what the stream still stores."""
        walk = messages_on(self.connection, NAMES.stream, NAMES.subject)
        return [message async for message in walk]

    async def deaths(self) -> set[int]:
        """Return the sequences whose MAX_DELIVERIES advisory was captured."""
        subject = deaths_subject(self.facts)
        walk = messages_on(self.connection, FAILURES_STREAM, subject)
        return {orjson.loads(m.payload)["stream_seq"] async for m in walk}

    def conversions(self) -> Counter[str]:
        """Count the conversions of each job."""
        log = self.folder / LOG
        return Counter(log.read_text().split() if log.exists() else ())

    def invalid_outputs(self, job_ids: Iterable[str]) -> list[str]:
        """Return the jobs without one whole picture as output."""
        return [i for i in job_ids if not _is_picture(self.out / f"{i}.jpg")]


def _is_picture(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError:
        return False
    return True


@contextlib.asynccontextmanager
async def rigged(
    folder: Path,
    servers: list[Server] | None = None,
    max_msg_bytes: int = 512,
    **consumer: Any,
) -> AsyncIterator[Rig]:
    """Start servers and make a queue, its consumer as told; end all afterwards."""
    servers = servers or [Server(folder / "server")]
    await asyncio.gather(*(server.start() for server in servers))
    try:
        endpoint = Endpoint(urls=tuple(server.url for server in servers))
        async with await insistently(lambda: Connection.open(endpoint)) as connection:
            topology = wanted(NAMES, max_msg_bytes=max_msg_bytes)
            await insistently(
                lambda: _make(connection, topology, len(servers), consumer)
            )
            facts = await insistently(lambda: read_facts(connection, NAMES))
            (folder / "out").mkdir(parents=True)
            yield Rig(servers[0], connection, facts, folder)
    finally:
        for server in servers:
            await server.end(signal.SIGKILL)


async def _make(
    connection: Connection, topology: Topology, replicas: int, fields: dict[str, Any]
) -> None:
    """Make streams and consumer of so many replicas."""
    assert topology.stream is not None
    assert topology.failures is not None
    for stream in (topology.stream, topology.failures):
        config = stream | {"num_replicas": replicas}
        await connection.api(f"STREAM.CREATE.{config['name']}", config, timeout=10)
    config = (topology.consumer or {}) | {"ack_wait": 5 * SECOND} | fields
    subject = config["filter_subject"]
    suffix = f"CONSUMER.CREATE.{NAMES.stream}.{NAMES.consumer}.{subject}"
    body = {"stream_name": NAMES.stream, "config": config, "action": ""}
    await connection.api(suffix, body, timeout=10)


async def insistently(request: Callable[[], Any], timeout: float = 60.0) -> Any:
    """Ask until there is an answer."""
    from bwpool.errors import QueueError

    async with asyncio.timeout(timeout):
        while True:
            try:
                return await request()
            except QueueError:
                await asyncio.sleep(0.1)


def resident(pid: int) -> int:
    """Return the memory of a process, in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True

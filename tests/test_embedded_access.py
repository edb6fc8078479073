"""A server of our own lets nobody else in, and says what is wrong with its store."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from queues import let_one_die

from bwpool.cli.setup import provide
from bwpool.embedded import Access, EmbeddedServer, find_running
from bwpool.errors import ConfigError, QueueError
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.topology import wanted
from bwpool.settings import QueueSettings

STRANGER = 54321
"""A user id that nobody has."""
NAMES = QueueSettings()


@pytest.fixture
def store() -> Iterator[Path]:
    """A folder that doesn't exist yet, in one that every user may write to."""
    with tempfile.TemporaryDirectory(prefix="bwpool-test-") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder) / ".bwpool"


def as_a_stranger(script: str) -> str:
    """Run a line of bash as another user; return what it printed."""
    run = subprocess.run(
        ["bash", "-c", script],
        user=STRANGER,
        group=STRANGER,
        extra_groups=[],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=10,
    )
    return run.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
async def test_another_user_gets_nowhere(binary, store) -> None:
    """Neither into the server, nor to its password, nor to anything else there."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        connect = (
            f"exec 3<>/dev/tcp/127.0.0.1/{server.port}; "
            r"printf 'CONNECT {}\r\nPING\r\n' >&3; timeout 5 cat <&3"
        )
        assert "Authorization Violation" in as_a_stranger(connect)
        assert "PONG" not in as_a_stranger(connect)

    for entry in ("password", "nats-server.conf", "nats-server.log", "lock"):
        said = as_a_stranger(f"cat {store}/{entry}")
        assert said.endswith("Permission denied\n"), said
    assert "Permission denied" in as_a_stranger(f"ls {store}")


async def test_no_client_gets_in_without_the_password(binary, store) -> None:
    """An address alone is not enough, and a guess is none."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        for url in (server.url, server.url.replace("//", "//bwpool:guess@")):
            with pytest.raises((QueueError, ConfigError)):
                await Connection.open(Endpoint(urls=(url,)))
        async with await Connection.open(server.endpoint) as connection:
            await connection.api("INFO")


async def test_the_password_is_in_files_of_ours_and_nowhere_else(binary, store) -> None:
    """No argument list, no environment, no log; files that only we can read."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        password = server.password_file.read_text()
        holders = [path for path in store.rglob("*") if path.is_file()]
        secret = [p.name for p in holders if password.encode() in p.read_bytes()]
        for pid in (server.pid, server._process.pid):
            for entry in ("cmdline", "environ"):
                assert password not in Path(f"/proc/{pid}/{entry}").read_text()
        assert password not in f"{server.url} {server.endpoint} {server.endpoint!r}"

    assert sorted(secret) == ["nats-server.conf", "password"]
    assert {stat.S_IMODE((store / name).stat().st_mode) for name in secret} == {0o600}
    assert stat.S_IMODE(store.stat().st_mode) == 0o700


async def test_a_server_gets_a_password_and_a_port_of_its_own(binary, store) -> None:
    """Those of the last start are good for nothing."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        first = server.endpoint
    async with await EmbeddedServer.start(store, binary=binary) as server:
        assert server.endpoint.credentials.password != first.credentials.password


async def test_password_and_port_stay_where_they_are_kept(binary, store) -> None:
    """From start to start; another port is kept from then on."""
    kept = Access(is_kept=True)
    urls = []
    for access in (kept, kept, Access(port=free_port(), is_kept=True), kept):
        async with await EmbeddedServer.start(
            store, access=access, binary=binary
        ) as server:
            urls.append(server.url_with_password)
            async with await Connection.open(server.endpoint) as connection:
                await connection.api("INFO")

    assert urls[0] == urls[1]
    assert urls[2] == urls[3] != urls[1]
    assert urls[2].rpartition(":")[0] == urls[1].rpartition(":")[0]


def free_port() -> int:
    """Find a port that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


async def test_a_taken_port_is_named(binary, store, server) -> None:
    """With the way to another one."""
    access = Access(port=server.port, is_kept=True)

    with pytest.raises(ConfigError, match=rf"port {server.port} is taken: .*--port"):
        await EmbeddedServer.start(store, access=access, binary=binary)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_is_refused(port) -> None:
    """Before anything is started."""
    with pytest.raises(ConfigError, match="--port"):
        Access(port=port)


async def test_a_running_server_is_found_by_its_folder(binary, store) -> None:
    """By whoever may read the password; one that has ended is not."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        assert find_running(store) == server.endpoint

    assert find_running(store) is None


@pytest.mark.parametrize("link", ["lock", "nats-server.log", "nats-server.conf"])
async def test_a_prepared_folder_costs_nobody_a_file(
    binary, store, tmp_path, link
) -> None:
    """Links in it are refused, and what they lead to stays as it was."""
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    store.mkdir()
    (store / link).symlink_to(precious)

    with pytest.raises(ConfigError, match=f"{link} in it is a link") as caught:
        await EmbeddedServer.start(store, binary=binary)

    assert str(store) in str(caught.value)
    assert precious.read_text() == "keep me"


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
async def test_a_folder_of_another_user_is_refused(binary, store) -> None:
    """He could read all that passes there."""
    as_a_stranger(f"mkdir -m 777 {store}")

    with pytest.raises(ConfigError, match=f"belongs to another user .{STRANGER}"):
        await EmbeddedServer.start(store, binary=binary)

    assert not list(store.iterdir())


async def test_a_store_made_under_a_loose_umask_goes_on(binary, store) -> None:
    """Its folder is closed to others, and what is stored is there."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        await provide(server.endpoint, wanted(NAMES))
        async with await Connection.open(server.endpoint) as connection:
            await connection.request(NAMES.subject, b"kept")
    store.chmod(0o775)
    (store / "nats-server.conf").chmod(0o664)
    (store / "nats-server.log").chmod(0o664)
    async with (
        await EmbeddedServer.start(store, binary=binary) as server,
        await Connection.open(server.endpoint) as connection,
    ):
        info = await connection.api(f"STREAM.INFO.{NAMES.stream}")

    assert info["state"]["messages"] == 1
    assert stat.S_IMODE(store.stat().st_mode) == 0o700
    assert stat.S_IMODE((store / "nats-server.conf").stat().st_mode) == 0o600


async def test_where_modes_do_nothing_the_password_is_elsewhere(
    binary, store, tmp_path, monkeypatch
) -> None:
    """In the user's runtime folder, and the server and its clients find it there."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    store.mkdir()
    store.chmod(0o755)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    async with await EmbeddedServer.start(store, binary=binary) as server:
        password = server.password_file.read_bytes()
        assert server.password_file.is_relative_to(runtime)
        assert find_running(store) == server.endpoint
        async with await Connection.open(server.endpoint) as connection:
            await connection.api("INFO")

    open_to_all = [path for path in store.rglob("*") if path.is_file()]
    assert open_to_all
    assert not [path for path in open_to_all if password in path.read_bytes()]


async def test_a_damaged_consumer_is_explained(binary, store) -> None:
    """With what to move away; then the jobs that are stored come again."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        await provide(server.endpoint, wanted(NAMES))
        async with await Connection.open(server.endpoint) as connection:
            await let_one_die(connection, NAMES)
    state = store / f"jetstream/$G/streams/{NAMES.stream}/obs/{NAMES.consumer}"
    halve(state / "o.dat")

    with pytest.raises(ConfigError, match="is damaged: move ") as caught:
        await EmbeddedServer.start(store, binary=binary)

    assert f"'{state}'" in str(caught.value)
    shutil.move(state, store.parent / "away")
    async with await EmbeddedServer.start(store, binary=binary) as server:
        await provide(server.endpoint, wanted(NAMES))
        async with await Connection.open(server.endpoint) as connection:
            info = await connection.api(
                f"CONSUMER.INFO.{NAMES.stream}.{NAMES.consumer}"
            )

    assert info["num_pending"] == 1


def halve(path: Path) -> None:
    """Cut a file in the middle, as a power cut does."""
    os.truncate(path, path.stat().st_size // 2)

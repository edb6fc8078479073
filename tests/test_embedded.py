"""The embedded server as a real process: ready, alone on its store, gone in time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest

from bwpool.embedded import EmbeddedServer, find_server
from bwpool.embedded import binary as program
from bwpool.embedded import server as process
from bwpool.errors import ConfigError
from bwpool.queue.connection import Connection

PARENT = """
import asyncio, sys
from pathlib import Path
from bwpool.embedded import EmbeddedServer

async def main():
    server = await EmbeddedServer.start(Path(sys.argv[1]), binary=sys.argv[2])
    print(server.pid, server.url, flush=True)
    await server.wait()

asyncio.run(main())
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder that doesn't exist yet, with a name that needs quoting."""
    return tmp_path / """it's a "$store" ä 100 %"""


async def stored(server: EmbeddedServer) -> int:
    """Count the messages in the stream X."""
    async with await Connection.open(server.endpoint) as connection:
        info = await connection.api("STREAM.INFO.X")
    return int(info["state"]["messages"])


async def gone(pid: int) -> None:
    """Wait until a process has ended that is not our child."""
    async with asyncio.timeout(12):
        with contextlib.suppress(ProcessLookupError):
            while True:
                os.kill(pid, 0)
                if is_zombie(pid):
                    return
                await asyncio.sleep(0.01)


def is_zombie(pid: int) -> bool:
    """Tell whether only somebody's wait for `pid` is missing."""
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().split(") ")[1][0] == "Z"


async def test_server_is_ready_and_keeps_its_messages(binary, store) -> None:
    """JetStream answers at once, and a second start finds what the first stored."""
    async with (
        await EmbeddedServer.start(store, binary=binary) as server,
        await Connection.open(server.endpoint) as connection,
    ):
        config = {"name": "X", "subjects": ["X"], "storage": "file"}
        await connection.api("STREAM.CREATE.X", config)
        await connection.request("X", b"kept")
    await gone(server.pid)
    async with await EmbeddedServer.start(store, binary=binary) as server:
        assert await stored(server) == 1

    assert "Server is ready" in (store / "nats-server.log").read_text()
    assert not list(store.glob("*.ports"))


async def test_server_listens_on_loopback_only(binary, store) -> None:
    """Nobody on the network reaches it."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        log = (store / "nats-server.log").read_text()

        assert server.url.startswith("nats://127.0.0.1:")
        assert "Listening for client connections on 127.0.0.1:" in log
        assert "0.0.0.0" not in log


async def test_second_start_names_folder_and_holder(binary, store) -> None:
    """A store serves one server; the other is told where and who."""
    async with await EmbeddedServer.start(store, binary=binary):
        with pytest.raises(ConfigError) as caught:
            await EmbeddedServer.start(store, binary=binary)

    assert str(store) in str(caught.value)
    assert f"pid {os.getpid()}" in str(caught.value)


async def test_server_ends_with_its_killed_parent(binary, store) -> None:
    """SIGKILL of the parent ends the server, and the store can be used at once."""
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PARENT, str(store), binary),
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    pid, _url = (await parent.stdout.readline()).split()
    parent.kill()
    await parent.wait()
    async with await EmbeddedServer.start(store, binary=binary) as server:
        await gone(int(pid))

        assert server.pid != int(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
async def test_server_ends_with_its_killed_guard(binary, store) -> None:
    """Nothing is left behind when the process in between is killed."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        os.kill(server._process.pid, signal.SIGKILL)
        await server.wait()
        await gone(server.pid)


async def test_wait_tells_when_the_server_ends(binary, store) -> None:
    """A server that dies by itself is noticed, and closing it is harmless."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        os.kill(server.pid, signal.SIGKILL)
        code = await asyncio.wait_for(server.wait(), 5)

        assert code != 0


async def test_server_survives_a_signal_to_our_group(binary, store) -> None:
    """Ctrl-C in a terminal reaches us, not the server we still need."""
    async with await EmbeddedServer.start(store, binary=binary) as server:
        assert os.getpgid(server.pid) != os.getpgid(0)
        assert os.getsid(server.pid) != os.getsid(0)


async def test_close_ends_a_server_that_hangs(binary, store, monkeypatch) -> None:
    """A stopped guard doesn't keep anybody waiting."""
    monkeypatch.setattr(process.guard, "GRACE", -1.8)
    server = await EmbeddedServer.start(store, binary=binary)
    os.killpg(server._process.pid, signal.SIGSTOP)
    await server.close()
    await gone(server.pid)


async def test_no_binary_says_what_to_install(monkeypatch) -> None:
    """Without the extra and without a server on the PATH, the way out is named."""

    def missing(_name: str) -> None:
        raise program.PackageNotFoundError

    monkeypatch.setattr(program, "distribution", missing)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(ConfigError, match=r"pip install 'bwpool\[embedded\]'"):
        find_server()


async def test_server_from_the_path_is_good_enough(monkeypatch, tmp_path) -> None:
    """Without the extra, a nats-server on the PATH is taken."""
    fake = tmp_path / "nats-server"
    fake.touch(mode=0o755)
    monkeypatch.setattr(
        program, "distribution", lambda _name: type("", (), {"files": ()})
    )
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server() == str(fake)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda store: store.write_text("a file"), "File exists"),
        (
            lambda store: store.mkdir() or (store / "jetstream").touch(),
            "not a directory",
        ),
        (
            lambda store: (store / "jetstream/$G/streams/X").mkdir(parents=True),
            "damaged, move it away",
        ),
        (lambda store: (store / "lock").mkdir(parents=True), "Is a directory"),
    ],
)
async def test_unusable_store_is_a_clear_error(binary, store, spoil, message) -> None:
    """A store that is a file, or holds rubbish, is named with the reason."""
    spoil(store)

    with pytest.raises(ConfigError, match=message) as caught:
        await EmbeddedServer.start(store, binary=binary)

    assert str(store) in str(caught.value)


async def test_unrunnable_binary_is_a_clear_error(store, tmp_path) -> None:
    """Something else by that name is refused."""
    fake = tmp_path / "nats-server"
    fake.write_text("#!/bin/sh\necho something else\n")
    fake.chmod(0o755)

    with pytest.raises(ConfigError, match="is not a nats-server"):
        await EmbeddedServer.start(store, binary=str(fake))
    with pytest.raises(ConfigError, match="can't run"):
        await EmbeddedServer.start(store, binary=str(tmp_path))

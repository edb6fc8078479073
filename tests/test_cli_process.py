"""The commands as processes: what signals and standard files do to them."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest
from processes import (
    bwpool,
    create_seed_topology,
    environment,
    eventually,
    program,
    publish,
    stored,
)

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def photo(tmp_path):
    """A picture to convert."""
    path = tmp_path / "color.jpg"
    path.write_bytes((EXAMPLES / "sunset.jpg").read_bytes())
    return path


@contextlib.asynccontextmanager
async def silent_server():
    """A place to connect to that never answers; yields its URL and its first guest."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        loop = asyncio.get_running_loop()
        guest = asyncio.ensure_future(loop.sock_accept(listening))
        yield f"nats://127.0.0.1:{listening.getsockname()[1]}", guest
        (await guest)[0].close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["cyclopts", "bwpool.cli.app", "bwpool.deliveries"])
async def test_a_signal_while_it_is_loaded(number, module, tmp_path):
    """One line and exit code 1, however early."""
    argv = (sys.executable, "-X", "importtime", "-m", "bwpool", "run", "--out", "out")
    async with program(*argv, cwd=tmp_path) as loading:
        while not (await loading.error_line()).endswith(f" {module}"):
            pass
        loading.stderr = b""
        loading.send(number)
        code = await loading.wait()

    said = [s for s in loading.stderr.decode().splitlines() if "import time" not in s]
    assert code == 1
    assert said == ["bwpool: interrupted"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("procs", [1, 12])
async def test_a_signal_while_converters_start(number, count, procs, tmp_path):
    """One line: no converter that crashes, no leaked semaphore, no traceback."""
    async with silent_server() as (url, guest):
        argv = ("run", "--procs", procs, "--server", url, "--out", "out")
        async with bwpool(*argv, cwd=tmp_path) as starting:
            await asyncio.wait_for(asyncio.shield(guest), 20)
            for _ in range(count):
                starting.send_group(number)
            code = await starting.wait()

    assert starting.stderr.decode().splitlines() == ["bwpool: interrupted"]
    assert code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("argv", [["setup"], ["submit", "a.jpg"], ["failed", "list"]])
async def test_a_signal_while_others_connect(number, argv, tmp_path):
    """Every command ends in the same way."""
    async with (
        silent_server() as (url, guest),
        bwpool(*argv, "--server", url, cwd=tmp_path) as command,
    ):
        await asyncio.wait_for(asyncio.shield(guest), 20)
        command.send(number)
        code = await command.wait()

    assert command.stderr.decode().splitlines() == ["bwpool: interrupted"]
    assert code == 1


def in_a_shell(line, **options):
    """Run a line of shell in which `bwpool` is the command."""
    define = f'bwpool() {{ exec {sys.executable} -m bwpool "$@"; }}; '
    return program("bash", "-c", define + line, **options)


WRITING = ["setup --json", "setup", "--help", "--version", "run --help"]


@pytest.mark.parametrize("command", WRITING)
async def test_a_reader_that_is_gone_ends_it_quietly(command, server, names):
    """As in `bwpool … | head`: exit code 1, and not a word."""
    line = f"bwpool {command} | exec 0<&-; exit ${{PIPESTATUS[0]}}"
    async with in_a_shell(line, env=environment(server, names)) as piped:
        code = await piped.wait()

    assert code == 1
    assert piped.stderr == b""


@pytest.mark.parametrize("command", WRITING)
async def test_a_full_disk_under_stdout_is_told_in_one_line(command, server, names):
    """Exit code 1, since what was asked for was not told."""
    line = f"bwpool {command} > /dev/full"
    async with in_a_shell(line, env=environment(server, names)) as full:
        code = await full.wait()

    assert full.stderr == b"bwpool: can't write to stdout: No space left on device\n"
    assert code == 1


@pytest.mark.parametrize("closed", ["0<&-", ">&-", "2>&-", "0<&- >&- 2>&-"])
async def test_closed_standard_files_do_no_harm(closed, photo, tmp_path):
    """What would have been printed there is not printed; all else goes on."""
    line = f"bwpool backfill {photo} --out out --procs 1 {closed}"
    async with in_a_shell(line, cwd=tmp_path) as closing:
        code = await closing.wait()

    assert code == 0, closing.stderr.decode()
    assert closing.stderr == b""
    assert (tmp_path / "out" / photo.name).exists()


async def test_a_supervisor_outlives_whoever_reads_its_log(
    server, connection, names, photo, tmp_path
):
    """`run 2>&1 | head -1` goes on converting."""
    await create_seed_topology(connection, names)
    env = environment(server, names) | {"OUTDIR": str(tmp_path / "out")}
    line = "bwpool run --procs 1 2> >(head -1 >&2)"
    async with in_a_shell(line, env=env) as run:
        await run.error_line()
        for i in range(3):
            await publish(connection, names, {"id": f"{i}", "image": photo.as_uri()})
        await eventually(partial(is_empty, connection, names))
        run.send(signal.SIGTERM)
        assert await run.wait() == 0

    assert {"0.jpg", "1.jpg", "2.jpg"} == {p.name for p in (tmp_path / "out").iterdir()}


async def is_empty(connection, names):
    return await stored(connection, names) == 0

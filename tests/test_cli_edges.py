"""The commands where their users slip, and where the world around them does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import pytest
from processes import (
    bwpool,
    create_seed_topology,
    eventually,
    program,
    publish,
    stored,
)

from bwpool.errors import ConfigError
from bwpool.settings import Amount, ConvertSettings, PoolSettings, RunSettings

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def photo(tmp_path):
    """A picture to convert."""
    path = tmp_path / "color.jpg"
    path.write_bytes((EXAMPLES / "sunset.jpg").read_bytes())
    return path


def environment(server, names):
    """The variables that name a server and a queue."""
    return {
        "NATS_URL": server.url,
        "BWPOOL_STREAM": names.stream,
        "BWPOOL_CONSUMER": names.consumer,
        "BWPOOL_SUBJECT": names.subject,
    }


async def refused(*argv, **options):
    """Run a command that is refused, and return the one line that says why."""
    async with bwpool(*argv, **options) as command:
        code = await command.wait()
    said = (command.stderr + command.stdout).decode()
    assert code == 2, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("command", ["run", "backfill"])
async def test_object_storage_is_refused(command, tmp_path):
    """No local folder named `s3:` is made."""
    (tmp_path / "in").mkdir()
    argv = [command, "in"] if command == "backfill" else [command]
    said = await refused(*argv, "--out", "s3://bucket/x", cwd=tmp_path)

    assert "s3://bucket/x: object storage is not part of this version" in said
    assert [tmp_path / "in"] == list(tmp_path.iterdir())


async def test_a_folder_that_is_not_utf_8_is_refused(tmp_path):
    """Its name could not be told in logs and reports."""
    said = await refused("run", "--out", os.fsdecode(b"caf\xe9"), cwd=tmp_path)

    assert r"caf\udce9: the output folder's name is not UTF-8" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("/proc", "can't write to /proc: "),
        ("/proc/nowhere", "can't make /proc/nowhere: "),
        ("file/inner", "can't make file/inner: Not a directory"),
        ("file", "can't make file: File exists"),
    ],
)
async def test_a_folder_that_can_not_be_written_to_is_named(out, reason, tmp_path):
    """By the name it was given, not by that of a temporary file."""
    (tmp_path / "file").touch()
    said = await refused("run", "--out", out, cwd=tmp_path)

    assert f"bwpool: {reason}" in said
    assert ".bwpool" not in said


OUT_OF_RANGE = [
    ("procs", "-1"),
    ("procs", "0"),
    ("quality", "0"),
    ("quality", "500"),
    ("timeout", "-1"),
    ("timeout", "0"),
    ("timeout", "nan"),
    ("drain_timeout", "-1"),
    ("drain_timeout", "inf"),
    ("max_pages", "0"),
    ("max_pixels", "1e999"),
    ("max_pixels", "0"),
    ("max_bytes", "1.2.3"),
    ("max_memory", "9e18"),
    ("recycle_jobs", "0"),
]


@pytest.mark.parametrize(("option", "value"), OUT_OF_RANGE)
async def test_a_value_out_of_range_is_refused(option, value, tmp_path):
    """In one line that names the option."""
    flag = "--" + option.replace("_", "-")
    said = await refused("run", "--out", "out", flag, value, cwd=tmp_path)

    (line,) = said.splitlines()
    assert flag in line
    assert value in line


@pytest.mark.parametrize(
    ("option", "value"), [("procs", "-1"), ("max_pixels", "1e999")]
)
async def test_a_variable_or_a_file_is_no_way_around_it(option, value, tmp_path):
    """BWPOOL_* and the configuration file are held to the same."""
    env = {f"BWPOOL_{option.upper()}": value}
    (tmp_path / "file.toml").write_text(f'{option} = "{value}"\n')
    by_variable = await refused("run", "--out", "out", cwd=tmp_path, env=env)
    by_file = await refused(
        "run", "--out", "out", "--config", "file.toml", cwd=tmp_path
    )

    for said in (by_variable, by_file):
        (line,) = said.splitlines()
        assert value in line
        assert option in line.lower().replace("-", "_")


@pytest.mark.parametrize(
    "make",
    [
        lambda: PoolSettings(procs=0),
        lambda: PoolSettings(timeout=float("nan")),
        lambda: RunSettings(drain_timeout=-1.0),
        lambda: ConvertSettings(quality=0),
        lambda: ConvertSettings(max_memory=Amount(0)),
    ],
)
def test_settings_hold_for_python_too(make):
    """Whoever makes them without the command line is told the same."""
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("text", ["1e999", "1.2.3", "9e19", "-1", "", "inf"])
def test_no_amount(text):
    """What is none is a ValueError, whatever float says of it."""
    with pytest.raises(ValueError, match="amount"):
        Amount(text)


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


async def test_a_context_flag_beats_a_server_variable(server, names, tmp_path):
    """Flags win over BWPOOL_*, whichever way they name the server."""
    context = tmp_path / "mine.json"
    context.write_text(f'{{"url": "{server.url}"}}')
    env = environment(server, names) | {"BWPOOL_SERVER": "nats://127.0.0.1:1"}
    async with bwpool("setup", "--context", context, env=env) as by_flag:
        assert await by_flag.wait() == 0, by_flag.stderr.decode()
    async with bwpool("setup", env=env) as by_variable:
        assert await by_variable.wait() == 1

    assert "nats://127.0.0.1:1" in by_variable.stderr.decode()


async def test_failures_are_looked_up_in_a_store_only_by_a_flag(
    server, connection, names, tmp_path
):
    """What names the output folder for good does not turn it away from the server."""
    await create_seed_topology(connection, names)
    (tmp_path / "bwpool.toml").write_text('out = "somewhere"\n')
    out = {"BWPOOL_OUT": "somewhere", "OUTDIR": "somewhere"}
    config = {"BWPOOL_CONFIG": str(tmp_path / "bwpool.toml")}
    for env in (out, config):
        async with bwpool(
            "failed", "list", env=environment(server, names) | env
        ) as run:
            assert await run.wait() == 0, run.stderr.decode()

        assert b"no job has failed" in run.stdout
    said = await refused("failed", "list", "--out", "nowhere", cwd=tmp_path)

    assert "nowhere" in said


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["nowhere.jpg"], "there is no file"),
        (["."], "is a folder, not a regular file"),
        (["color.jpg", "-o", "no/p.png"], "can't write no/p.png: No such file"),
        (["color.jpg", "-o", "p.xyz"], "can't write p.xyz: unknown file extension"),
        (["color.jpg", "-o", "color.jpg"], "would replace the picture"),
    ],
)
async def test_a_preview_that_can_not_be_is_explained(argv, reason, photo):
    """In one line, whether it can't be read or can't be written."""
    said = await refused("preview", *argv, cwd=photo.parent)

    (line,) = said.splitlines()
    assert reason in line

"""The commands, as their users run them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

import orjson
import psutil
import pytest
from PIL import Image
from processes import (
    bwpool,
    consumer_info,
    create_seed_topology,
    eventually,
    program,
    publish,
    publish_all,
    stored,
)
from queues import deliver

import bwpool as package

EXAMPLES = Path(__file__).parent.parent / "examples"


def naming(names):
    """The options that name a queue."""
    return (
        "--stream",
        names.stream,
        "--consumer",
        names.consumer,
        "--subject",
        names.subject,
    )


def environment(server, names, **more):
    """The same as variables, and the seed's way of naming the server."""
    return {
        "NATS_URL": server.url.removeprefix("nats://"),
        "BWPOOL_STREAM": names.stream,
        "BWPOOL_CONSUMER": names.consumer,
        "BWPOOL_SUBJECT": names.subject,
        **more,
    }


@pytest.fixture
def photo(tmp_path):
    """A picture to convert."""
    path = tmp_path / "in" / "color.jpg"
    path.parent.mkdir()
    with Image.open(EXAMPLES / "sunset.jpg") as picture:
        picture.resize((240, 160)).save(path)
    return path


async def test_the_seeds_flow(server, connection, names, photo, tmp_path):
    """200 jobs by request, a burst, 200 pictures and 200 advisories; all gone."""
    out = tmp_path / "out"
    await create_seed_topology(connection, names)
    told = []

    async def receive(msg):
        told.append((msg.subject, msg.data))

    await connection.client.subscribe("advisory.*", cb=receive)
    ids = [f"{n:032x}" for n in range(200)]
    jobs = [
        {"id": i, "image": photo.as_uri(), "advisory": f"advisory.{i}"} for i in ids
    ]
    await publish_all(connection, names, jobs)
    env = environment(server, names, OUTDIR=str(out))
    async with bwpool("--procs", "2", "--burst", env=env) as burst:
        assert await burst.wait() == 0, burst.stderr.decode()
    await connection.client.flush()

    info = await consumer_info(connection, names)
    assert {f"{i}.jpg" for i in ids} == {path.name for path in out.iterdir()}
    assert sorted((f"advisory.{i}", b'{"id":"%s"}' % i.encode()) for i in ids) == (
        sorted(told)
    )
    assert await stored(connection, names) == 0
    assert info["delivered"]["consumer_seq"] == 200
    with Image.open(out / f"{ids[0]}.jpg") as picture:
        assert (picture.mode, picture.size) == ("L", (240, 160))


async def test_no_server_is_explained_in_one_line(tmp_path):
    """Exit code 1 within five seconds, without a traceback, and what to do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    async with bwpool("run", "--server", url, "--out", tmp_path) as run:
        code = await run.wait()

    (line,) = run.stderr.decode().splitlines()
    assert code == 1
    assert time.monotonic() - started < 5
    assert url in line
    assert "--server" in line


async def test_a_missing_topology_is_explained(server, connection, names, tmp_path):
    """Exit code 1, and the command that creates it."""
    options = ("--server", server.url, *naming(names), "--out", tmp_path)
    async with bwpool("run", *options) as run:
        assert await run.wait() == 1

    assert "bwpool setup" in run.stderr.decode()


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["run", "--nonsense"], "--nonsense"),
        (["run", "--procs", "many"], "--procs"),
        (["run", "--max-pixels", "huge"], "--max-pixels"),
        (["run"], "--out"),
        (["backfill", "--out", "out"], "name files or folders"),
        (["backfill", "missing", "--out", "out"], "missing"),
        (["submit"], "name images"),
        (["run", "--out", "out", "--config", "missing.toml"], "missing.toml"),
        (["run", "--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
async def test_misuse_is_exit_code_2(argv, word, tmp_path):
    """What was wrong is named, without a traceback."""
    async with bwpool(*argv, cwd=tmp_path) as command:
        code = await command.wait()

    said = (command.stderr + command.stdout).decode()
    assert code == 2, said
    assert word in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "command",
    [
        "",
        "run",
        "setup",
        "submit",
        "backfill",
        "failed list",
        "failed show",
        "failed requeue",
        "failed drop",
        "events",
        "dev",
    ],
)
async def test_every_command_has_help(command):
    """With an example, on stdout."""
    async with bwpool(*command.split(), "--help") as asking:
        assert await asking.wait() == 0

    said = asking.stdout.decode()
    assert "Usage: bwpool" in said
    if command:
        assert "Example: " in said


async def test_the_version_is_told():
    """`--version` prints it."""
    async with bwpool("--version") as asking:
        assert await asking.wait() == 0

    assert package.__version__ == asking.stdout.decode().strip()


async def test_options_come_from_flags_variables_and_a_file(
    server, connection, names, photo, tmp_path
):
    """Flags win over BWPOOL_*, that over OUTDIR, that over the file."""
    await create_seed_topology(connection, names)
    file = tmp_path / "bwpool.toml"
    file.write_text('out = "by-file"\nformat = "png"\nprocs = 1\nburst = true\n')
    for given, expected in [
        ({}, "by-file"),
        ({"OUTDIR": "by-outdir"}, "by-outdir"),
        ({"OUTDIR": "by-outdir", "BWPOOL_OUT": "by-variable"}, "by-variable"),
    ]:
        await publish(connection, names, {"id": "a", "image": photo.as_uri()})
        env = environment(server, names, **given)
        async with bwpool("--config", file, env=env, cwd=tmp_path) as run:
            assert await run.wait() == 0, run.stderr.decode()

        assert (tmp_path / expected / "a.png").exists()


async def test_an_unknown_option_in_a_file_is_named(tmp_path):
    """A misspelt option is not silently ignored."""
    (tmp_path / "bwpool.toml").write_text("prox = 1\n")
    async with bwpool(
        "run", "--out", "out", "--config", "bwpool.toml", cwd=tmp_path
    ) as run:
        assert await run.wait() == 2

    assert "prox" in run.stderr.decode()


async def test_the_supervisor_never_loads_the_image_libraries(
    server, connection, names, tmp_path
):
    """Neither as modules nor as mapped files; and sixteen slots stay small."""
    await create_seed_topology(connection, names)
    env = environment(server, names, OUTDIR=str(tmp_path / "out"))
    started = time.monotonic()
    async with bwpool("--procs", "16", "--log-format", "json", env=env) as run:
        while "supervisor.ready" not in await run.error_line():
            pass
        elapsed = time.monotonic() - started
        process = psutil.Process(run.pid)
        mapped = {Path(m.path).name for m in process.memory_maps()}
        children = [
            child
            for child in process.children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert elapsed < 20  # two seconds on an idle machine, more beside other tests
        assert not [name for name in mapped if "vips" in name or "_imaging" in name]
        assert process.memory_info().rss < 100e6
        assert len(children) == 16
        assert max(child.memory_full_info().uss for child in children) < 60e6
        run.send(signal.SIGTERM)
        assert await run.wait() == 0, run.stderr.decode()


async def test_the_command_line_imports_no_image_library():
    """What every command imports."""
    code = (
        "import sys, bwpool.cli.app; "
        "print([m for m in ('pyvips', 'PIL', '_cffi_backend') if m in sys.modules])"
    )
    async with program(sys.executable, "-c", code) as child:
        assert await child.wait() == 0

    assert child.stdout.decode().strip() == "[]"


async def test_setup_creates_shows_and_repairs(server, connection, names):
    """Once to create, again to find nothing, a repair in place, and a blocked drift."""
    options = ("--server", server.url, *naming(names))
    codes = []
    async with bwpool("setup", "--dry-run", *options) as run:
        codes.append(await run.wait())
    async with bwpool("setup", *options) as run:
        codes.append(await run.wait())
    async with bwpool("setup", "--dry-run", *options) as again:
        codes.append(await again.wait())
    assert codes == [3, 0, 0]
    assert "as it should be" in again.stdout.decode()

    config = (await consumer_info(connection, names))["config"]
    config.pop("metadata", None)
    body = {"stream_name": names.stream, "config": config | {"ack_wait": 5_000_000_000}}
    await connection.api(
        f"CONSUMER.CREATE.{names.stream}.{names.consumer}.{names.subject}", body
    )
    async with bwpool("setup", *options) as run:
        assert await run.wait() == 0
    assert "ack_wait" in run.stdout.decode()
    config = (await consumer_info(connection, names))["config"]
    assert config["ack_wait"] == 30_000_000_000


async def test_setup_leaves_what_it_can_not_repair(server, connection, names):
    """Exit code 3, and the stream is as it was."""
    await connection.api(
        f"STREAM.CREATE.{names.stream}",
        {
            "name": names.stream,
            "subjects": [f"{names.stream}.>"],
            "retention": "limits",
            "storage": "file",
        },
    )
    options = ("--server", server.url, *naming(names))
    async with bwpool("setup", *options) as run:
        assert await run.wait() == 3

    info = await connection.api(f"STREAM.INFO.{names.stream}")
    assert info["config"]["retention"] == "limits"
    assert "retention" in run.stdout.decode()


async def submit_json(*argv, env):
    """Submit with `--json`, one image good and one bad; return how each ended."""
    async with bwpool("submit", *argv, "--json", env=env) as submit:
        assert await submit.wait() == 1, submit.stderr.decode()
    ends = [orjson.loads(line) for line in submit.stdout.splitlines()]
    assert [sorted(end) for end in ends] == [
        ["id", "image", "kind", "outcome", "reason", "seq"]
    ] * len(ends)
    return {end["image"]: (end["outcome"], end["kind"]) for end in ends}


async def test_submit_waits_for_the_picture(server, connection, names, photo, tmp_path):
    """The sequence is printed, the picture is there, and a bad one is exit code 1."""
    env = environment(server, names, OUTDIR=str(tmp_path / "out"))
    async with bwpool("run", "--setup", "--procs", "1", env=env) as run:
        await run.error_line()
        async with bwpool("submit", photo, "--id", "a/b", "--wait", env=env) as submit:
            assert await submit.wait() == 0, submit.stderr.decode()
        assert f"1 a/b {photo.as_uri()}" == submit.stdout.decode().strip()
        assert (tmp_path / "out/a/b.jpg").exists()

        async with bwpool("submit", __file__, "--wait", env=env) as submit:
            assert await submit.wait() == 1, submit.stderr.decode()
        assert "bad-image" in submit.stderr.decode()

        told = await submit_json(photo, __file__, "--wait", env=env)
        assert told[photo.as_uri()] == ("converted", None)
        assert told[Path(__file__).as_uri()] == ("failed", "bad-image")

        async with bwpool("failed", "drop", "4", env=env) as drop:
            assert await drop.wait() == 0, drop.stderr.decode()
        async with bwpool("failed", "list", "--json", env=env) as listing:
            assert await listing.wait() == 0, listing.stderr.decode()
        (row,) = map(orjson.loads, listing.stdout.splitlines())
        assert {"seq", "id", "image", "kind", "reason", "attempts", "time"} == set(row)
        assert (row["seq"], row["kind"], row["attempts"]) == (2, "bad-image", 5)
        run.send(signal.SIGTERM)
        assert await run.wait() == 0


async def test_submit_prints_json_and_takes_options(server, connection, names, photo):
    """Method, format and quality are the job's own."""
    await create_seed_topology(connection, names)
    env = environment(server, names)
    options = ("--method", "otsu", "--format", "png", "--quality", "9", "--json")
    async with bwpool("submit", photo, *options, env=env) as submit:
        assert await submit.wait() == 0, submit.stderr.decode()

    told = orjson.loads(submit.stdout)
    assert (told["method"], told["format"], told["quality"]) == ("otsu", "png", 9)
    assert len(told["id"]) == 32
    assert await stored(connection, names) == 1


async def test_dev_runs_a_server_until_it_is_told(tmp_path):
    """It prints its URL, and a supervisor and a job find each other there."""
    async with bwpool("dev", cwd=tmp_path) as dev:
        url = await dev.line()
        async with bwpool(
            "run", "--burst", "--server", url, "--out", tmp_path / "out"
        ) as run:
            assert await run.wait() == 0, run.stderr.decode()
        dev.send(signal.SIGINT)
        assert await dev.wait() == 0


async def run_backfill(*argv, cwd, code=0, **options):
    """Run a backfill and return its summary."""
    async with bwpool("backfill", *argv, "--json", cwd=cwd, **options) as backfill:
        ended = await backfill.wait()
    assert code == ended, backfill.stderr.decode()
    return json.loads(backfill.stdout)


def counts(summary):
    """Inputs, and what became of them."""
    return tuple(summary[k] for k in ("inputs", "converted", "skipped", "failed"))


async def test_backfill_converts_the_examples_and_resumes(tmp_path):
    """The README's command; a second run skips, and does what is new or newer."""
    archive = tmp_path / "archive"
    (archive / "deep").mkdir(parents=True)
    for example in EXAMPLES.iterdir():
        if example.suffix != ".py":
            (archive / "deep" / example.name).write_bytes(example.read_bytes())
    first = await run_backfill("archive", "--out", "out", cwd=tmp_path)
    second = await run_backfill("archive", "--out", "out", cwd=tmp_path)
    later = time.time() + 10
    os.utime(archive / "deep/sunset.jpg", (later, later))
    third = await run_backfill("archive", "--out", "out", cwd=tmp_path)
    forced = await run_backfill("archive", "--out", "out", "--force", cwd=tmp_path)

    assert counts(first) == (4, 4, 0, 0)
    assert counts(second) == (4, 0, 4, 0)
    assert counts(third) == (4, 1, 3, 0)
    assert counts(forced) == (4, 4, 0, 0)
    assert {"page.png", "sunset.jpg", "still-life.jpg", "drawing.webp"} == {
        path.name for path in (tmp_path / "out/deep").iterdir()
    }
    assert first["bytes_in"] > 400_000


async def test_backfill_tells_what_failed_and_tries_it_again(photo, tmp_path):
    """Exit code 1 and the reason; when the picture is mended, a second run does it."""
    broken = photo.parent / "broken.jpg"
    broken.write_text("no picture")
    async with bwpool("backfill", photo.parent, "--out", "out", cwd=tmp_path) as first:
        assert await first.wait() == 1
    assert f"{broken}: bad-image" in first.stdout.decode()
    async with bwpool("failed", "list", "--out", "out", cwd=tmp_path) as listing:
        assert await listing.wait() == 0, listing.stderr.decode()
    assert "bad-image" in listing.stdout.decode()

    broken.write_bytes(photo.read_bytes())
    second = await run_backfill(photo.parent, "--out", "out", cwd=tmp_path)
    assert counts(second) == (2, 1, 1, 0)


async def test_backfill_goes_on_where_it_was_killed(photo, tmp_path):
    """A killed run leaves nothing behind that a second one does not finish at once."""
    archive = tmp_path / "archive"
    archive.mkdir()
    with Image.open(photo) as picture:
        big = picture.resize((2400, 1600))
    for i in range(40):
        big.save(archive / f"{i}.jpg")
    out = tmp_path / "out"
    async with bwpool("backfill", "archive", "--out", "out", cwd=tmp_path) as killed:
        await eventually(lambda: some_outputs(out, 3))
        await killed.kill()
    left = 40 - len(list(out.glob("*.jpg")))
    started = time.monotonic()
    second = await run_backfill("archive", "--out", "out", cwd=tmp_path)

    assert left > 0
    assert (40, left, 40 - left, 0) == counts(second)
    assert time.monotonic() - started < 25  # less than the ack wait


async def exists(path):
    return path.exists()


async def some_outputs(out, count):
    return out.exists() and len(list(out.glob("*.jpg"))) >= count


async def test_backfill_does_not_go_by_a_selected_context(photo, tmp_path):
    """Trying it must not hit the server that the `nats` command line would use."""
    context = tmp_path / "config/nats/context"
    context.mkdir(parents=True)
    (context / "production.json").write_text('{"url": "nats://127.0.0.1:1"}')
    (context.parent / "context.txt").write_text("production")
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    summary = await run_backfill(photo, "--out", "out", cwd=tmp_path, env=env)

    assert counts(summary) == (1, 1, 0, 0)


async def test_backfill_refuses_to_replace_its_sources(photo):
    """Found before anything runs: exit code 2, the source untouched."""
    before = photo.read_bytes()
    async with bwpool("backfill", photo.parent, "--out", photo.parent) as backfill:
        assert await backfill.wait() == 2

    assert "replace" in backfill.stderr.decode()
    assert before == photo.read_bytes()


async def test_an_interrupted_backfill_is_exit_code_1(tmp_path, photo):
    """What is left is told, and the same command goes on."""
    archive = tmp_path / "archive"
    archive.mkdir()
    with Image.open(photo) as picture:
        big = picture.resize((3000, 2000))
    for i in range(60):
        big.save(archive / f"{i}.jpg")
    async with bwpool("backfill", "archive", "--out", "out", cwd=tmp_path) as backfill:
        await eventually(lambda: some_outputs(tmp_path / "out", 2))
        backfill.send_group(signal.SIGINT)
        assert await backfill.wait() == 1

    said = backfill.stdout.decode()
    assert "left: the same command goes on" in said
    assert "Traceback" not in said + backfill.stderr.decode()


async def say_backfill(*argv, cwd, code=0, **options):
    """Run a backfill and return what it prints for people."""
    async with bwpool("backfill", *argv, cwd=cwd, **options) as backfill:
        ended = await backfill.wait()
    assert code == ended, backfill.stdout + backfill.stderr
    assert b"Traceback" not in backfill.stderr
    return backfill.stdout.decode()


async def test_backfill_does_not_take_what_is_left_for_its_own(photo, tmp_path):
    """A job left by another folder has the same id, and another image."""
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
    (tmp_path / "A/x.jpg").write_text("no picture")
    (tmp_path / "B/x.jpg").write_bytes(photo.read_bytes())
    first = await run_backfill("A", "--out", "out", cwd=tmp_path, code=1)
    second = await run_backfill("B", "--out", "out", cwd=tmp_path)

    assert counts(first) == (1, 0, 0, 1)
    assert counts(second) == (1, 1, 0, 0)


async def test_backfill_leaves_the_dead_of_other_inputs_alone(photo, tmp_path):
    """A source that was removed since costs later runs nothing, their code neither."""
    gone = photo.parent / "gone.jpg"
    gone.write_text("no picture")
    await run_backfill(photo.parent, "--out", "out", cwd=tmp_path, code=1)
    gone.unlink()
    started = time.monotonic()
    second = await run_backfill(photo.parent, "--out", "out", "--force", cwd=tmp_path)
    third = await run_backfill(photo.parent, "--out", "out", cwd=tmp_path)

    assert counts(second) == (1, 1, 0, 0)
    assert counts(third) == (1, 0, 1, 0)
    assert time.monotonic() - started < 12  # two starts, no attempt at what is gone


async def test_backfill_reads_a_list_from_standard_input(photo, tmp_path):
    """`-` is a source, wherever it stands, and a name need not be UTF-8."""
    odd = os.fsencode(photo.parent) + b"/\xff.jpg"
    Path(os.fsdecode(odd)).write_bytes(photo.read_bytes())
    lines = os.fsencode(photo) + b"\n" + odd + b"\n"
    for argv in (("-", "--out", "a"), ("--out", "b", "-")):
        summary = await run_backfill(*argv, cwd=tmp_path, stdin=lines, code=1)
        assert counts(summary) == (2, 1, 0, 1)


@pytest.mark.parametrize("typo", ["--forec", "-x", "--metod=otsu"])
async def test_backfill_catches_misspelt_options(photo, tmp_path, typo):
    """They are no sources, though `-` is one."""
    async with bwpool("backfill", photo, "--out", "out", typo, cwd=tmp_path) as run:
        assert await run.wait() == 2

    assert f"no option {typo}" in run.stderr.decode()


async def test_backfill_waiting_for_a_list_can_be_interrupted(tmp_path):
    """Ctrl-C ends it though nothing has come yet."""
    argv = (sys.executable, "-m", "bwpool", "backfill", "-", "--out", tmp_path / "out")
    async with program(*argv, stdin=b"", is_open=True) as backfill:
        # The output folder is made right before the list is read.
        await eventually(lambda: exists(tmp_path / "out"))
        backfill.send_group(signal.SIGINT)
        assert await backfill.wait(10) == 1

    assert b"Traceback" not in backfill.stderr


async def test_backfill_ends_with_its_server(photo, tmp_path):
    """A server that was killed is told with its log, and what is left is counted."""
    archive = tmp_path / "archive"
    archive.mkdir()
    with Image.open(photo) as picture:
        big = picture.resize((3000, 2000))
    for i in range(60):
        big.save(archive / f"{i}.jpg")
    async with bwpool("backfill", "archive", "--out", "out", cwd=tmp_path) as backfill:
        await eventually(lambda: some_outputs(tmp_path / "out", 2))
        (server,) = [
            process
            for process in psutil.Process(backfill.pid).children(recursive=True)
            if process.name() == "nats-server"
        ]
        server.kill()
        assert await backfill.wait(20) == 1

    assert "nats-server.log" in backfill.stderr.decode()
    assert "left: the same command goes on" in backfill.stdout.decode()
    assert "Traceback" not in backfill.stderr.decode()


async def test_backfill_survives_a_shared_server_that_is_away(
    new_server, photo, tmp_path
):
    """Six seconds without it, and every picture is accounted for."""
    server = new_server()
    with Image.open(photo) as picture:
        big = picture.resize((3000, 2000))
    for i in range(40):
        big.save(photo.parent / f"{i}.jpg")
    async with bwpool("setup", "--server", server.url) as setup:
        assert await setup.wait() == 0
    argv = ("backfill", photo.parent, "--out", "out", "--server", server.url, "--json")
    async with bwpool(*argv, "--procs", "1", cwd=tmp_path) as backfill:
        await eventually(lambda: some_outputs(tmp_path / "out", 1))
        server.stop()
        assert len(list((tmp_path / "out").iterdir())) < 41
        await asyncio.sleep(6)  # longer than a request waits: that is the test
        server.start()
        assert await backfill.wait() == 0, backfill.stderr.decode()

    assert counts(json.loads(backfill.stdout)) == (41, 41, 0, 0)


async def test_backfill_reports_any_name(photo, tmp_path):
    """Names that are no text, or would steer a terminal, are shown escaped."""
    for name in (b"\xff.jpg", b"line\nbreak.jpg", b"\x1b[31m.jpg"):
        Path(os.fsdecode(os.fsencode(photo.parent) + b"/" + name)).write_bytes(b"")
    env = {"PYTHONIOENCODING": "utf-8:strict"}
    said = await say_backfill(
        photo.parent, "--out", "out", cwd=tmp_path, code=1, env=env
    )
    ascii_only = await say_backfill(
        photo, "--out", "out2", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"}
    )

    assert "\\udcff.jpg: invalid-job" in said
    assert "line\\nbreak.jpg: invalid-job" in said
    assert "\\x1b[31m.jpg: invalid-job" in said
    assert "tries" not in said  # the same names again can't help
    assert "1 picture converted" in ascii_only


async def test_backfill_of_nothing_says_so(tmp_path):
    """A folder without pictures is no failure."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").touch()
    (tmp_path / "empty/link").symlink_to("/")
    said = await say_backfill("empty", "--out", "out", cwd=tmp_path)

    assert said.splitlines() == [
        "no pictures in empty",
        "1 file left alone, no pictures",
        "1 folder left alone, only linked to",
    ]


async def test_backfill_beside_its_sources_twice(photo):
    """Its own outputs are no inputs of the second run."""
    options = (photo.parent, "--out", photo.parent, "--format", "tiff")
    first = await run_backfill(*options, cwd=photo.parent)
    second = await run_backfill(*options, cwd=photo.parent)

    assert counts(first) == (1, 1, 0, 0)
    assert counts(second) == (1, 0, 1, 0)


async def test_backfill_tells_what_stopped_the_filling(
    server, connection, names, photo, tmp_path
):
    """A shared stream that is full: what is under way is finished or handed back."""
    await create_seed_topology(connection, names)
    config = (await connection.api(f"STREAM.INFO.{names.stream}"))["config"]
    full = config | {"max_msgs": 1, "discard": "new"}
    await connection.api(f"STREAM.UPDATE.{names.stream}", full)
    for i in range(30):
        (photo.parent / f"{i}.jpg").write_bytes(photo.read_bytes())
    env = environment(server, names)
    async with bwpool(
        "backfill", photo.parent, "--out", "out", cwd=tmp_path, env=env
    ) as backfill:
        assert await backfill.wait() == 1

    said = backfill.stderr.decode()
    assert "maximum messages exceeded" in said
    assert "Traceback" not in said
    assert "left: the same command goes on" in backfill.stdout.decode()
    if await stored(connection, names):
        await deliver(connection, names)  # at once, since nobody holds it

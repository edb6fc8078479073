"""Backfills on a server that others use as well: a queue of their own, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path

import pytest
from PIL import Image
from processes import (
    SEED_STREAM,
    bwpool,
    create_seed_topology,
    environment,
    eventually,
    stored,
)

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def archive(tmp_path):
    """Ten small pictures."""
    folder = tmp_path / "archive"
    folder.mkdir()
    with Image.open(EXAMPLES / "sunset.jpg") as picture:
        small = picture.resize((240, 160))
    for i in range(10):
        small.save(folder / f"{i}.jpg")
    return folder


@contextlib.asynccontextmanager
async def supervisors(count, folder, env):
    """Others on the same stream, each with an output folder of its own."""
    async with contextlib.AsyncExitStack() as stack:
        started = []
        for i in range(count):
            argv = ("run", "--out", folder / f"other-{i}", "--procs", "1")
            started.append(await stack.enter_async_context(bwpool(*argv, env=env)))
        for each in started:
            await each.error_line()
        yield
        for each in started:
            each.send(signal.SIGTERM)
        for each in started:
            await each.wait()


async def consumers(connection, names):
    """The names of the stream's consumers."""
    answer = await connection.api(f"CONSUMER.NAMES.{names.stream}")
    return answer["consumers"]


def names_in(folder):
    """What was converted into a folder."""
    return {path.name for path in folder.glob("[!.]*")}


def levels(path):
    """Whether an output is black and white, or gray."""
    with Image.open(path) as picture:
        return len(set(picture.convert("L").tobytes()))


async def test_backfills_and_supervisors_keep_apart(
    server, connection, names, archive, tmp_path
):
    """The same ids, other folders and methods: each gets its own, as it asked for."""
    await create_seed_topology(connection, names)
    env = environment(server, names)
    everything = {f"{i}.png" for i in range(10)}
    asked = ("--json", "--format", "png", "--procs", "1")
    a, b = tmp_path / "a", tmp_path / "b"
    async with (
        supervisors(2, tmp_path, env),
        bwpool("backfill", archive, "--out", a, *asked, env=env) as one,
        bwpool(
            "backfill", archive, "--out", b, "--method", "gray", *asked, env=env
        ) as other,
    ):
        codes = await asyncio.gather(one.wait(), other.wait())

    assert codes == [0, 0], one.stderr + other.stderr
    for run in (one, other):
        assert json.loads(run.stdout)["converted"] == 10
    assert names_in(a) == names_in(b) == everything
    assert {levels(a / name) for name in everything} == {2}
    assert all(levels(b / name) > 2 for name in everything)
    assert not any(names_in(tmp_path / f"other-{i}") for i in range(2))
    assert await stored(connection, names) == 0
    assert await consumers(connection, names) == [names.consumer]
    assert not (a / ".bwpool/run").exists()


async def test_a_killed_backfill_goes_on_in_its_queue(
    server, connection, names, archive, tmp_path
):
    """The second run finishes what was left, and nothing stays behind."""
    await create_seed_topology(connection, names)
    env = environment(server, names)
    with Image.open(archive / "0.jpg") as picture:
        big = picture.resize((3000, 2000))
    for i in range(30):
        big.save(archive / f"big-{i}.jpg")
    out = tmp_path / "out"
    argv = ("backfill", archive, "--out", out, "--json", "--procs", "2")

    async def has_begun():
        return out.exists() and len(names_in(out)) >= 12

    async with bwpool(*argv, env=env) as killed:
        await eventually(has_begun)
        await killed.kill()
    left = await consumers(connection, names)
    async with bwpool(*argv, env=env) as second:
        assert await second.wait() == 0, second.stderr

    assert len(left) == 2
    summary = json.loads(second.stdout)
    assert summary["skipped"] >= 12
    assert summary["converted"] + summary["skipped"] == 40
    assert len(names_in(out)) == 40
    assert not list(out.glob(".bwpool-*"))
    assert await consumers(connection, names) == [names.consumer]
    assert await stored(connection, names) == 0


async def test_failed_jobs_are_accounted_for_and_removed(
    server, connection, names, archive, tmp_path
):
    """Exit code 1 and the reason; the second run tries them again."""
    await create_seed_topology(connection, names)
    env = environment(server, names)
    bad = archive / "bad.jpg"
    bad.write_text("no picture")
    argv = ("backfill", archive, "--out", tmp_path / "out", "--json")
    async with bwpool(*argv, env=env) as first:
        assert await first.wait() == 1
    left = await stored(connection, names)
    bad.write_bytes((archive / "0.jpg").read_bytes())
    async with bwpool(*argv, env=env) as second:
        assert await second.wait() == 0, second.stderr

    summary = json.loads(first.stdout)
    assert (summary["converted"], summary["failed"]) == (10, 1)
    assert summary["kinds"] == {"bad-image": 1}
    assert left == 0
    assert json.loads(second.stdout)["converted"] == 1


@pytest.mark.parametrize(
    ("subjects", "filter_subject", "reason"),
    [
        ("{stream}.>", "{stream}.>", "takes"),
        ("{stream}.>", "", "no filter"),
        ("{stream}.*", "{subject}", "doesn't store"),
    ],
)
async def test_no_room_for_a_queue_is_explained(
    server, connection, names, archive, tmp_path, subjects, filter_subject, reason
):
    """Exit code 1 and the way out, before anything is published."""
    known = {"stream": names.stream, "subject": names.subject}
    stream = SEED_STREAM | {
        "name": names.stream,
        "subjects": [subjects.format(**known)],
    }
    await connection.api(f"STREAM.CREATE.{names.stream}", stream)
    config = {"durable_name": names.consumer, "ack_policy": "explicit"}
    suffix = f"CONSUMER.CREATE.{names.stream}.{names.consumer}"
    if wanted := filter_subject.format(**known):
        config["filter_subject"] = wanted
        suffix += f".{wanted}"
    body = {"stream_name": names.stream, "config": config}
    await connection.api(suffix, body)
    env = environment(server, names)
    async with bwpool("backfill", archive, "--out", tmp_path / "out", env=env) as run:
        assert await run.wait() == 1

    said = run.stderr.decode()
    assert "--enqueue-only" in said
    assert reason in said
    assert "Traceback" not in said
    assert await stored(connection, names) == 0


async def test_credentials_that_forbid_a_queue_are_explained(
    new_server, archive, tmp_path
):
    """A worker that may do nothing beside its own consumer is told what it may."""
    server = new_server(
        "authorization { users: [{ user: o, password: p }, { user: u, password: p, "
        'permissions: { publish: { deny: ["$JS.API.CONSUMER.CREATE.>"] } } }] }'
    )
    urls = [server.url.replace("://", f"://{user}:p@") for user in "ou"]
    async with bwpool("setup", "--server", urls[0]) as setup:
        assert await setup.wait() == 0, setup.stderr
    argv = ("backfill", archive, "--out", tmp_path / "out", "--server", urls[1])
    async with bwpool(*argv) as run:
        assert await run.wait() == 1

    assert "may not publish to $JS.API.CONSUMER.CREATE" in run.stderr.decode()
    assert "--enqueue-only" in run.stderr.decode()


async def test_a_second_backfill_into_one_folder_is_refused(
    server, connection, names, archive, tmp_path
):
    """On a shared server as on one of its own: exit code 2, naming who is at it."""
    await create_seed_topology(connection, names)
    env = environment(server, names)
    with Image.open(archive / "0.jpg") as picture:
        big = picture.resize((4000, 3000))
    for i in range(20):
        big.save(archive / f"big-{i}.jpg")
    out = tmp_path / "out"

    async def has_begun():
        return out.exists() and names_in(out)

    argv = ("backfill", archive, "--out", out)
    async with bwpool(*argv, "--procs", "1", env=env) as first:
        await eventually(has_begun)
        async with bwpool(*argv, env=env) as second, bwpool(*argv) as third:
            assert [await second.wait(), await third.wait()] == [2, 2]
        first.send(signal.SIGINT)
        await first.wait()

    for refused in (second, third):
        assert f"in use by another bwpool (pid {first.pid})" in refused.stderr.decode()

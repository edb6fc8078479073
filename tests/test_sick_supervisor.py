"""Supervisors whose storage is in trouble, beside others and beside bad files."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from PIL import Image
from processes import (
    bwpool,
    consumer_info,
    create_seed_topology,
    eventually,
    publish_all,
    said,
    stored,
    supervise,
)

from bwpool.queue.dead import list_failed
from bwpool.queue.topology import wanted

JOBS = 60
PACE = 0.01
"""Seconds that a job takes."""


def jobs(count, what="ok"):
    return [{"id": f"{what}-{i}", "image": "file:///x"} for i in range(count)]


def pictures(sources, names):
    """Make small pictures, and a job for each."""
    sources.mkdir()
    made = []
    for name in names:
        path = sources / f"{name}.png"
        Image.new("L", (40, 30), 200).save(path)
        made.append({"id": name, "image": path.as_uri()})
    return made


async def topology(connection, names, **consumer):
    """Make the seed's streams and consumer, and the failures stream."""
    await create_seed_topology(connection, names, **consumer)
    failures = wanted(names).failures
    await connection.api(f"STREAM.CREATE.{failures['name']}", failures)


@pytest.fixture
def outs(tmp_path):
    """Output folders of two supervisors, the first one sick from the start."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    sicken(folders[0])
    return folders


def sicken(out):
    Path(f"{out}.sick").touch()


def heal(out):
    Path(f"{out}.sick").unlink()


async def is_empty(connection, names):
    return await stored(connection, names) == 0


async def dead(connection, names):
    return [job async for job in list_failed(connection, names)]


def done(outs):
    return {path.name for out in outs for path in out.iterdir()}


@pytest.mark.parametrize("max_deliver", [1, 2, 5])
async def test_a_sick_supervisor_leaves_the_jobs_to_a_healthy_one(
    server, connection, names, outs, max_deliver
):
    """It keeps one to try with and takes no more, though its probe passes."""
    await topology(connection, names, max_deliver=max_deliver)
    sick = supervise(server.url, names, outs[0])
    async with sick as ill, supervise(server.url, names, outs[1]) as well:
        await asyncio.gather(ill.line(), well.line())
        await publish_all(connection, names, jobs(JOBS, f"sleep{PACE}"))

        async def only_one_is_left():
            return await stored(connection, names) == 1

        await eventually(only_one_is_left, 20)
        assert len(done(outs[1:])) == JOBS - 1
        assert not done(outs[:1])
        heal(outs[0])
        await eventually(lambda: is_empty(connection, names), 20)

    assert len(done(outs)) == JOBS
    assert not await dead(connection, names)


@pytest.mark.parametrize("max_deliver", [1, 2])
async def test_two_sick_supervisors_lose_nothing(
    server, connection, names, outs, max_deliver
):
    """They neither hand jobs to and fro until they are dead, nor wait for ever."""
    await topology(connection, names, max_deliver=max_deliver)
    sicken(outs[1])
    async with AsyncExitStack() as stack:
        running = [
            await stack.enter_async_context(supervise(server.url, names, out))
            for out in outs
        ]
        await asyncio.gather(*(one.line() for one in running))
        await publish_all(connection, names, jobs(20))
        for _ in range(3):
            await asyncio.gather(*(said(one, "storage.unavailable") for one in running))
        info = await consumer_info(connection, names)
        for out in outs:
            heal(out)
        await eventually(lambda: is_empty(connection, names), 20)

    assert info["num_ack_pending"] <= 4
    assert info["delivered"]["consumer_seq"] <= 3 * 20
    assert done(outs) == {job["id"] for job in jobs(20)}
    assert not await dead(connection, names)


async def test_an_output_that_no_disk_can_hold_does_not_stop_the_others(
    server, connection, names, outs
):
    """Nobody is charged for it, and it waits for a better day."""
    heal(outs[0])
    await topology(connection, names)
    async with supervise(server.url, names, outs[0], procs=1) as supervisor:
        await supervisor.line()
        await publish_all(connection, names, jobs(1, "unstored") + jobs(JOBS))

        async def all_others_are_done():
            return len(done(outs)) == JOBS

        await eventually(all_others_are_done, 20)
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait() == 0

    assert await stored(connection, names) == 1
    assert not await dead(connection, names)


async def test_a_target_that_cant_be_replaced_costs_its_own_job_alone(
    server, connection, names, tmp_path
):
    """All others are done at once, and it fails like any conversion."""
    await topology(connection, names, max_deliver=2)
    made = pictures(tmp_path / "in", ["unplaced", *(f"p{i}" for i in range(JOBS))])
    (tmp_path / "out").mkdir()
    options = {"load": "faulty", "burst": True}
    async with supervise(server.url, names, tmp_path / "out", **options) as supervisor:
        await supervisor.line()
        await publish_all(connection, names, made)
        assert await supervisor.wait() == 1

    assert b"storage.unavailable" not in supervisor.stderr
    assert len(os.listdir(tmp_path / "out")) == JOBS
    assert [job.kind for job in await dead(connection, names)] == ["conversion-failed"]


async def test_a_source_with_a_bad_sector_costs_its_own_job_alone(
    server, connection, names, tmp_path
):
    """It is charged, as others under its root can be read."""
    await topology(connection, names, max_deliver=2)
    sources = tmp_path / "in"
    made = pictures(sources, ["rotten", *(f"p{i}" for i in range(JOBS))])
    (tmp_path / "out").mkdir()
    options = {"load": "faulty", "burst": True, "source_root": [str(sources)]}
    async with supervise(server.url, names, tmp_path / "out", **options) as supervisor:
        await supervisor.line()
        await publish_all(connection, names, made)
        assert await supervisor.wait() == 1

    assert b"storage.unavailable" not in supervisor.stderr
    assert [job.kind for job in await dead(connection, names)] == ["conversion-failed"]


async def test_sources_out_of_reach_cost_no_job_a_delivery(
    server, connection, names, tmp_path
):
    """Where nothing can be read, all wait, even at their only delivery."""
    await topology(connection, names, max_deliver=1)
    sources, away = tmp_path / "in", tmp_path / "in.away"
    made = pictures(sources, [f"p{i}" for i in range(JOBS)])
    (tmp_path / "out").mkdir()
    options = {"load": "faulty", "source_root": [str(sources)]}
    async with supervise(server.url, names, tmp_path / "out", **options) as supervisor:
        await supervisor.line()
        away.touch()
        await publish_all(connection, names, made)
        for _ in range(2):
            await said(supervisor, "storage.unavailable")
        away.unlink()
        await eventually(lambda: is_empty(connection, names), 20)

    assert len(os.listdir(tmp_path / "out")) == JOBS
    assert not await dead(connection, names)


async def test_a_backfill_waits_for_its_source_folder(tmp_path):
    """A folder that is gone for a while is no thousand missing pictures."""
    sources, away = tmp_path / "in", tmp_path / "away"
    pictures(sources, [f"p{i}" for i in range(400)])
    how = ("--out", tmp_path / "out", "--procs", "1", "--log-format", "json")
    async with bwpool("backfill", sources, *how) as backfill:

        async def has_begun():
            return (tmp_path / "out").exists() and any((tmp_path / "out").glob("*.png"))

        await eventually(has_begun, 20)
        sources.rename(away)
        await said(backfill, "storage.unavailable")
        away.rename(sources)
        assert await backfill.wait() == 0

    assert len(list((tmp_path / "out").glob("*.png"))) == 400


async def test_a_source_on_its_way_is_converted_once_it_is_there(
    server, connection, names, tmp_path
):
    """Though its writer's clock, or ours, makes it look an hour old."""
    await topology(connection, names)
    (job,) = pictures(tmp_path / "in", ["late"])
    path = tmp_path / "in/late.png"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    os.utime(path, (1e9, 1e9))
    (tmp_path / "out").mkdir()
    options = {"load": "faulty", "burst": True}
    async with supervise(server.url, names, tmp_path / "out", **options) as supervisor:
        await supervisor.line()
        await publish_all(connection, names, [job])
        assert (await said(supervisor, "job.retried"))["kind"] == "bad-image"
        path.write_bytes(whole)
        assert await supervisor.wait() == 0

    assert os.listdir(tmp_path / "out") == ["late.png"]


@pytest.mark.slow
async def test_a_source_that_stays_cut_short_is_a_bad_image(
    server, connection, names, tmp_path
):
    """Once it stood still for long enough, its deliveries are used up at once."""
    await topology(connection, names, max_deliver=20)
    (job,) = pictures(tmp_path / "in", ["short"])
    path = tmp_path / "in/short.png"
    path.write_bytes(path.read_bytes()[:-30])
    (tmp_path / "out").mkdir()
    options = {"load": "faulty", "burst": True}
    async with supervise(server.url, names, tmp_path / "out", **options) as supervisor:
        await supervisor.line()
        await publish_all(connection, names, [job])
        assert await supervisor.wait() == 1

    assert supervisor.stderr.count(b'"job.retried"') == 4
    assert [job.kind for job in await dead(connection, names)] == ["bad-image"]

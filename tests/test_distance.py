"""A server that is far away, and jobs that become longer while they are fetched."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from processes import (
    consumer_info,
    create_seed_topology,
    eventually,
    publish_all,
    stored,
    supervise,
)
from test_supervisor import conversions, converted, is_empty, jobs

from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.distance import Distance

ROOT = Path(__file__).parents[1]
FAR = 0.2
"""Seconds to the server and back."""


@pytest.fixture
def out(tmp_path):
    """Where conversions leave their mark."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@asynccontextmanager
async def far_away(server):
    """The benchmark's proxy to a server."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.far", str(server.port), str(FAR)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield f"nats://127.0.0.1:{int(await process.stdout.readline())}"
    finally:
        process.kill()
        await process.communicate()


async def test_the_shortest_round_trip_counts(server):
    """What lies behind a proxy is as far away as that makes it, a queue no farther."""
    async with (
        far_away(server) as url,
        await Connection.open(Endpoint(urls=(url,))) as connection,
    ):
        distance = Distance(connection)
        assert distance.round_trip == 0.0
        for _ in range(3):
            await distance.measure()
        shortest = distance.round_trip
        measuring = asyncio.ensure_future(distance.measure())
        await asyncio.sleep(0)
        time.sleep(2 * FAR)  # noqa: ASYNC251 - our own loop is what is slow
        await measuring

    assert FAR <= shortest < FAR + 0.1
    assert distance.round_trip == shortest


async def test_a_far_away_server_keeps_converters_busy(server, connection, names, out):
    """Jobs are fetched so early that a long way to the server costs little.

    A pull at a time, each with 50 ms of work, would take six seconds for the second
    three hundred, whose conversions take a second and a half.
    """
    await create_seed_topology(connection, names)
    await publish_all(connection, names, jobs("sleep0.01", 600))
    async with far_away(server) as url, supervise(url, names, out) as supervisor:
        await supervisor.line()
        await eventually(lambda: converted(out, 300))
        started = time.monotonic()
        await eventually(lambda: is_empty(connection, names), 20)
        took = time.monotonic() - started

    assert {1} == set(conversions(out).values())
    assert took < 4


async def test_jobs_that_became_long_are_shared_with_who_comes(
    server, connection, names, out
):
    """What one supervisor fetched as short jobs, another one helps with.

    Sixteen long ones come to a supervisor that expects short ones, and has asked for
    dozens. Nobody else would get any, were they not handed back.
    """
    await create_seed_topology(connection, names)
    async with supervise(server.url, names, out) as one:
        await one.line()
        await publish_all(connection, names, jobs("ok", 200))
        await eventually(lambda: is_empty(connection, names))
        await publish_all(connection, names, jobs("sleep1", 16))
        await eventually(lambda: held(connection, names, 16))
        async with supervise(server.url, names, out) as other:
            await eventually(lambda: is_empty(connection, names))
            workers = long_ones(out)
            await other.kill()

    assert sum(workers.values()) == 16
    assert len(workers) == 4


async def held(connection, names, count):
    return (await consumer_info(connection, names))["num_ack_pending"] >= count


def long_ones(out):
    """How many of the long jobs each converter did."""
    return Counter(path.read_text() for path in out.glob("sleep*"))


async def test_no_more_is_held_than_a_share_of_the_consumers(
    server, connection, names, out
):
    """However short jobs are, three quarters of max_ack_pending are left to others."""
    await create_seed_topology(connection, names, max_ack_pending=80)
    async with supervise(server.url, names, out) as one:
        await one.line()
        await publish_all(connection, names, jobs("ok", 200))
        await eventually(lambda: is_empty(connection, names))
        await publish_all(connection, names, jobs("sleep3", 60))
        await eventually(lambda: held(connection, names, 10))
        most = 0
        for _ in range(50):  # half a second: what was asked for is delivered in less
            info = await consumer_info(connection, names)
            most = max(most, info["num_ack_pending"])
            await asyncio.sleep(0.01)

    assert 10 <= most <= 20
    assert await stored(connection, names) == 60

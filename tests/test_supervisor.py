"""The supervisor with a real server and real converters that do as the job says."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter

import nats.errors
import orjson
import pytest
from processes import (
    consumer_info,
    create_seed_topology,
    eventually,
    publish,
    publish_all,
    said,
    stored,
    supervise,
)
from queues import deliver


def jobs(what, count):
    return [{"id": f"{what}-{i}", "image": "file:///x"} for i in range(count)]


def conversions(out):
    """How often each job was converted."""
    return Counter({path.name: len(path.read_text().split()) for path in out.iterdir()})


@pytest.fixture
def out(tmp_path):
    """Where conversions leave their mark."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


async def test_a_burst_converts_everything_once(server, connection, names, out):
    """Every job once, acknowledged, nothing redelivered, exit code 0."""
    await create_seed_topology(connection, names)
    await publish_all(connection, names, jobs("ok", 500))
    async with supervise(server.url, names, out, burst=True) as supervisor:
        code = await supervisor.wait()

    info = await consumer_info(connection, names)
    assert code == 0, supervisor.stderr
    assert {1} == set(conversions(out).values())
    assert len(conversions(out)) == 500
    assert await stored(connection, names) == 0
    assert info["delivered"]["consumer_seq"] == 500


async def test_advisories_say_the_id_and_nothing_else(server, connection, names, out):
    """The seed's advisory, to the subject that the job names."""
    await create_seed_topology(connection, names)
    told = []

    async def receive(msg):
        told.append((msg.subject, msg.data))

    await connection.client.subscribe("advisory.*", cb=receive)
    await publish_all(
        connection,
        names,
        [job | {"advisory": f"advisory.{job['id']}"} for job in jobs("ok", 20)],
    )
    async with supervise(server.url, names, out, burst=True) as supervisor:
        await supervisor.wait()
    await connection.client.flush()

    expected = {(f"advisory.ok-{i}", b'{"id":"ok-%d"}' % i) for i in range(20)}
    assert expected == set(told)
    assert len(told) == 20


async def test_two_supervisors_and_a_seed_worker_share_a_queue(
    server, connection, names, out
):
    """All empty one queue together; every job is done once, and each does some."""
    await create_seed_topology(connection, names)
    await publish_all(connection, names, jobs("sleep0.02", 300))
    by_hand = 0
    async with (
        supervise(server.url, names, out) as one,
        supervise(server.url, names, out) as other,
    ):
        await one.line()
        await other.line()
        while await stored(connection, names):
            try:
                msg = await deliver(connection, names)
            except nats.errors.TimeoutError:
                break
            await asyncio.sleep(0.02)  # its conversion takes as long as the others'
            with (out / orjson.loads(msg.data)["id"]).open("a") as file:
                file.write("seed\n")
            await msg.respond(b"")
            by_hand += 1
        await eventually(lambda: is_empty(connection, names))
        one.send(signal.SIGTERM)
        other.send(signal.SIGTERM)
        assert [await one.wait(), await other.wait()] == [0, 0]

    counts = conversions(out)
    workers = Counter(path.read_text().split()[0] for path in out.iterdir())
    assert len(counts) == 300
    assert {1} == set(counts.values())
    assert len(workers) == 5
    assert by_hand == workers["seed"] > 0


async def is_empty(connection, names):
    return await stored(connection, names) == 0


async def test_a_long_conversion_is_delivered_once(server, connection, names, out):
    """Three ack waits long, and still nobody else gets it."""
    await create_seed_topology(connection, names, ack_wait=2_000_000_000)
    await publish_all(connection, names, jobs("sleep6", 1))
    async with supervise(server.url, names, out, burst=True) as supervisor:
        assert await supervisor.wait() == 0

    info = await consumer_info(connection, names)
    assert info["delivered"]["consumer_seq"] == 1
    assert Counter({"sleep6-0": 1}) == conversions(out)


async def test_another_supervisor_takes_over_after_the_ack_wait(
    server, connection, names, out
):
    """A supervisor killed in the middle costs its jobs the ack wait, no more."""
    await create_seed_topology(connection, names, ack_wait=2_000_000_000)
    await publish_all(connection, names, jobs("sleep1", 2))
    async with supervise(server.url, names, out) as killed:
        await killed.line()
        await eventually(lambda: all_delivered(connection, names, 2))
        async with supervise(server.url, names, out) as survivor:
            await survivor.line()
            await killed.kill()
            died = time.monotonic()
            await eventually(lambda: is_empty(connection, names))
            elapsed = time.monotonic() - died

    # The conversion itself takes a second of it.
    assert elapsed < 2 + 2 + 1
    assert {1} == set(conversions(out).values())


async def all_delivered(connection, names, count):
    info = await consumer_info(connection, names)
    return info["delivered"]["stream_seq"] >= count


async def test_innocents_survive_six_kills(server, connection, names, out):
    """Five deliveries, six supervisors killed over them, and no job is dead."""
    await create_seed_topology(connection, names, ack_wait=500_000_000)
    await publish_all(connection, names, jobs("begin0.7", 4))
    for round_ in range(1, 7):
        async with supervise(server.url, names, out, procs=4) as supervisor:
            await eventually(lambda: begun(out, 4 * round_))  # noqa: B023
            await supervisor.kill()
    async with supervise(server.url, names, out, burst=True, procs=4) as supervisor:
        assert await supervisor.wait() == 0

    assert {f"begin0.7-{i}" for i in range(4)} == set(conversions(out)) - {"begun"}
    assert await stored(connection, names) == 0


async def begun(out, count):
    path = out / "begun"
    return path.exists() and len(path.read_text().split()) >= count


@pytest.mark.parametrize("to_group", [False, True], ids=["sigterm", "ctrl-c"])
async def test_a_drain_finishes_what_is_begun_and_hands_back_the_rest(
    server, connection, names, out, to_group
):
    """Exit code 0 in time; the next supervisor gets the rest at once; none twice."""
    await create_seed_topology(connection, names)
    await publish_all(connection, names, jobs("sleep0.2", 40))
    async with supervise(server.url, names, out) as drained:
        await drained.line()
        await eventually(lambda: converted(out, 4))
        if to_group:
            drained.send_group(signal.SIGINT)
        else:
            drained.send(signal.SIGTERM)
        assert await drained.wait(10) == 0
    started = time.monotonic()
    async with supervise(server.url, names, out, burst=True) as other:
        assert await other.wait() == 0

    assert time.monotonic() - started < 20
    assert len(conversions(out)) == 40
    assert {1} == set(conversions(out).values())


async def converted(out, count):
    return len(list(out.iterdir())) >= count


async def test_last_deliveries_survive_a_drain(server, connection, names, out):
    """A job on its last delivery is put back as new, not killed by the hand-back."""
    await create_seed_topology(connection, names, max_deliver=1)
    await publish_all(connection, names, jobs("sleep60", 2))
    async with supervise(server.url, names, out, drain_timeout=0.2) as drained:
        await drained.line()
        await eventually(lambda: all_delivered(connection, names, 2))
        drained.send(signal.SIGTERM)
        assert await drained.wait(15) == 0

    info = await consumer_info(connection, names)
    assert await stored(connection, names) == 2
    assert info["num_pending"] == 2


async def test_a_second_signal_stops_at_once(server, connection, names, out):
    """Nobody has to wait for a conversion that takes a minute."""
    await create_seed_topology(connection, names)
    await publish_all(connection, names, jobs("sleep60", 2))
    async with supervise(server.url, names, out) as supervisor:
        await supervisor.line()
        await eventually(lambda: all_delivered(connection, names, 2))
        supervisor.send(signal.SIGTERM)
        await asyncio.sleep(0.3)  # two signals at once would be one
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait(5) == 1

    assert await stored(connection, names) == 2


async def test_what_can_not_be_done_is_recorded_and_stays(
    server, connection, names, out
):
    """Incurable jobs use up their deliveries at once, and JetStream says so."""
    await create_seed_topology(connection, names)
    dead = []

    async def receive(msg):
        dead.append(orjson.loads(msg.data)["stream_seq"])

    await connection.client.subscribe(
        f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{names.stream}.*", cb=receive
    )
    bad = [
        b"{}",
        b"not json",
        {"id": "bad-1", "image": "file:///x"},
        {"id": "../../etc/x", "image": "file:///x"},
        {"id": "a", "image": "file:///x", "advisory": "$JS.API.STREAM.DELETE.IMAGES"},
    ]
    for job in bad:
        await publish(connection, names, job)
    await publish_all(connection, names, jobs("ok", 5))
    async with supervise(server.url, names, out, burst=True) as supervisor:
        code = await supervisor.wait()
    await connection.client.flush()

    assert code == 1
    assert sorted(dead) == [1, 2, 3, 4, 5]
    assert await stored(connection, names) == 5
    assert {f"ok-{i}" for i in range(5)} == set(conversions(out))


async def test_a_crash_is_retried_and_spares_the_others(server, connection, names, out):
    """A job that kills converters runs out of deliveries; the others are done."""
    await create_seed_topology(connection, names, max_deliver=2)
    await publish_all(connection, names, jobs("crash", 1) + jobs("ok", 50))
    async with supervise(server.url, names, out, burst=True) as supervisor:
        code = await supervisor.wait()

    assert code == 1
    assert await stored(connection, names) == 1
    assert len(conversions(out)) == 50
    assert {1} == set(conversions(out).values())


@pytest.mark.parametrize("max_deliver", [1, 5])
async def test_trouble_with_storage_is_not_the_jobs(
    max_deliver, server, connection, names, out
):
    """Nothing is charged while outputs can't be stored, and a drain hands it back.

    Half of the pool is idle, so a pull is open: what is handed back must not come back
    through it to the one that leaves.
    """
    await create_seed_topology(connection, names, max_deliver=max_deliver)
    await publish_all(connection, names, jobs("storage", 1))
    async with supervise(server.url, names, out) as supervisor:
        await said(supervisor, "storage.unavailable")
        await said(supervisor, "storage.unavailable")  # tried again
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait(10) == 0

    info = await consumer_info(connection, names)
    assert info["delivered"]["consumer_seq"] == 1
    await deliver(connection, names)  # the next one has it at once

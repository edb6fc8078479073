"""Killing, cutting and breaking what a supervisor depends on."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from processes import (
    bwpool,
    consumer_info,
    create_consumer,
    create_seed_topology,
    eventually,
    publish_all,
    said,
    stored,
    supervise,
)
from queues import make_consumer, setup
from servers import publish_raw

from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.dead import list_failed

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"

RUNS = [
    *("mixed", "hang", "blocked", "cluster", "requeue"),
    *("hostile", "crashes", "killer", "memory"),
    *("unplaced", "sick", "away"),
]


def jobs(what, count, start=0):
    return [{"id": f"{what}-{start + i}", "image": "file:///x"} for i in range(count)]


def conversions(out):
    """How often each job was converted."""
    return Counter({path.name: len(path.read_text().split()) for path in out.iterdir()})


@pytest.fixture
def out(tmp_path):
    """Where conversions leave their mark."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@asynccontextmanager
async def connected(server):
    """Connect to a server that a test has to itself."""
    async with await Connection.open(Endpoint(urls=(server.url,))) as connection:
        yield connection


async def is_empty(connection, names):
    return await stored(connection, names) == 0


async def converted(out, count):
    return len(list(out.iterdir())) >= count


# ── The server and its connection ────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart_of_the_server_loses_and_doubles_nothing(
    new_server, names, out, how
):
    """Conversions go on, acks are repeated, pulling resumes; none is done twice."""
    server = new_server()
    async with connected(server) as connection:
        await setup(connection, names)
        await publish_all(connection, names, jobs("sleep0.05", 60))
        async with supervise(server.url, names, out) as supervisor:
            await supervisor.line()
            await eventually(lambda: converted(out, 10))
            await asyncio.to_thread(getattr(server, how))
            await said(supervisor, "queue.disconnected")
            await asyncio.to_thread(server.start)
            await connection.wait_up(20)
            await eventually(lambda: is_empty(connection, names), 30)
            supervisor.send(signal.SIGTERM)
            assert await supervisor.wait() == 0

    assert len(conversions(out)) == 60
    assert {1} == set(conversions(out).values())


async def test_a_consumer_made_anew_gets_its_jobs_done_once(
    server, connection, names, out
):
    """Deleted under way and back with other numbers: what is held goes on."""
    await setup(connection, names)
    await publish_all(connection, names, jobs("sleep0.2", 20))
    async with supervise(server.url, names, out) as supervisor:
        await supervisor.line()
        await eventually(lambda: converted(out, 4))
        await connection.api(f"CONSUMER.DELETE.{names.stream}.{names.consumer}")
        await said(supervisor, "queue.unusable")
        await create_consumer(connection, names, ack_wait=7_000_000_000)
        changed = await said(supervisor, "queue.changed")
        await eventually(lambda: is_empty(connection, names), 30)
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait() == 0

    assert changed["ack_wait"] == 7.0
    assert len(conversions(out)) == 20
    assert {1} == set(conversions(out).values())


async def test_messages_of_a_stream_made_anew_are_other_messages(
    server, connection, names, out
):
    """An ack for a job of the old stream does not remove a job of the new one."""
    await setup(connection, names)
    await publish_all(connection, names, jobs("sleep3", 2))
    async with supervise(server.url, names, out, procs=4) as supervisor:
        await supervisor.line()
        await eventually(lambda: in_flight(connection, names, 2))
        await connection.api(f"STREAM.DELETE.{names.stream}")
        await setup(connection, names)
        await publish_all(connection, names, jobs("ok", 4))
        await said(supervisor, "queue.recreated")
        await eventually(lambda: is_empty(connection, names), 30)
        await eventually(lambda: converted(out, 6))
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait() == 0

    assert {f"ok-{i}" for i in range(4)} < set(conversions(out))
    assert {1} == set(conversions(out).values())


async def in_flight(connection, names, count):
    info = await consumer_info(connection, names)
    return info["num_ack_pending"] == count


MAY_NOT_PULL = """
authorization { users = [
    { user: worker, password: w, permissions: { publish: { deny: [%s] } } },
    { user: boss, password: b }
] }
no_auth_user: worker
"""


async def test_pulling_resumes_when_it_is_allowed_again(new_server, names, out):
    """A refused permission is told, and waited out."""
    server = new_server(MAY_NOT_PULL % '"nowhere"')
    async with connected(server) as connection:
        await setup(connection, names)
        async with supervise(server.url, names, out, heartbeat=0.3) as supervisor:
            await supervisor.line()
            server.configure(MAY_NOT_PULL % '"$JS.API.CONSUMER.MSG.NEXT.>"')
            # A pull that is open already still delivers; it is the next one that fails.
            await publish_all(connection, names, jobs("ok", 5))
            await said(supervisor, "queue.forbidden")
            server.configure(MAY_NOT_PULL % '"nowhere"')
            await eventually(lambda: is_empty(connection, names), 30)
            supervisor.send(signal.SIGTERM)
            assert await supervisor.wait() == 0

    assert {1} == set(conversions(out).values())


async def test_a_dead_network_is_left_soon(server, connection, names, out, new_wire):
    """Missing heartbeats make a new connection; what was held is not done again."""
    # What was on its way is delivered again after that.
    await create_seed_topology(connection, names, ack_wait=5_000_000_000)
    await publish_all(connection, names, jobs("sleep0.2", 30))
    wire = await new_wire(server)
    async with supervise(wire.url, names, out, heartbeat=0.3) as supervisor:
        await supervisor.line()
        await eventually(lambda: converted(out, 5))
        wire.go_dead()
        await said(supervisor, "queue.connection_dead")
        await eventually(lambda: is_empty(connection, names), 30)
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait() == 0

    assert len(conversions(out)) == 30
    assert {1} == set(conversions(out).values())


async def test_a_fatal_error_of_the_server_is_survived(
    server, connection, names, out, new_wire
):
    """What closes nats-py for good costs the supervisor a new client."""
    # What was on its way to the old client comes again after the ack wait.
    await create_seed_topology(connection, names, ack_wait=3_000_000_000)
    await publish_all(connection, names, jobs("sleep0.1", 30))
    wire = await new_wire(server)
    async with supervise(wire.url, names, out) as supervisor:
        await supervisor.line()
        await eventually(lambda: converted(out, 5))
        wire.say(b"-ERR 'Unknown Protocol Operation'\r\n")
        await said(supervisor, "queue.closed")
        await eventually(lambda: is_empty(connection, names), 30)
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait() == 0

    assert {1} == set(conversions(out).values())


@pytest.mark.parametrize("is_filtered", [True, False])
async def test_what_nats_py_can_not_read_is_a_failed_job(
    is_filtered, server, connection, names, out
):
    """Headers of one byte, and where anything is consumed subjects of any bytes."""
    await setup(connection, names)
    last = [names.subject.encode()]
    if not is_filtered:
        last += [b"%s.%s" % (names.stream.encode(), end) for end in UNREADABLE]
        await connection.api(f"CONSUMER.DELETE.{names.stream}.{names.consumer}")
        await make_consumer(connection, names, filter_subject=None)
    for subject in last:
        publish_raw(
            server,
            b"HPUB " + subject + b" 1 3\r\nX{}\r\n",
            b"HPUB " + subject + b" 8 10\r\nNATS/1.0{}\r\n",
        )
    await publish_all(connection, names, jobs("ok", 20))
    started = time.monotonic()
    async with supervise(server.url, names, out, burst=True) as supervisor:
        assert await supervisor.wait() == 1, supervisor.stderr
    elapsed = time.monotonic() - started
    failed = [job async for job in list_failed(connection, names)]

    assert len(conversions(out)) == 20
    assert ["invalid-job"] * 2 * len(last) == [job.kind for job in failed]
    assert elapsed < 10
    assert b"queue.connected" not in supervisor.stderr


UNREADABLE = (b"\xff", b"\x0b1", b"a\x0cb", b"\x00\x1b[2J")


async def test_credentials_are_in_no_log(new_server, names, tmp_path):
    """Neither when all is well nor when they are refused, at any level."""
    server = new_server('authorization { user: boss, password: "hunter2" }')
    said = b""
    for password in ("hunter2", "hunter2wrong"):
        url = server.url.replace("//", f"//boss:{password}@")
        argv = ("run", "--server", url, "--out", tmp_path / "out", "--setup", "--burst")
        async with bwpool(*argv, "--log-level", "debug") as supervisor:
            await supervisor.wait()
        said += supervisor.stdout + supervisor.stderr

    assert b"supervisor.ready" in said
    assert b"refuses these credentials" in said
    assert b"hunter2" not in said


# ── The runs of the benchmark, which count what was lost and doubled ─────────────


def counted(*options):
    """Run `benchmarks.faults`, and return what it found."""
    command = (sys.executable, "-m", "benchmarks.faults", "--json", *options)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, timeout=600)
    return orjson.loads(done.stdout.splitlines()[-1])


def test_requeue_killed_half_way_is_finished_by_the_next():
    """None lost, none queued twice."""
    found = counted("--quick", "--only", "requeue")["requeue"]

    assert (found["lost"], found["doubled"], found["still_dead"]) == (0, 0, 0)


def test_sources_that_block_are_refused_at_once():
    """A pipe, devices, a socket, a folder, and a link to itself."""
    found = counted("--quick", "--only", "blocked")["blocked"]

    assert {"source-refused"} == set(found["sources"].values())


def test_strangers_messages_do_no_harm():
    """Good jobs among them are done soon, and each of them is dead with a record.

    Nothing is written elsewhere, no subject is abused, no terminal is steered.
    """
    found = counted("--quick", "--only", "hostile")["hostile"]

    assert found["ok"], found


@pytest.mark.slow
@pytest.mark.timeout(620)
@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_lost(name):
    """The whole of each run, as the benchmark counts it."""
    found = counted("--only", name)

    assert found["ok"], found


def test_backfills_beside_supervisors_each_get_their_own():
    """Every output where and how it was asked for, and nothing left behind."""
    found = counted("--quick", "--only", "backfills")["backfills"]

    assert set(found["missing_or_not_as_asked"].values()) == {0}
    assert found["accounted_for"] == [found["pictures"]] * 2
    assert found["left_on_server"] == found["left_temporaries"] == []

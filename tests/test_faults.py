"""Killing, cutting and breaking what a supervisor depends on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import orjson
import pytest
from PIL import Image
from processes import (
    bwpool,
    consumer_info,
    create_seed_topology,
    eventually,
    publish_all,
    stored,
    supervise,
)
from queues import deliver, setup

from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.failures import records_of
from bwpool.queue.messages import messages_on

EXAMPLES = Path(__file__).parent.parent / "examples"


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


async def said(program, event):
    """Wait until a program logs an event, and return its fields."""
    while True:
        line = await program.error_line()
        with suppress(orjson.JSONDecodeError):
            fields = orjson.loads(line)
            if fields["event"] == event:
                return fields


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


async def create_consumer(connection, names, **fields):
    config = {
        "durable_name": names.consumer,
        "ack_policy": "explicit",
        "ack_wait": 30_000_000_000,
        "max_deliver": 5,
        "filter_subject": names.subject,
    }
    await connection.api(
        f"CONSUMER.CREATE.{names.stream}.{names.consumer}.{names.subject}",
        {"stream_name": names.stream, "config": config | fields, "action": ""},
    )


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
            await said(supervisor, "queue.forbidden")
            await publish_all(connection, names, jobs("ok", 5))
            server.configure(MAY_NOT_PULL % '"nowhere"')
            await eventually(lambda: is_empty(connection, names), 30)
            supervisor.send(signal.SIGTERM)
            assert await supervisor.wait() == 0

    assert {1} == set(conversions(out).values())


async def test_a_dead_network_is_left_soon(server, connection, names, out, new_wire):
    """Missing heartbeats make a new connection; what was held is not done again."""
    await create_seed_topology(connection, names)
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
    await create_seed_topology(connection, names)
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


# ── Storage ──────────────────────────────────────────────────────────────────────


class Storage:
    """A small disk with outputs, a folder of sources, and ways to break them."""

    def __init__(self, folder: Path) -> None:
        self.disk = folder / "disk"
        self.out = self.disk / "out"
        self.sources = folder / "sources"
        self.disk.mkdir()
        self.sources.mkdir()
        mount = ("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(self.disk))
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no tmpfs may be mounted here")
        self.out.mkdir()

    def close(self) -> None:
        """Take the disk away."""
        subprocess.run(("umount", "-l", str(self.disk)), check=True)

    def fill(self) -> None:
        """Leave no room on the disk."""
        with suppress(OSError), (self.disk / "filler").open("wb", 0) as file:
            while True:
                file.write(bytes(4096))

    def remount(self, mode: str) -> None:
        """Make the disk `ro` or `rw`."""
        command = ("mount", "-o", f"remount,{mode}", str(self.disk))
        subprocess.run(command, check=True)

    def break_(self, how: str) -> None:
        """Make trouble, one of `TROUBLES`."""
        match how:
            case "full":
                self.fill()
            case "read-only":
                self.remount("ro")
            case "output-gone":
                self.out.rename(self.disk / "away")
            case "sources-gone":
                self.sources.rename(self.sources.with_name("away"))

    def mend(self, how: str) -> None:
        """End that trouble."""
        match how:
            case "full":
                (self.disk / "filler").unlink()
            case "read-only":
                self.remount("rw")
            case "output-gone":
                (self.disk / "away").rename(self.out)
            case "sources-gone":
                self.sources.with_name("away").rename(self.sources)

    def is_whole(self) -> bool:
        """Whether every file under a final name is a whole picture."""
        for path in self.out.glob("[!.]*"):
            with Image.open(path) as picture:
                picture.load()
        return True


@pytest.fixture
def storage(tmp_path):
    """A small disk of its own."""
    storage = Storage(tmp_path)
    with Image.open(EXAMPLES / "sunset.jpg") as picture:
        picture.resize((300, 200)).save(storage.sources / "photo.jpg")
    yield storage
    storage.close()


def running(server, names, storage):
    """Run the real thing on a small disk."""
    env = {
        "NATS_URL": server.url,
        "BWPOOL_STREAM": names.stream,
        "BWPOOL_CONSUMER": names.consumer,
        "BWPOOL_SUBJECT": names.subject,
    }
    roots = ("--source-root", storage.sources)
    how = ("--procs", "2", "--log-format", "json")
    return bwpool("run", "--out", storage.out, *roots, *how, env=env)


def pictures(storage, count):
    image = (storage.sources / "photo.jpg").as_uri()
    return [{"id": f"p{i}", "image": image} for i in range(count)]


TROUBLES = ["full", "read-only", "output-gone", "sources-gone"]


@pytest.mark.parametrize("how", TROUBLES)
async def test_trouble_with_storage_costs_no_job_a_delivery(
    server, connection, names, storage, how
):
    """For two ack waits nothing is pulled or charged; then all is done."""
    await setup(connection, names)
    await connection.api(f"CONSUMER.DELETE.{names.stream}.{names.consumer}")
    await create_consumer(connection, names, ack_wait=1_000_000_000)
    async with running(server, names, storage) as supervisor:
        await said(supervisor, "supervisor.ready")
        storage.break_(how)
        await publish_all(connection, names, pictures(storage, 20))
        for _ in range(2):
            await said(supervisor, "storage.unavailable")
        held = (await consumer_info(connection, names))["delivered"]["consumer_seq"]
        await said(supervisor, "storage.unavailable")
        later = (await consumer_info(connection, names))["delivered"]["consumer_seq"]
        storage.mend(how)
        await eventually(lambda: is_empty(connection, names), 40)
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait() == 0

    info = await consumer_info(connection, names)
    assert held == later
    assert info["delivered"]["consumer_seq"] == 20
    assert len(list(storage.out.iterdir())) == 20
    assert storage.is_whole()


async def test_a_drain_in_trouble_records_it_and_hands_back(
    server, connection, names, storage
):
    """One record a job that was held, none of them final, and no delivery is lost."""
    await setup(connection, names)
    async with running(server, names, storage) as supervisor:
        await said(supervisor, "supervisor.ready")
        storage.break_("output-gone")
        await publish_all(connection, names, pictures(storage, 1))
        await said(supervisor, "storage.unavailable")
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait() == 0

    (message,) = [m async for m in messages_on(connection, names.stream, names.subject)]
    place = (names.stream, names.consumer, message)
    records = [record async for record in records_of(connection, *place)]
    again = await deliver(connection, names)
    assert [(r.kind, r.final) for r in records] == [("storage-unavailable", False)]
    assert again.metadata.num_delivered == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the rights away")
async def test_a_folder_of_somebody_else_costs_only_its_own_jobs(tmp_path):
    """An id that leads where we may not write halts nothing."""
    from bwpool.errors import ConversionFailed, StorageUnavailable
    from bwpool.storage import Place

    (tmp_path / "lost+found").mkdir(0o700)
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(ConversionFailed):
            Place(str(tmp_path), "lost+found/x.jpg", sync=False)
        os.seteuid(0)
        tmp_path.chmod(0o755)
        os.seteuid(65534)
        with pytest.raises(StorageUnavailable):
            Place(str(tmp_path), "x.jpg", sync=False)
    finally:
        os.seteuid(0)

"""What a supervisor does while outputs or sources are out of reach."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image
from processes import (
    bwpool,
    consumer_info,
    create_consumer,
    eventually,
    publish_all,
    said,
    stored,
)
from queues import deliver, setup

from bwpool.queue.failures import records_of
from bwpool.queue.messages import messages_on

EXAMPLES = Path(__file__).parent.parent / "examples"


async def is_empty(connection, names):
    return await stored(connection, names) == 0


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


@pytest.mark.parametrize(
    ("how", "probes"),
    [*((how, 2) for how in TROUBLES), pytest.param("full", 10, marks=pytest.mark.slow)],
)
async def test_trouble_with_storage_costs_no_job_a_delivery(
    server, connection, names, storage, how, probes
):
    """For many ack waits nothing is pulled or charged; then all is done."""
    await setup(connection, names)
    await connection.api(f"CONSUMER.DELETE.{names.stream}.{names.consumer}")
    await create_consumer(connection, names, ack_wait=1_000_000_000)
    async with running(server, names, storage) as supervisor:
        await said(supervisor, "supervisor.ready")
        storage.break_(how)
        await publish_all(connection, names, pictures(storage, 20))
        for _ in range(probes):
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
    assert again.metadata.sequence.consumer == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take the rights away")
async def test_a_folder_of_somebody_else_costs_only_its_own_jobs(tmp_path):
    """An id that leads where we may not write halts nothing."""
    from bwpool.errors import ConversionFailed, StorageUnavailable
    from bwpool.storage import Place

    (tmp_path / "lost+found").mkdir(0o700)
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if parent.stat().st_mode & 0o777 == 0o700:  # pytest's own
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

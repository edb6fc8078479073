"""What a backfill knows of earlier runs: done, changed, adopted, left behind."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from PIL import Image
from processes import bwpool, eventually, publish
from queues import deliver

from bwpool.cli.setup import provide
from bwpool.embedded import EmbeddedServer
from bwpool.queue.connection import Connection
from bwpool.queue.facts import read_depth, read_facts
from bwpool.queue.topology import wanted
from bwpool.settings import QueueSettings

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def archive(tmp_path):
    """Four small pictures."""
    folder = tmp_path / "archive"
    folder.mkdir()
    with Image.open(EXAMPLES / "sunset.jpg") as picture:
        small = picture.resize((240, 160))
    for i in range(4):
        small.save(folder / f"{i}.jpg")
    return folder


async def backfill(archive, out, *options, code=0):
    """Run a backfill; return its counts and what it says on stderr."""
    argv = ("backfill", archive, "--out", out, "--json", *options)
    async with bwpool(*argv) as run:
        assert await run.wait() == code, run.stderr
    said = run.stderr.decode()
    assert "Traceback" not in said
    summary = json.loads(run.stdout)
    return tuple(summary[k] for k in ("inputs", "converted", "skipped", "failed")), said


def set_time(path, time):
    os.utime(path, (time, time))


async def test_changed_settings_convert_again(archive, tmp_path):
    """How many and why is said first; outputs in another format stay."""
    out = tmp_path / "out"
    await backfill(archive, out)
    other, said = await backfill(archive, out, "--quality", "40")
    again, _ = await backfill(archive, out, "--quality", "40")
    moved, said_format = await backfill(archive, out, "--format", "png")

    assert other == moved == (4, 4, 0, 0)
    assert "4 done before will be converted again: --quality is 40 now, was 75" in said
    assert again == (4, 0, 4, 0)
    assert "--format is png now, was same" in said_format
    assert "another format stay" in said_format
    assert len(list(out.glob("*.jpg"))) == len(list(out.glob("*.png"))) == 4


async def test_no_clock_decides_what_is_done(archive, tmp_path):
    """A time in the future is done once; an older one than the output's is a change."""
    out = tmp_path / "out"
    set_time(archive / "0.jpg", time.time() + 86_400)
    set_time(archive / "1.jpg", 20_000_000_000)
    await backfill(archive, out)
    second, _ = await backfill(archive, out)
    set_time(archive / "2.jpg", 1_000_000)
    third, said = await backfill(archive, out)

    assert second == (4, 0, 4, 0)
    assert third == (4, 1, 3, 0)
    assert "1 done before will be converted again: their sources have changed" in said


async def test_outputs_must_still_be_there(archive, tmp_path):
    """One that is gone, or was cut short, is made again."""
    out = tmp_path / "out"
    await backfill(archive, out)
    (out / "0.jpg").unlink()
    (out / "1.jpg").write_bytes(b"")
    second, _ = await backfill(archive, out)

    assert second == (4, 2, 2, 0)
    assert (out / "1.jpg").stat().st_size > 100


async def test_the_same_output_of_another_source_is_made_again(archive, tmp_path):
    """Its name and age don't tell what it was made of."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "0.jpg").write_bytes((archive / "1.jpg").read_bytes())
    set_time(other / "0.jpg", 1_000_000)
    out = tmp_path / "out"
    await backfill(archive, out)
    second, said = await backfill(other, out)

    assert second == (1, 1, 0, 0)
    assert "made of other sources" in said


async def test_outputs_of_older_versions_are_adopted(archive, tmp_path):
    """Without a ledger the outputs' age counts once more, and that is said."""
    out = tmp_path / "out"
    await backfill(archive, out)
    (out / ".bwpool/ledger.db").unlink()
    second, said = await backfill(archive, out)
    third, said_then = await backfill(archive, out)
    fourth, _ = await backfill(archive, out, "--method", "otsu")

    assert second == third == (4, 0, 4, 0)
    assert "4 without an entry in the ledger" in said
    assert "without an entry" not in said_then
    assert fourth == (4, 4, 0, 0)


async def test_a_ledger_that_can_not_be_used_is_explained(archive, tmp_path):
    """Damaged, or of a later version: exit code 2, and the way out."""
    out = tmp_path / "out"
    await backfill(archive, out)
    ledger = out / ".bwpool/ledger.db"
    with sqlite3.connect(ledger) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    argv = ("backfill", archive, "--out", out)
    async with bwpool(*argv) as later:
        assert await later.wait() == 2
    ledger.write_bytes(b"no database" * 1000)
    async with bwpool(*argv) as damaged:
        assert await damaged.wait() == 2

    assert "later bwpool" in later.stderr.decode()
    assert "move it away" in damaged.stderr.decode()


@pytest.fixture
def large(archive):
    """Forty large ones besides."""
    with Image.open(archive / "0.jpg") as picture:
        picture.resize((3000, 2000)).save(archive / "big-0.jpg")
    for i in range(1, 40):
        os.link(archive / "big-0.jpg", archive / f"big-{i}.jpg")
    return archive


def some_outputs(out, count):
    async def there():
        return out.exists() and len(list(out.glob("*.jpg"))) >= count

    return there


async def test_killed_runs_leave_no_temporaries(large, tmp_path):
    """The next successful run removes those of this store, and no others."""
    out = tmp_path / "out"
    async with bwpool("backfill", large, "--out", out) as killed:
        await eventually(some_outputs(out, 6))
        await killed.kill()
    run = json.loads((out / ".bwpool/run").read_bytes())["run"]
    (out / "deep").mkdir()
    ours, others = out / f"deep/.bwpool-{run}-0", out / "deep/.bwpool-other-0"
    ours.touch()
    others.touch()
    await backfill(large, out)

    assert list(out.rglob(".bwpool-*")) == [others]


async def test_temporaries_tell_whose_they_are(large, tmp_path):
    """Those that a run writes carry its name."""
    out = tmp_path / "out"
    seen = set()

    async def all_there():
        seen.update(path.name for path in out.glob(".bwpool-*"))
        return len(list(out.glob("*.jpg"))) >= 30

    async with bwpool("backfill", large, "--out", out) as run:
        await eventually(all_there, 30)
        name = json.loads((out / ".bwpool/run").read_bytes())["run"]
        assert await run.wait() == 0

    assert any(each.startswith(f".bwpool-{name}-") for each in seen)


async def acknowledge_and_forget(store, count):
    """Have a server that is killed forget that all but one were acknowledged."""
    queue = QueueSettings()
    async with await EmbeddedServer.start(store) as server:
        await provide(server.endpoint, wanted(queue))
        async with await Connection.open(server.endpoint) as connection:
            for i in range(count):
                await publish(
                    connection, queue, {"id": f"gone-{i}", "image": "file:///"}
                )
            (state,) = store.rglob("o.dat")
            deliveries = [await deliver(connection, queue) for _ in range(count)]
            (store / "now").touch()
            last = (store / "now").stat().st_mtime_ns

            async def is_kept():
                return state.stat().st_mtime_ns > last

            await eventually(is_kept)
            # It drops what is before the first message stored, so that one stays.
            for delivery in deliveries[1:]:
                await connection.request(delivery.reply, b"+ACK")
            os.kill(server.pid, signal.SIGKILL)
            await server.wait()
    async with await EmbeddedServer.start(store) as server:
        async with await Connection.open(server.endpoint) as connection:
            depth = await read_depth(connection, await read_facts(connection, queue))
        os.kill(server.pid, signal.SIGKILL)
        await server.wait()
    assert depth.in_flight == count


async def test_a_rerun_after_a_killed_server_ends_with_its_work(archive, tmp_path):
    """Messages that are gone, though the server counts them, keep nobody waiting."""
    out = tmp_path / "out"
    await acknowledge_and_forget(out / ".bwpool", 5)
    started = time.monotonic()
    summary, _ = await backfill(archive, out)

    assert summary == (4, 4, 0, 0)
    assert time.monotonic() - started < 20  # the ack wait is 30 s

"""Commands with a server of their own: what they print, and who else gets in."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
from pathlib import Path

import nats
import orjson
import pytest
from processes import bwpool, publish, said

from bwpool.embedded import find_running
from bwpool.queue.connection import Connection
from bwpool.settings import QueueSettings

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def photo(tmp_path):
    """A picture to convert."""
    path = tmp_path / "color.jpg"
    path.write_bytes((EXAMPLES / "sunset.jpg").read_bytes())
    return path


@contextlib.asynccontextmanager
async def developing(folder, *options):
    """Run `bwpool dev`; yield its first line once it is ready."""
    async with bwpool("dev", *options, cwd=folder) as dev:
        yield await dev.line()
        dev.send(signal.SIGINT)
        assert await dev.wait() == 0, dev.stderr.decode()


async def test_dev_has_the_same_url_at_each_start(tmp_path):
    """Any client gets in with it, and whoever uses it finds it again."""
    async with developing(tmp_path) as url:
        client = await nats.connect(url)
        assert await client.jetstream().stream_info("IMAGES")
        await client.close()
    async with developing(tmp_path, "--json") as line:
        assert orjson.loads(line) == {"url": url}


async def test_dev_tells_the_next_step(tmp_path):
    """A line to copy, below the URL alone."""
    async with bwpool("dev", cwd=tmp_path) as dev:
        url, step = await dev.line(), await dev.line()
        dev.send(signal.SIGTERM)
        assert await dev.wait() == 0

    assert f"NATS_URL={url} bwpool run --out " in step
    assert dev.stdout == b""


async def test_failures_can_be_listed_while_the_server_runs(photo, tmp_path):
    """Through the server that has the store, with the password in it."""
    out = tmp_path / "out"
    async with bwpool(
        *("run", "--embedded", "--out", out, "--log-format", "json", "--procs", "1"),
        cwd=tmp_path,
    ) as run:
        told = await said(run, "server.ready")
        await said(run, "supervisor.ready")
        async with await Connection.open(find_running(out / ".bwpool")) as connection:
            await publish(connection, QueueSettings(), b"no job")
        await said(run, "job.failed")
        async with bwpool("failed", "list", "--out", out, "--json") as listing:
            assert await listing.wait() == 0, listing.stderr.decode()
        run.send(signal.SIGTERM)
        assert await run.wait() == 0

    password = Path(told["password_file"]).read_text()
    assert orjson.loads(listing.stdout)["kind"] == "invalid-job"
    assert password not in run.stderr.decode()


@pytest.mark.parametrize("command", ["backfill", "failed", "dev"])
async def test_a_damaged_consumer_is_explained_with_the_way_out(
    command, photo, tmp_path
):
    """Exit code 2 and what to move away; that done, it works again."""
    argv = {
        "backfill": ("backfill", photo.name, "--out", "out", "--force"),
        "failed": ("failed", "list", "--out", "out"),
        "dev": ("dev", "--store", "out/.bwpool"),
    }
    async with bwpool(*argv["backfill"], cwd=tmp_path) as first:
        assert await first.wait() == 0, first.stderr.decode()
    state = tmp_path / "out/.bwpool/jetstream/$G/streams/IMAGES/obs/BW/o.dat"
    os.truncate(state, state.stat().st_size // 2)
    async with bwpool(*argv[command], cwd=tmp_path) as damaged:
        assert await damaged.wait() == 2

    (line,) = damaged.stderr.decode().splitlines()
    words = shlex.split(line.partition("damaged: ")[2])
    assert words[0] == "move"
    shutil.move(tmp_path / words[1], tmp_path / "away")
    async with bwpool(*argv["backfill"], cwd=tmp_path) as again:
        assert await again.wait() == 0, again.stderr.decode()

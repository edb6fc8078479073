"""When a converter commits its outputs: together where others follow, else at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from test_pool import job, running

from bwpool.job import Converted, Job
from bwpool.pool.converter import GATHER, Work
from bwpool.settings import ConvertSettings


def noting(settings: ConvertSettings) -> Work:
    """Note how many outputs each commit has, in the file `commits` of the folder.

    A job called `nothing-…` has no output; each takes a millisecond.
    """
    commits = Path(settings.out) / "commits"

    def convert(
        job: Job, _on_stage: Callable[[str], None]
    ) -> tuple[Converted, str | None]:
        time.sleep(0.001)
        return Converted(job.id, 1, 1, 1), None if "nothing" in job.id else job.id

    def commit(outputs: Sequence[str]) -> list[None]:
        assert None not in outputs
        with commits.open("a") as file:
            file.write(f"{len(outputs)}\n")
        return [None] * len(outputs)

    return Work(convert, commit)


def commits(folder):
    return [int(line) for line in (folder / "commits").read_text().split()]


async def test_outputs_of_a_busy_converter_are_committed_together(tmp_path):
    """While further orders are at hand, outputs share a commit and an answer."""
    async with running(procs=1, load=noting, out=str(tmp_path)) as pool:
        for i in range(30):  # until it is known how short they are
            await pool.submit(job(f"first-{i}"))
        await asyncio.gather(*(pool.submit(job(f"ok-{i}")) for i in range(100)))

    sizes = commits(tmp_path)[30:]
    assert sum(sizes) == 100
    assert len(sizes) <= 50


async def test_an_output_waits_for_no_order_that_is_not_there(tmp_path):
    """One job after the other: each is committed as soon as it is converted."""
    took = []
    async with running(procs=1, load=noting, out=str(tmp_path)) as pool:
        for i in range(101):
            started = time.monotonic()
            await pool.submit(job(f"ok-{i}"))
            took.append(time.monotonic() - started)

    assert commits(tmp_path) == [1] * 101
    assert median(took[1:]) < GATHER


async def test_a_job_without_an_output_waits_for_none(tmp_path):
    """There is nothing to commit: the answer comes at once, whatever is at hand."""
    async with running(procs=1, load=noting, out=str(tmp_path)) as pool:
        names = [f"nothing-{i}" for i in range(50)]
        reports = await asyncio.gather(*(pool.submit(job(name)) for name in names))

    assert names == [report.outcome.output for report in reports]
    assert not (tmp_path / "commits").exists()

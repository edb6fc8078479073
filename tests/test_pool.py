"""The pool with real processes."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import workloads

from bwpool.errors import (
    BadImage,
    ConversionFailed,
    ConversionTimeout,
    ConverterCrashed,
    LimitExceeded,
    StorageUnavailable,
)
from bwpool.job import Converted, Job
from bwpool.pool.pool import Pool, PoolError
from bwpool.pool.report import NotBegun
from bwpool.settings import Amount, ConvertSettings


@asynccontextmanager
async def running(procs=2, timeout=30.0, load=workloads.misbehaving, **settings):
    pool = Pool(procs, ConvertSettings(**settings), timeout=timeout, load=load)
    try:
        await pool.start()
        yield pool
    finally:
        await pool.close()


def job(what):
    return Job(what, "file:///x.jpg")


def converters():
    """The converters among our children; the resource tracker is none."""
    return [
        child
        for child in psutil.Process().children()
        if "spawn_main" in " ".join(child.cmdline())
    ]


async def test_jobs_are_done_and_reported():
    """Each job's future gets what its own conversion came to."""
    async with running() as pool:
        reports = await asyncio.gather(
            *(pool.submit(job(f"ok-{i}")) for i in range(50))
        )

        assert [f"ok-{i}" for i in range(50)] == [r.outcome.output for r in reports]
        assert (
            repr(pool)
            == "<Pool [Slots: 2 ready, 0 other | Jobs: 0 ordered, 0 waiting]>"
        )


async def test_a_failed_conversion_says_why():
    """A JobError comes back with its kind and reason."""
    async with running() as pool:
        report = await pool.submit(job("bad-1"))

        assert isinstance(report.outcome, BadImage)
        assert report.outcome.reason == "no picture"


async def test_an_output_that_is_not_stored_costs_no_other(tmp_path):
    """Outputs are committed together, and yet each has an answer of its own."""
    async with running(procs=1, out=str(tmp_path)) as pool:
        names = [f"{'unstored' if i % 3 == 0 else 'ok'}-{i}" for i in range(60)]
        reports = await asyncio.gather(*(pool.submit(job(name)) for name in names))

    for name, report in zip(names, reports, strict=True):
        if name.startswith("ok"):
            assert report.outcome.output == name
            assert len((tmp_path / name).read_text().split()) == 1
        else:
            assert isinstance(report.outcome, StorageUnavailable)


async def test_a_bug_costs_one_job_and_not_the_converter():
    """An exception nobody foresaw is a failed conversion in the same process."""
    async with running(procs=1) as pool:
        before = converters()
        report = await pool.submit(job("bug-1"))

        assert isinstance(report.outcome, ConversionFailed)
        assert report.outcome.reason == "ZeroDivisionError: a bug in the conversion"
        assert before == converters()


async def test_a_crash_charges_one_job_and_says_what_killed_it():
    """The job under way is charged, with signal, stage and stderr; others go on."""
    async with running(procs=1) as pool:
        crashing = pool.submit(job("crash-1"))
        others = [pool.submit(job(f"ok-{i}")) for i in range(5)]
        report = await crashing

        assert isinstance(report.outcome, ConverterCrashed)
        assert report.death.signal == signal.SIGSEGV
        assert report.death.exitcode == -signal.SIGSEGV
        assert report.outcome.stage == "decode"
        assert "about to crash" in report.death.stderr
        assert report.death.doing.max_rss_bytes > 1_000_000
        for other in others:
            assert isinstance((await other).outcome, Converted)


async def test_many_crashes_take_no_innocent_along():
    """Whoever stands behind six jobs that crash is done by the seventh converter."""
    async with running(procs=1) as pool:
        for i in range(20):
            await pool.submit(job(f"ok-{i}"))
        crashing = [pool.submit(job(f"crash-{i}")) for i in range(6)]
        behind = await pool.submit(job("ok-behind"))

        assert isinstance(behind.outcome, Converted)
        for crash in crashing:
            assert isinstance((await crash).outcome, ConverterCrashed)


async def test_an_exit_code_is_told():
    """A converter that leaves by itself is a crash with its exit code."""
    async with running(procs=1) as pool:
        report = await pool.submit(job("exit-1"))

        assert isinstance(report.outcome, ConverterCrashed)
        assert report.death.exitcode == 7


async def test_an_overdue_conversion_is_killed_in_time():
    """A hang costs its own slot, half a second past the timeout at most."""
    async with running(procs=2, timeout=1.0) as pool:
        started = time.monotonic()
        hanging = pool.submit(job("sleep60-1"))
        others = [pool.submit(job(f"ok-{i}")) for i in range(20)]
        await asyncio.gather(*others)
        others_done = time.monotonic() - started
        report = await hanging

        assert others_done < 1.0
        assert isinstance(report.outcome, ConversionTimeout)
        assert 1.0 <= time.monotonic() - started < 1.5
        assert report.death.signal == signal.SIGKILL


async def test_a_job_behind_a_hang_is_not_charged():
    """What was ordered behind an overdue conversion is done by the replacement."""
    async with running(procs=1, timeout=0.5) as pool:
        for i in range(20):
            await pool.submit(job(f"ok-{i}"))
        hanging = pool.submit(job("sleep60-1"))
        behind = pool.submit(job("ok-behind"))

        assert isinstance((await hanging).outcome, ConversionTimeout)
        assert isinstance((await behind).outcome, Converted)


async def test_converters_ignore_the_signals_that_drain():
    """SIGINT and SIGTERM reach the converters too, and end nothing."""
    async with running(procs=1) as pool:
        (converter,) = converters()
        sleeping = pool.submit(job("sleep0.5-1"))
        converter.send_signal(signal.SIGINT)
        converter.send_signal(signal.SIGTERM)

        assert isinstance((await sleeping).outcome, Converted)
        assert [converter] == converters()


async def test_an_idle_converter_that_dies_is_replaced():
    """Nobody is charged for a death between two jobs."""
    async with running(procs=1) as pool:
        (converter,) = converters()
        converter.kill()
        report = await pool.submit(job("ok-1"))

        assert isinstance(report.outcome, Converted)
        assert report.pid != converter.pid


async def test_a_stopped_converter_does_not_hinder_closing():
    """Even a converter in SIGSTOP is gone after close."""
    async with running(procs=2):
        stopped, _ = converters()
        stopped.suspend()

    assert converters() == []


async def test_withdrawn_jobs_come_back_untouched():
    """Draining hands back what is waiting or not begun, and finishes the rest."""
    async with running(procs=1) as pool:
        for i in range(20):
            await pool.submit(job(f"ok-{i}"))
        running_job = pool.submit(job("sleep0.5-1"))
        rest = [pool.submit(job(f"ok-{i}")) for i in range(100)]
        await wait_for_begin(pool)
        pool.withdraw()

        assert [(await future).outcome for future in rest] == [NotBegun()] * 100
        assert isinstance((await running_job).outcome, Converted)


async def wait_for_begin(pool):
    """Wait until a converter says that it is at work."""
    async with asyncio.timeout(5):
        while not any(slot.doing().tag for slot in pool._slots):
            await asyncio.sleep(0.005)


async def test_abandoned_jobs_come_back_uncharged():
    """Stopping at once kills the converters and hands back everything."""
    async with running(procs=1) as pool:
        sleeping = pool.submit(job("sleep60-1"))
        waiting = pool.submit(job("ok-1"))
        pool.abandon()

        assert (await sleeping).outcome == NotBegun()
        assert (await waiting).outcome == NotBegun()


async def test_memory_has_a_ceiling():
    """A job that wants more than the ceiling fails; the converter lives on."""
    async with running(procs=1, max_memory=Amount("500M")) as pool:
        report = await pool.submit(job("memory-1"))

        assert isinstance(report.outcome, LimitExceeded)
        assert isinstance((await pool.submit(job("ok-1"))).outcome, Converted)


async def test_what_the_kernel_kills_is_told_with_its_memory():
    """A death by SIGKILL that was not ours names the likely cause, and the peak."""
    async with running(procs=1) as pool:
        report = await pool.submit(job("oom-1"))

        assert isinstance(report.outcome, ConverterCrashed)
        assert "out of memory" in report.outcome.reason
        assert "in stage decode" in report.outcome.reason
        assert report.death.signal == signal.SIGKILL


async def test_peak_memory_of_an_overdue_conversion_is_known():
    """What it took after its stage began is told as well."""
    async with running(procs=1, timeout=0.5) as pool:
        report = await pool.submit(job("hoard-1"))

        assert isinstance(report.outcome, ConversionTimeout)
        assert report.death.doing.max_rss_bytes > 200_000_000


async def test_converters_are_replaced_after_their_jobs(tmp_path):
    """Every job is done once, and no converter does many more than it should."""
    settings = {"out": str(tmp_path), "recycle_jobs": 20, "no_sync": True}
    deaths = []
    async with running(procs=2, **settings) as pool:
        pool.on_death = lambda cause, _death: deaths.append(cause)
        async with asyncio.timeout(30):
            done = 0
            while deaths.count("recycle") < 3:
                batch = [pool.submit(job(f"sleep0.01-{done + i}")) for i in range(10)]
                done += len(batch)
                for report in await asyncio.gather(*batch):
                    assert isinstance(report.outcome, Converted)
        assert pool.ready_slots >= 2

    doers = [path.read_text().split() for path in tmp_path.iterdir()]
    assert len(doers) == done
    assert {1} == {len(pids) for pids in doers}
    assert set(deaths) <= {"recycle", "stop"}


async def test_converters_that_grow_are_replaced():
    """Memory that is kept, not memory that was needed once, ends a converter."""
    deaths = []
    settings = {"recycle_growth": Amount("50M")}
    async with running(procs=1, **settings) as pool:
        pool.on_death = lambda cause, death: deaths.append((cause, death.pid))
        first = (await pool.submit(job("need-1"))).pid
        for i in range(3):
            assert (await pool.submit(job(f"grow-{i}"))).pid == first
        async with asyncio.timeout(20):
            while not deaths:
                await pool.submit(job("sleep0.01-1"))

    assert deaths[0] == ("recycle", first)


async def test_a_crash_while_a_successor_starts_leaves_the_right_number():
    """A tired converter that dies before its successor is ready is replaced once."""
    async with running(procs=1, recycle_jobs=1) as pool:
        await pool.submit(job("ok-1"))
        report = await pool.submit(job("crash-1"))
        after = [await pool.submit(job(f"ok-{i}")) for i in range(3)]

        assert isinstance(report.outcome, ConverterCrashed)
        assert all(isinstance(report.outcome, Converted) for report in after)
        assert len(converters()) <= 2


async def test_an_answer_that_makes_no_sense_costs_the_converter():
    """Garbage on the channel is a crash, not the supervisor's end."""
    async with running(procs=1) as pool:
        report = await pool.submit(job("garbage-1"))

        assert isinstance(report.outcome, ConverterCrashed)
        assert isinstance((await pool.submit(job("ok-1"))).outcome, Converted)


async def test_converters_that_do_not_start_break_the_pool():
    """A library that is missing is told once, instead of starting for ever."""
    with pytest.raises(PoolError, match="libvips is not there"):
        async with running(load=workloads.failing_to_load):
            pass


async def test_converters_die_with_their_supervisor(tmp_path):
    """No converter survives a supervisor killed by SIGKILL."""
    script = tmp_path / "supervisor.py"
    script.write_text(ORPHANING.format(tests=str(Path(__file__).parent)))
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(script), stdout=asyncio.subprocess.PIPE
    )
    pids = [int(pid) for pid in (await child.stdout.readline()).split()]
    processes = [psutil.Process(pid) for pid in pids]
    child.kill()
    await child.wait()

    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, 3)
    assert len(pids) == 2
    assert alive == []


ORPHANING = """
import asyncio, sys
sys.path.insert(0, {tests!r})
import psutil, workloads
from bwpool.pool.pool import Pool
from bwpool.pool.report import NotBegun
from bwpool.job import Job
from bwpool.settings import ConvertSettings

async def main():
    pool = Pool(2, ConvertSettings(), timeout=60, load=workloads.misbehaving)
    await pool.start()
    pool.submit(Job("sleep60-1", "file:///x"))
    print(*(slot.pid for slot in pool._slots), flush=True)
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


async def test_a_pool_can_be_closed_while_it_starts():
    """Whatever else fails at the start, no converter stays behind."""
    pool = Pool(2, ConvertSettings(), timeout=30, load=workloads.misbehaving)
    starting = asyncio.ensure_future(pool.start())
    await asyncio.sleep(0)
    starting.cancel()
    await pool.close()

    assert converters() == []

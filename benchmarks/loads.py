"""What converters do that convert nothing: they return at once, or sleep.

Also run as a program, `python -m benchmarks.loads SLOTS SECONDS DURATION`: the sleepers
alone, without pool or queue; prints how often they slept a second, all together.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

from bwpool.job import Converted, Job
from bwpool.pool.converter import Load, Work
from bwpool.settings import ConvertSettings


def idling(_settings: ConvertSettings) -> Work:
    """Do nothing."""

    def convert(job: Job, _on_stage: Callable[[str], None]) -> tuple[Converted, None]:
        return Converted(job.id, 0, 0, 0), None

    return Work(convert, lambda outputs: [None] * len(outputs))


def sleeping(seconds: float, short: str, settings: ConvertSettings) -> Work:
    """Sleep, as if something else converted meanwhile; not for ids that begin so."""
    idle = idling(settings)

    def convert(job: Job, on_stage: Callable[[str], None]) -> tuple[Converted, None]:
        if not short or not job.id.startswith(short):
            time.sleep(seconds)
        return idle.convert(job, on_stage)

    return replace(idle, convert=convert)


def load_for(seconds: float, short: str = "") -> Load:
    """Return what sleeps for `seconds` a job; at 0 it does nothing at all.

    Jobs whose ids begin with `short` are done at once, if that isn't empty.
    """
    return partial(sleeping, seconds, short) if seconds else idling


def alone(slots: int, seconds: float, duration: float) -> float:
    """Let sleepers sleep for `duration`; return how often they did a second."""
    # Nothing here has threads, and nobody wants to wait for 256 interpreters.
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(slots)
    pipes = [context.Pipe(duplex=False) for _ in range(slots)]
    for _, theirs in pipes:
        given = (seconds, duration, barrier, theirs)
        context.Process(target=_sleep_alone, args=given, daemon=True).start()
    counts: list[int] = [ours.recv() for ours, _ in pipes]
    return sum(counts) / duration


def _sleep_alone(
    seconds: float, duration: float, barrier: Barrier, result: Connection
) -> None:
    work = load_for(seconds)(ConvertSettings())
    job = Job("alone", "file:///alone")
    count = 0
    barrier.wait()
    end = time.monotonic() + duration
    while time.monotonic() < end:
        work.convert(job, lambda _stage: None)
        count += 1
    result.send(count)


if __name__ == "__main__":
    _, slots, seconds, duration = sys.argv
    print(alone(int(slots), float(seconds), float(duration)))

"""What a supervisor does in one round, at what cost, and what sleepers do alone."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from subprocess import PIPE

from benchmarks.command import Found
from benchmarks.processes import group_cpu_seconds, running
from benchmarks.queues import Queue, empty_jobs
from benchmarks.supervise import Stamp, Work
from benchmarks.supervised import supervised
from benchmarks.turns import ratios, summary


@dataclass(frozen=True, slots=True)
class Round:
    """One round of one supervisor."""

    jobs_per_s: float
    cpu_us_per_job: float
    server_us_per_job: float
    """The server's CPU: delivery, advisory, ack; not the publishing."""
    converters_us_per_job: float
    """The converters' CPU, all of them: the channel, where they do nothing."""
    written_bytes_per_job: float
    """What the server had written to the disk meanwhile."""


async def drain(queue: Queue, work: Work, jobs: int) -> Round:
    """Fill the queue, then let a new supervisor empty it."""
    await queue.fill(empty_jobs(jobs))
    server, written = queue.cpu_seconds, queue.written_bytes
    async with supervised(queue.url, work) as supervisor:
        group = supervisor.process.pid
        everybody = group_cpu_seconds(group)
        last = await supervisor.until(jobs)
        everybody = group_cpu_seconds(group) - everybody
        server = queue.cpu_seconds - server
        written = queue.written_bytes - written
        await check_empty(queue)
    first = supervisor.stamps[0]
    return Round(
        jobs_per_s=jobs / (last.time - first.time),
        cpu_us_per_job=cost(first, last),
        server_us_per_job=server / jobs * 1e6,
        converters_us_per_job=max(0.0, everybody / jobs * 1e6 - cost(first, last)),
        written_bytes_per_job=written / jobs,
    )


def cost(first: Stamp, last: Stamp) -> float:
    """Return the microseconds of CPU that a job cost between two stamps."""
    return (last.cpu - first.cpu) / (last.settled - first.settled) * 1e6


async def check_empty(queue: Queue) -> None:
    """Exit unless all that was published is acknowledged."""
    if left := await queue.left():
        sys.exit(f"all is settled, but {left} messages are still in the stream")


async def sleep_alone(slots: int, nap: float, duration: float) -> float:
    """Return how often sleepers sleep a second, without pool or queue."""
    given = map(str, (slots, nap, duration))
    command = (sys.executable, "-m", "benchmarks.loads", *given)
    async with running(*command, stdout=PIPE) as process:
        answer, _ = await process.communicate()
    return float(answer)


def describe(rounds: list[Round]) -> Found:
    """Summarize each figure over the rounds."""
    return {
        field.name: summary([getattr(one, field.name) for one in rounds])
        for field in fields(Round)
    }


def compared(rounds: list[Round], alone: list[float]) -> Found:
    """Summarize sleepers behind a queue beside the same sleepers alone."""
    return {
        **describe(rounds),
        "alone_per_s": summary(alone),
        "share_of_alone": ratios([one.jobs_per_s for one in rounds], alone),
    }

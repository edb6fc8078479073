"""Who converts against whom, how each is set up, fed, and known to be done.

All of them get the same pictures and as many processes as there are cores. A queue is
filled while its workers are held still, after they have warmed up; the clock runs from
their release until the server says that nothing is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import time
from abc import ABC, abstractmethod
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.corpus import Sample
from benchmarks.outputs import verify
from benchmarks.processes import cpu_seconds, held_still, running
from benchmarks.queues import Queue, job
from benchmarks.redis import Redis

SETTLE = 1.0
"""Seconds for a worker that came late to the warming up."""

WARM_UP = 1 / 8
"""How many jobs come before those that count, as a share of them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What a contender converts in one round: each sample equally often."""

    samples: tuple[Sample, ...]
    count: int
    out: Path
    procs: int
    settle: float = SETTLE

    def jobs(self, prefix: str, count: int) -> list[tuple[str, Path]]:
        """Name jobs: the output's name without extension, and the source."""
        return [
            (f"{prefix}{number}", self.samples[number % len(self.samples)].path)
            for number in range(count)
        ]

    def warm_up(self) -> list[bytes]:
        """Write the jobs that come before the clock starts."""
        count = max(2 * self.procs, round(self.count * WARM_UP))
        return self.payloads("warm-", count)

    def payloads(self, prefix: str, count: int) -> list[bytes]:
        """Write jobs as messages."""
        return [job(name, path.as_uri()) for name, path in self.jobs(prefix, count)]

    def outputs(self) -> dict[Path, Path]:
        """Say where the outputs have to be, and what each was made of."""
        return {
            self.out / f"{name}{source.suffix}": source
            for name, source in self.jobs("", self.count)
        }


@dataclass(frozen=True, slots=True)
class Timing:
    """What a batch took."""

    seconds: float
    cpu_seconds: float = 0.0
    """CPU of the process that was started, not of those that it started; 0: unknown."""
    server_cpu_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """What a contender did in one round."""

    images_per_s: float
    off: float
    """The largest difference in mean tone, of 255."""
    cpu_us_per_job: float
    server_us_per_job: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender(ABC):
    """A way to convert many pictures."""

    name: str
    method: str
    """How it is set up, in a few words for the tables."""
    start_up: float
    per_megapixel: float
    """Roughly the seconds a picture, to choose how many make a round."""
    needs: str = ""
    """What it lacks here; empty if it can run."""
    is_peer: bool = True
    keeps_tone: bool = True

    @abstractmethod
    async def convert(self, batch: Batch) -> Timing:
        """Convert a batch and return the seconds it took."""

    def count_for(self, seconds: float, samples: Sequence[Sample], procs: int) -> int:
        """Return how many pictures take about so long, each sample equally often."""
        size = sum(sample.megapixels for sample in samples) / len(samples)
        each = self.start_up + self.per_megapixel * size
        cycles = round(seconds * procs / each / len(samples))
        return len(samples) * max(cycles, procs)


@dataclass(frozen=True, slots=True, kw_only=True)
class OnJetStream(Contender):
    """Workers that pull from the seed's queue."""

    queue: Queue
    command: tuple[str, ...]
    """`{out}`, `{url}` and `{procs}` are filled in."""
    times: int | None = None
    """How often to start it; None: once, and it starts `procs` processes itself."""
    env: dict[str, str] = field(default_factory=dict)

    async def convert(self, batch: Batch) -> Timing:
        """Start the workers, and time them."""
        async with contextlib.AsyncExitStack() as stack:
            workers = [
                await stack.enter_async_context(self._worker(batch))
                for _ in range(self.times or 1)
            ]
            await self.queue.fill(batch.warm_up())
            await self.queue.wait_until_empty()
            await asyncio.sleep(batch.settle)
            with held_still(*workers):
                await self.queue.fill(batch.payloads("", batch.count))
            started, cpu = time.monotonic(), cpu_seconds(workers[0].pid)
            server_cpu = self.queue.cpu_seconds
            await self.queue.wait_until_empty()
            return Timing(
                time.monotonic() - started,
                cpu_seconds(workers[0].pid) - cpu,
                self.queue.cpu_seconds - server_cpu,
            )

    @contextlib.asynccontextmanager
    async def _worker(self, batch: Batch) -> AsyncIterator[asyncio.subprocess.Process]:
        words = {"out": batch.out, "url": self.queue.url, "procs": batch.procs}
        command = [word.format(**words) for word in self.command]
        env = {name: value.format(**words) for name, value in self.env.items()}
        with (batch.out / f"log-{os.urandom(4).hex()}").open("wb") as log:
            async with running(*command, env=env, stderr=log) as process:
                yield process


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRedis(Contender):
    """Celery's workers, and Redis between them and us."""

    python: str

    async def convert(self, batch: Batch) -> Timing:
        """Start Redis and the workers, and time them."""
        program = (self.python, "-m", "benchmarks.peers.celery_app")
        async with Redis.serving(batch.out.parent / "redis") as redis:
            env = {"BROKER": redis.url, "OUT": str(batch.out)}
            command = (*program, "work", str(batch.procs))
            with (batch.out / "log").open("wb") as log:
                async with running(*command, env=env, stderr=log) as workers:
                    await _feed((*program, "publish"), batch.warm_up(), env)
                    await redis.wait_until_empty()
                    await asyncio.sleep(batch.settle)
                    with held_still(workers):
                        payloads = batch.payloads("", batch.count)
                        await _feed((*program, "publish"), payloads, env)
                    started = time.monotonic()
                    await redis.wait_until_empty()
                    return Timing(time.monotonic() - started)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByParallel(Contender):
    """GNU parallel: a command a picture, no queue; its own start is timed, too."""

    command: tuple[str, ...]

    async def convert(self, batch: Batch) -> Timing:
        """Time the whole command."""
        jobs = batch.jobs("", batch.count)
        pairs = [f"{path}\t{batch.out / name}{path.suffix}" for name, path in jobs]
        columns = ("--colsep", "\t", "--will-cite")
        command = (
            "parallel",
            f"-j{batch.procs}",
            *columns,
            *self.command,
            "{1}",
            "{2}",
        )
        started = time.monotonic()
        await _feed(command, [pair.encode() for pair in pairs], {})
        return Timing(time.monotonic() - started)


@dataclass(frozen=True, slots=True, kw_only=True)
class BarePool(Contender):
    """Our converters without a queue."""

    sync: bool = True

    async def convert(self, batch: Batch) -> Timing:
        """Start the converters, and time them."""
        sync = "sync" if self.sync else "no"
        given = (str(batch.procs), str(batch.out), sync)
        command = (sys.executable, "-m", "benchmarks.bare", *given)
        jobs = [*batch.warm_up(), b""]
        jobs += batch.payloads("", batch.count)
        async with running(*command, stdin=PIPE, stdout=PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"\n".join(jobs))
            process.stdin.close()
            await process.stdout.readuntil(b"ready\n")
            started = time.monotonic()
            await process.stdout.readuntil(b"done\n")
            timing = Timing(time.monotonic() - started)
            if await process.wait():
                sys.exit("the bare pool failed")
            return timing


async def take_turn(contender: Contender, batch: Batch) -> Turn:
    """Let a contender convert a batch, and look at what it made."""
    batch.out.mkdir(parents=True)
    timing = await contender.convert(batch)
    seen = verify(contender.name, batch.outputs(), keeps_tone=contender.keeps_tone)
    shutil.rmtree(batch.out)
    # What is still to be written would burden whoever comes next.
    await asyncio.to_thread(os.sync)
    return Turn(
        images_per_s=batch.count / timing.seconds,
        off=seen.off,
        cpu_us_per_job=timing.cpu_seconds / batch.count * 1e6,
        server_us_per_job=timing.server_cpu_seconds / batch.count * 1e6,
    )


async def _feed(
    command: Sequence[str], lines: list[bytes], env: dict[str, str]
) -> None:
    """Run a command to its end, with lines on its standard input."""
    async with running(*command, env=env, stdin=PIPE, stdout=DEVNULL) as process:
        await process.communicate(b"\n".join(lines) + b"\n")
        if process.returncode:
            sys.exit(f"{command[0]} failed: exit code {process.returncode}")

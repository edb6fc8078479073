"""How a supervisor in a process of its own is followed from outside."""

from __future__ import annotations

import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from dataclasses import asdict

from benchmarks.processes import running
from benchmarks.supervise import Stamp, Work


class Supervised:
    """A supervisor in a process of its own."""

    def __init__(self, process: Process, first: Stamp) -> None:
        self.process = process
        self.stamps = [first]

    async def until(self, settled: int) -> Stamp:
        """Wait until so many jobs are settled; a multiple of what it stamps at."""
        while self.stamps[-1].settled < settled:
            self.stamps.append(await _read_stamp(self.process))
        return self.stamps[-1]


@contextlib.asynccontextmanager
async def supervised(url: str, work: Work) -> AsyncIterator[Supervised]:
    """Run a supervisor; its first stamp is from just before its first pull."""
    command = (sys.executable, "-m", "benchmarks.supervise", url)
    async with running(*command, json.dumps(asdict(work)), stdout=PIPE) as process:
        yield Supervised(process, await _read_stamp(process))


async def _read_stamp(process: Process) -> Stamp:
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise RuntimeError(f"a supervisor ended: exit code {await process.wait()}")
    return Stamp(**json.loads(line))

"""How the contenders' processes are started, held still, looked at and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO

from benchmarks.host import ROOT

LEASH = Path(__file__).parent / "leash.py"
TICK = os.sysconf("SC_CLK_TCK")


@contextlib.asynccontextmanager
async def running(
    *command: str,
    env: dict[str, str] | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
    stdout: int | IO[bytes] = asyncio.subprocess.DEVNULL,
    stderr: int | IO[bytes] | None = None,
) -> AsyncIterator[Process]:
    """Run a command in a process group of its own; ended with everything it started.

    It is asked to end first: what it left half done would disturb the next contender.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", str(LEASH), *command),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        start_new_session=True,
        limit=1 << 20,
    )
    try:
        yield process
    finally:
        await end(process)


async def end(process: Process, patience: float = 5.0) -> None:
    """End a process group: SIGTERM to its leader, then SIGKILL to what is left."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
        os.killpg(process.pid, signal.SIGCONT)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


@contextlib.contextmanager
def held_still(*processes: Process) -> Iterator[None]:
    """Suspend process groups, so that what is prepared for them is not begun."""
    for process in processes:
        os.killpg(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.killpg(process.pid, signal.SIGCONT)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, all its threads; 0 if unknown."""
    return _group_and_cpu(Path(f"/proc/{pid}"))[1]


def group_cpu_seconds(group: int) -> float:
    """Return the CPU time of all processes of a group that still run."""
    every = map(_group_and_cpu, Path("/proc").glob("[0-9]*"))
    return sum(seconds for number, seconds in every if number == group)


def _group_and_cpu(process: Path) -> tuple[int, float]:
    try:
        stat = (process / "stat").read_text()
    except OSError:
        return 0, 0.0
    fields = stat.rpartition(")")[2].split()
    return int(fields[2]), (int(fields[11]) + int(fields[12])) / TICK


def written_bytes(pid: int) -> int:
    """Return how much a process has had written to disks; 0 if unknown."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return 0
    fields = dict(line.split(": ") for line in lines)
    return int(fields["write_bytes"])

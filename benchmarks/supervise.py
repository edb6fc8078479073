"""What a supervisor has settled by when, and what that has cost.

Runs one in this process and prints a stamp at the start, and then after every so many
jobs whose acks the server has confirmed:

    python -m benchmarks.supervise URL '{"procs": 2, "seconds": 0, "every": 1000}'

Converters import this module too, as their parent's, so it imports the rest late.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bwpool.settlement import Settlement


@dataclass(frozen=True, slots=True)
class Work:
    """What a supervisor is to do."""

    procs: int
    seconds: float | None = 0.0
    """How long each job sleeps; None: convert its picture."""
    short: str = ""
    """Ids that begin so are of jobs that do not sleep."""
    every: int = 1000
    """Jobs between two stamps."""
    out: str = ""
    no_sync: bool = False


@dataclass(frozen=True, slots=True)
class Stamp:
    """How far a supervisor was at some moment."""

    settled: int
    """Jobs whose acks are confirmed."""
    time: float
    """By `time.monotonic`, which all processes of a machine share."""
    cpu: float
    """The supervisor's CPU time, all its threads, converters not included."""
    converting: float
    """Seconds that the last job's conversion took, up to its sync."""


class Stamps:
    """Counts settlements, and prints stamps."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._settled = 0

    def note(self, settlement: Settlement) -> None:
        """Count a settlement; only completed jobs are expected here."""
        self._settled += 1
        if self._settled % self._every == 0:
            converted = settlement.verdict.converted  # type: ignore[union-attr]
            self.print(sum(converted.stages.values()))

    def print(self, converting: float = 0.0) -> None:
        """Say where we are."""
        now, cpu = time.monotonic(), time.process_time()
        stamp = Stamp(self._settled, now, cpu, converting)
        print(json.dumps(asdict(stamp)), flush=True)


async def supervise(url: str, work: Work) -> int:
    """Supervise until a signal."""
    from benchmarks.loads import load_for
    from bwpool.cli.session import supervising, until_stopped
    from bwpool.pool.converter import load_conversion
    from bwpool.queue.contexts import resolve
    from bwpool.settings import (
        ConvertSettings,
        PoolSettings,
        QueueSettings,
        RunSettings,
        ServerSettings,
    )

    stamps = Stamps(work.every)
    endpoint = resolve(ServerSettings(server=url), environ={})
    assert endpoint is not None
    async with supervising(
        endpoint,
        QueueSettings(),
        ConvertSettings(out=work.out, no_sync=work.no_sync),
        PoolSettings(procs=work.procs),
        RunSettings(),
        load=load_conversion
        if work.seconds is None
        else load_for(work.seconds, work.short),
    ) as supervisor:
        supervisor.deliveries.on_settled.append(stamps.note)
        asyncio.get_running_loop().call_soon(stamps.print)  # the signals are heeded
        return await until_stopped(supervisor, is_burst=False)


def main(url: str, work: Work) -> int:
    """Run a supervisor as the command line does."""
    import uvloop

    from bwpool.cli.common import CommonSettings, configure_logging

    configure_logging(CommonSettings(log_level="warning"))
    return uvloop.run(supervise(url, work))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Work(**json.loads(sys.argv[2]))))

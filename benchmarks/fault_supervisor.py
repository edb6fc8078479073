"""A supervisor in a process of its own, whose converters misbehave where an id says so.

Started by `faults` as `python -m benchmarks.fault_supervisor URL '{"out": …}'`. All
other jobs are converted as they always are. What is converted leaves a line in a log,
so that conversions done twice can be counted.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bwpool.errors import JobError
from bwpool.job import Converted, Job
from bwpool.pool.converter import Work, load_conversion
from bwpool.settings import ConvertSettings
from bwpool.supervisor import Supervisor

LOG = "conversions.log"
"""Beside the output folder: a line for each output that got its name."""


def note(log: Path, job_id: str) -> None:
    """Append a line in one write, since several processes do."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{job_id}\n".encode())
    os.close(file)


Output = tuple[Any, str]
"""What `bwpool` has to commit, None for nothing; and the job's id."""


TROUBLES = {
    "pread": ".unreadable",
    "pwrite": ".full",
    "fsync": ".unsynced",
    "rename": ".unplaced",
}
"""By system call: what is added to the output folder's name for the file that has the
call fail while it is there. What is synced is a folder then, and what is renamed gets
a name that begins with `unplaced`."""

_NUMBERS = {
    "pread": errno.EIO,
    "pwrite": errno.ENOSPC,
    "fsync": errno.EIO,
    "rename": errno.EPERM,
}


def _make_trouble(out: str) -> None:
    """Have system calls of this process fail where `TROUBLES` says so."""
    for name, suffix in TROUBLES.items():
        setattr(os, name, _failing(name, Path(out + suffix)))


def _failing(name: str, trouble: Path) -> Callable[..., Any]:
    real = getattr(os, name)

    def call(*args: Any, **folders: int) -> Any:
        if trouble.exists() and _is_meant(name, args):
            raise OSError(_NUMBERS[name], os.strerror(_NUMBERS[name]))
        return real(*args, **folders)

    return call


def _is_meant(name: str, args: tuple[Any, ...]) -> bool:
    if name == "fsync":
        return stat.S_ISDIR(os.fstat(args[0]).st_mode)
    return name != "rename" or str(args[1]).startswith("unplaced")


def load(settings: ConvertSettings) -> Work:
    """Load the conversion, and what an id's first word does instead of it."""
    _make_trouble(settings.out)
    real = load_conversion(settings)
    log = Path(settings.out).with_name(LOG)

    def convert(job: Job, on_stage: Callable[[str], None]) -> tuple[Converted, Output]:
        on_stage("decode")
        what = job.id.partition("-")[0]
        if what in DEEDS:
            note(log.with_name("begun.log"), job.id)
            DEEDS[what]()
        if what == "noop":
            return Converted(job.id, 1, 1, 1), (None, job.id)
        converted, pending = real.convert(job, on_stage)
        return converted, (pending, job.id)

    def commit(outputs: Sequence[Output]) -> list[JobError | None]:
        committed = iter(real.commit([one for one, _ in outputs if one is not None]))
        errors = [None if one is None else next(committed) for one, _ in outputs]
        for (_, job_id), error in zip(outputs, errors, strict=True):
            if error is None:
                note(log, job_id)
        return errors

    return Work(convert, commit)


DEEDS: dict[str, Callable[[], None]] = {
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "hang": lambda: time.sleep(3600),
    "killsupervisor": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "slow": lambda: time.sleep(0.5),
    "nap": lambda: time.sleep(0.02),
}


async def main(url: str, options: dict[str, Any]) -> int:
    """Supervise until a signal, or in a burst until the queue is empty."""
    from bwpool.cli.common import CommonSettings, configure_logging
    from bwpool.cli.session import supervising, until_stopped
    from bwpool.queue.contexts import Endpoint
    from bwpool.settings import PoolSettings, QueueSettings, RunSettings

    level = options.get("log_level", "warning")
    configure_logging(CommonSettings(log_format="json", log_level=level))
    ending = RunSettings(burst=options.get("burst", False))
    roots = tuple(map(Path, options.get("source_root", ())))
    convert = ConvertSettings(out=options["out"], source_root=roots)
    slots = PoolSettings(procs=options["procs"], timeout=options["timeout"])
    async with supervising(
        Endpoint(urls=tuple(url.split(","))),
        QueueSettings(),
        convert,
        slots,
        ending,
        load=load,
    ) as supervisor:
        # Said once the signals are heeded.
        asyncio.get_running_loop().call_soon(partial(print, "ready", flush=True))
        counting = asyncio.ensure_future(_count(supervisor, options.get("held")))
        try:
            return await until_stopped(supervisor, is_burst=ending.burst)
        finally:
            counting.cancel()


async def _count(supervisor: Supervisor, log: str | None) -> None:
    """Note how many leases are held, again and again."""
    while log is not None:
        await asyncio.sleep(0.02)
        note(Path(log), str(len(supervisor.deliveries)))


if __name__ == "__main__":
    # What converters load is pickled by its module's name, which this is not.
    from benchmarks import fault_supervisor  # noqa: PLW0406

    sys.exit(asyncio.run(fault_supervisor.main(sys.argv[1], json.loads(sys.argv[2]))))

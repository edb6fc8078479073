"""Converters that misbehave, each by what the job's id asks for.

Picklable by reference, since they run in real converter processes.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bwpool.errors import (
    BadImage,
    ConversionFailed,
    SourceMissing,
    StorageUnavailable,
)
from bwpool.job import Converted, Job
from bwpool.pool.converter import Work, load_conversion
from bwpool.settings import ConvertSettings


def misbehaving(settings: ConvertSettings) -> Work:
    """Do what the id says before its first `-`: `crash-1`, `sleep0.5-2`, `bad-3`.

    `begin0.5-4` sleeps as well, after a line in the file `begun`. Where there is an
    output folder, a job leaves a line there in the file of its id, so that a test can
    count conversions; `unstored-5` can't, nor anything while there is a file beside
    the folder, `.sick` added to its name.
    """
    out = Path(settings.out) if settings.out else None

    def convert(job: Job, on_stage: Callable[[str], None]) -> tuple[Converted, str]:
        on_stage("decode")
        what = job.id.partition("-")[0]
        if what.startswith("begin"):
            note(out / "begun")
            what = what.replace("begin", "sleep")
        act(what)
        return Converted(job.id, 1, 1, 1), job.id

    def commit(outputs: Sequence[str]) -> list[StorageUnavailable | None]:
        return [store(out, output) for output in outputs]

    return Work(convert, commit)


def store(out: Path | None, output: str) -> StorageUnavailable | None:
    if output.startswith("unstored") or Path(f"{out}.sick").exists():
        return StorageUnavailable("no room for this one")
    if out is not None:
        note(out / output)
    return None


def note(path: Path) -> None:
    """Write a line in one go, since several processes do."""
    with path.open("a") as file:
        file.write(f"{os.getpid()}\n")


_hoard: list[bytes] = []
"""What is never given back."""


def act(what: str) -> None:
    """Misbehave."""
    if what in DEATHS:
        DEATHS[what]()
    elif what in MEMORY:
        MEMORY[what]()
    elif what == "garbage":
        os.write(_channel_fd(), b"garbage\n")
    elif what == "bug":
        raise ZeroDivisionError("a bug in the conversion")
    elif what == "bad":
        raise BadImage("no picture")
    elif what == "missing":
        raise SourceMissing("not there yet")
    elif what == "failed":
        raise ConversionFailed("not today")
    elif what == "storage":
        raise StorageUnavailable("disk full")
    elif what.startswith("sleep"):
        time.sleep(float(what.removeprefix("sleep")))


def crash() -> None:
    print("about to crash", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def die_of_memory() -> None:
    """Grow, and be killed as the kernel does with who took most."""
    take()
    os.kill(os.getpid(), signal.SIGKILL)


def take(size: int = 200_000_000) -> None:
    """Take memory and keep it."""
    _hoard.append(b"x" * size)


def take_and_hang() -> None:
    take()
    time.sleep(60)


DEATHS = {
    "crash": crash,
    "exit": lambda: os._exit(7),
    "killsupervisor": lambda: os.kill(os.getppid(), signal.SIGKILL),
    "oom": die_of_memory,
}

MEMORY = {
    "memory": lambda: bytearray(1 << 34),
    "need": lambda: b"x" * 200_000_000,
    "grow": lambda: take(20_000_000),
    "hoard": take_and_hang,
}


def _channel_fd() -> int:
    from bwpool.pool import converter

    return converter._channel.fileno()


def bug(*_args: object, **_options: object) -> None:
    """Stand for any function of ours that has a bug."""
    raise ZeroDivisionError("nobody foresaw this")


def failing_to_load(settings: ConvertSettings) -> Work:
    """Never get ready."""
    raise ImportError("libvips is not there")


def faulty(settings: ConvertSettings) -> Work:
    """Convert as always, but for system calls that fail by the names they are given.

    A rename to `unplaced…` is not permitted. Nothing can be read below a folder that
    has a file beside it, `.away` added to its name, nor any source called `rotten…`.
    """
    real = {name: getattr(os, name) for name in ("rename", "pread")}

    def rename(old: str, new: str, **folders: int) -> None:
        if new.startswith("unplaced"):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        real["rename"](old, new, **folders)

    def pread(file: int, *args: int) -> bytes:
        path = Path(f"/proc/self/fd/{file}").readlink()
        away = any(Path(f"{folder}.away").exists() for folder in path.parents)
        if away or path.name.startswith("rotten"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real["pread"](file, *args)

    os.rename, os.pread = rename, pread
    return load_conversion(settings)

"""Whether a folder still lies on what was mounted there.

A storage that is unmounted leaves its mount point behind, an empty folder that outputs
would vanish in and that no source is found in. Called by `source` and `output`, and by
whoever starts a supervisor, to learn which mounts there are to be watched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_LOOK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
"""Opens a folder that need not be readable."""

_ESCAPED = re.compile(r"\\([0-7]{3})")
"""How the kernel writes spaces and the like in a mount point's name."""


def mounts_of(folders: Iterable[Path | str]) -> tuple[str, ...]:
    """Return the mount points that `folders` lie on or below, the root left out."""
    known = _mount_points()
    found = {_mount_above(os.path.realpath(folder), known) for folder in folders}
    return tuple(sorted(found - {"/"}))


def mount_gone(path: str | Path, mounts: Iterable[str]) -> str | None:
    """Return the one of `mounts` that `path` needs and that is none any more."""
    real = os.path.realpath(path)
    for mount in mounts:
        if is_below(real, mount) and not _is_mounted(mount):
            return mount
    return None


def is_below(real: str, folder: str) -> bool:
    """Whether the real path `real` is `folder` or in it."""
    return real == folder or real.startswith(folder.rstrip("/") + "/")


def lies_on(descriptor: int, mount: str) -> bool:
    """Whether an open folder at or below `mount` lies on what is mounted there.

    The folder that the mount point is in lies on another device, or, where a folder is
    mounted on another of the same device, on another mount.
    """
    try:
        above = os.open(os.path.dirname(mount), _LOOK)  # noqa: PTH120 - a string, since each output waits for it
    except OSError:
        return False
    try:
        if os.fstat(above).st_dev != os.fstat(descriptor).st_dev:
            return True
        here, there = _mount_id(descriptor), _mount_id(above)
        return here is not None and here != there
    finally:
        os.close(above)


def _is_mounted(mount: str) -> bool:
    try:
        descriptor = os.open(mount, _LOOK)
    except OSError:
        return False
    try:
        return lies_on(descriptor, mount)
    finally:
        os.close(descriptor)


def _mount_id(descriptor: int) -> str | None:
    """Return what tells the mounts of one device apart, where the system says it."""
    with suppress(OSError):
        for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
            if line.startswith("mnt_id:"):
                return line
    return None


def _mount_above(real: str, known: frozenset[str] | None) -> str:
    folder = real
    while folder != "/":
        is_mount = os.path.ismount(folder) if known is None else folder in known
        if is_mount:
            return folder
        folder = os.path.dirname(folder)  # noqa: PTH120 - a string, as it came
    return folder


def _mount_points() -> frozenset[str] | None:
    """List all mount points; None where the system has no such list."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return None
    names = (os.fsdecode(line.split()[4]) for line in lines)
    return frozenset(
        _ESCAPED.sub(lambda octal: chr(int(octal[1], 8)), name) for name in names
    )

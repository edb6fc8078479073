"""Where, with what and when something was measured."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import pyvips

from bwpool.convert.dither import kernel_name
from bwpool.embedded import find_server
from bwpool.errors import ConfigError
from bwpool.settings import usable_cpus

ROOT = Path(__file__).parent.parent
LIBRARIES = ("nats-py", "uvloop", "orjson", "pillow", "simplejpeg", "numpy")


def host(work: Path | None = None) -> dict[str, str]:
    """Say where and with what this runs; `work` is the folder that is written to."""
    versions = {name: metadata.version(name) for name in LIBRARIES}
    found = {
        "machine": f"{processor()}, {usable_cpus()} CPUs",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "nats-server": server_version(),
        **versions,
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
        "kernel": kernel_name(),
        "commit": commit(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load": f"{os.getloadavg()[0]:.2f}",
    }
    if work is not None:
        found["disk"] = file_system(work)
    return found


def processor() -> str:
    """Name the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2] for line in lines if line.startswith("model name"))
    return next(names, platform.machine()).strip()


def file_system(folder: Path) -> str:
    """Name the kind of file system that `folder` lies on."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return "unknown"
    places = {fields[1]: fields[2] for fields in map(str.split, mounts)}
    absolute = folder.resolve()
    above = (str(path) for path in (absolute, *absolute.parents))
    return next(places[path] for path in above if path in places)


def server_version() -> str:
    """Return the version of the nats-server that the benchmarks start."""
    try:
        return version_of(find_server(), "--version").split()[-1].lstrip("v")
    except ConfigError:
        return "not installed"


def version_of(*command: str) -> str:
    """Return the first line that a program says of itself, or that it isn't there."""
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "not installed"
    if run.returncode:
        return "not installed"
    return next(iter(run.stdout.splitlines()), "unknown")


def commit() -> str:
    """Return the commit, with a `+` if files differ from it."""
    short = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "bwpool")
    return f"{short}{'+' if changed else ''}" or "unknown"


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(
            ["git", "-C", str(ROOT), *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return run.stdout.strip()

"""What a run can be told, read once at the edge and handed down as frozen values.

The command line makes its flags, its environment variables and its reference from
these fields and the text below each. Nothing here imports a command-line library,
since every converter imports this module too.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from bwpool.errors import ConfigError
from bwpool.formats import SAME, format_choices
from bwpool.methods import DEFAULT_METHOD, METHODS

if TYPE_CHECKING:
    MethodName = str
    FormatName = str
else:  # what the command line takes for the choices that an option has
    MethodName = Literal[tuple(METHODS)]
    FormatName = Literal[format_choices()]

_AMOUNT = re.compile(
    r"([0-9]+(?:\.[0-9]*)?(?:e[0-9]+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE
)
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_TOO_MUCH = 1 << 62
"""What limits of the operating system can't be set to."""
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class Amount(int):
    """A number of bytes or pixels that can be written `2e9`, `64M` or `1.5GiB`."""

    def __new__(cls, value: str | int) -> Self:
        """Read an amount; ValueError if it is none."""
        if isinstance(value, int):
            return super().__new__(cls, value)
        match = _AMOUNT.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"{value!r} is not an amount such as 2e9, 64M or 1.5GiB")
        number, unit, binary = match.groups()
        base = 1024 if binary else 1000
        amount = float(number) * base ** _POWER[unit.lower()]
        if amount >= _TOO_MUCH:
            raise ValueError(f"{value!r} is an amount that no machine has")
        return super().__new__(cls, amount)


MAX_PIXELS = Amount(2_000_000_000)
MAX_BYTES = Amount(4_000_000_000)
MAX_GROWTH = Amount(1_000_000_000)

SHARED_MEMORY = 0.75
"""What converters may take of the machine's memory, all together."""

LEAST_MEMORY = 512 << 20
"""The lowest ceiling by default: with less, common scans would fail."""


def usable_cpus() -> int:
    """Count the CPUs that this process may use: affinity and cgroup quota included."""
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    else:
        allowed = os.cpu_count() or 1
    return int(min(allowed, max(1.0, _cgroup_quota())))


def _cgroup_quota() -> float:
    """Read the CPU quota of this cgroup (version 2, then 1), in CPUs; inf if none."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text().strip()
            period = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text()
        except OSError:
            return float("inf")
    if quota in ("max", "-1"):
        return float("inf")
    return int(quota) / int(period)


def usable_memory() -> int:
    """Count the bytes that this process may use: cgroup limits included."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 4 << 30  # nothing known: what a small machine has
    return min([total, *_cgroup_memory()])


def _cgroup_memory() -> Iterator[int]:
    """Yield the memory limits of this cgroup and those around it, version 2 or 1."""
    top = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        folder = top / controllers / place.lstrip("/")
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        while folder.is_relative_to(top):
            # No such file, or `max`: no limit here.
            with suppress(OSError, ValueError):
                yield int((folder / name).read_text())
            folder = folder.parent


def memory_share(procs: int) -> int:
    """Return the memory ceiling of each of `procs` converters, if nobody named one."""
    return max(LEAST_MEMORY, int(usable_memory() * SHARED_MEMORY / procs))


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How to reach NATS."""

    server: str | None = None
    """The server's URL, or several with commas between them."""
    context: str | None = None
    """A context of the `nats` command line: its name, or a file's path."""
    creds: Path | None = None
    """A credentials file."""
    user: str | None = None
    """A user name, or a token where no password is given."""
    password: str | None = None
    """The user's password."""
    token: str | None = None
    """An authentication token."""
    nkey: Path | None = None
    """A file with an nkey seed."""
    cert: Path | None = None
    """A TLS client certificate."""
    key: Path | None = None
    """The TLS client certificate's private key."""
    ca: Path | None = None
    """The TLS certificate authority to trust."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSettings:
    """Which queue to work on."""

    stream: str = "IMAGES"
    """The work-queue stream."""
    consumer: str = "BW"
    """The pull consumer that supervisors share."""
    subject: str = "IMAGES.blackandwhite"
    """The subject that jobs are sent to, and that the consumer filters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvertSettings:
    """How pictures are converted; every converter gets a copy."""

    out: str = ""
    """The folder that outputs go to."""
    method: MethodName = DEFAULT_METHOD
    """The way from gray to black and white, for jobs that name none."""
    format: FormatName = SAME
    """What to encode as, for jobs that name none; `same` follows the source."""
    quality: int = 75
    """JPEG and WebP quality, 1 to 100, for jobs that name none."""
    source_root: tuple[Path, ...] = ()
    """A folder that sources may lie in; repeatable. None given: any."""
    max_pixels: Amount = MAX_PIXELS
    """Refuse sources of more pixels, all pages together."""
    max_bytes: Amount = MAX_BYTES
    """Refuse sources of more bytes."""
    max_pages: int = 10_000
    """Refuse sources of more pages."""
    max_memory: Amount | None = None
    """A converter's memory ceiling, in bytes; a share of the machine's if not given."""
    recycle_jobs: int = 10_000
    """Replace a converter after so many jobs."""
    recycle_growth: Amount = MAX_GROWTH
    """Replace a converter that keeps so many bytes more than at its start."""
    no_sync: bool = False
    """Acknowledge a job before its output is surely on the disk."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what can't hold."""
        _require(1 <= self.quality <= 100, "quality", self.quality, "1 to 100")
        for name in (
            "max_pixels",
            "max_bytes",
            "max_pages",
            "max_memory",
            "recycle_jobs",
            "recycle_growth",
        ):
            value = getattr(self, name)
            _require(value is None or value >= 1, name, value, "1 or more")

    @property
    def recipe(self) -> dict[str, str | int]:
        """What an output is made by: with another recipe it would be another one.

        All that shapes outputs belongs in here; the ledger keeps it with each output.
        """
        return {"method": self.method, "format": self.format, "quality": self.quality}

    @property
    def sync(self) -> bool:
        """Whether an output must be durable before its job is acknowledged."""
        return not self.no_sync

    @property
    def found(self) -> Found:
        """What was found of the storage when the supervisor started."""
        return Found()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What tells a storage that is out of reach from a job's own trouble."""

    sources: tuple[Path, ...] = ()
    """Folders that sources were found in, beside the source roots; no restriction."""
    mounts: tuple[str, ...] = ()
    """Mount points that outputs or sources lie on: they must remain mounted."""
    out_mount: str = ""
    """The one of them that outputs lie on, if any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocatedSettings(ConvertSettings):
    """The same settings, with what was found of the storage: for converters only."""

    location: Found

    @property
    def found(self) -> Found:
        """What was found of the storage when the supervisor started."""
        return self.location

    @classmethod
    def locate(cls, convert: ConvertSettings, location: Found) -> Self:
        """Add to settings what was found."""
        known = {each.name: getattr(convert, each.name) for each in fields(convert)}
        return cls(**known | {"location": location})


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """How many converters there are, and how long each may take."""

    procs: int | None = None
    """How many converters; as many as CPUs may be used if not given."""
    timeout: float = 30.0
    """Seconds after which a conversion is killed."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what can't hold."""
        procs, timeout = self.procs, self.timeout
        _require(procs is None or procs >= 1, "procs", procs, "1 or more")
        is_time = 0 < timeout < math.inf
        _require(is_time, "timeout", timeout, "a number of seconds above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How a supervisor tells of its jobs, and how it ends."""

    drain_timeout: float = 25.0
    """Seconds that conversions under way get to finish after a signal."""
    burst: bool = False
    """Run until the queue is empty, then exit."""
    advisory_prefix: tuple[str, ...] = ()
    """A subject that advisories may go to, and to those below it; repeatable. None
    given: any that is not reserved."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what can't hold."""
        time = self.drain_timeout
        is_time = 0 <= time < math.inf
        _require(is_time, "drain_timeout", time, "a number of seconds, 0 or more")
        for prefix in self.advisory_prefix:
            is_subject = _SUBJECT.fullmatch(prefix) is not None
            wanted = "a subject without wildcards, such as advisory.bw"
            _require(is_subject, "advisory_prefix", repr(prefix), wanted)


def _require(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raise ConfigError, naming the option, unless `holds`."""
    if not holds:
        option = name.replace("_", "-")
        raise ConfigError(f"--{option} is {wanted}, not {value}")

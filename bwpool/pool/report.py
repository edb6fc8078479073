"""What became of a job in the pool, and what it died of."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bwpool.errors import ConversionTimeout, ConverterCrashed, JobError
from bwpool.job import Converted
from bwpool.pool.slot import Death


@dataclass(frozen=True, slots=True)
class NotBegun:
    """The pool hands a job back: it was not tried, or what was tried does not count."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a job in the pool."""

    outcome: Converted | JobError | NotBegun
    elapsed: float
    """Seconds of converting."""
    pid: int | None = None
    """The converter's process."""
    death: Death | None = None
    """The converter's end, where the job met it."""


def report_of(death: Death, cause: str, timeout: float) -> Report:
    """Say what a job died of."""
    error: JobError
    stage = death.doing.stage or None
    if cause == "timeout":
        where = f" in stage {stage}" if stage else ""
        reason = f"no end after {timeout:g} s{where}; the converter was killed"
        error = ConversionTimeout(reason, stage=stage)
    else:
        error = ConverterCrashed(str(death), stage=stage)
    return Report(error, time.monotonic() - death.doing.started, death.pid, death)

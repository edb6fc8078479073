"""How much memory a process takes, and when a converter has served for long enough.

Called on both sides; imports nothing heavy.
"""

from __future__ import annotations

import os
from pathlib import Path

from bwpool.settings import ConvertSettings


class Wear:
    """Counts what one converter has done, from within."""

    def __init__(self, settings: ConvertSettings) -> None:
        """Begin to count; what the process takes by now is no growth."""
        self._jobs_left = settings.recycle_jobs
        growth = int(settings.recycle_growth)
        if settings.max_memory is not None:
            # Else the ceiling would strike jobs that need little themselves.
            growth = min(growth, settings.max_memory // 2)
        self._enough = current_memory() + growth
        self._is_told = False

    def is_due(self) -> bool:
        """Count one more job, and say once when it is time for a replacement."""
        self._jobs_left -= 1
        # What never was can't be kept, and the peak costs less to know.
        has_grown = peak_memory() > self._enough and current_memory() > self._enough
        if self._is_told or (self._jobs_left > 0 and not has_grown):
            return False
        self._is_told = True
        return True


def peak_memory() -> int:
    """Return the most bytes that this process has taken so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def current_memory() -> int:
    """Return the bytes that this process takes now; the peak where nothing tells."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory()
    return pages * os.sysconf("SC_PAGE_SIZE")


def peak_memory_of(pid: int) -> int:
    """Return the most bytes that another process has taken; 0 where nothing tells."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(b"VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0

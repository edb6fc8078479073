"""What this process is to the world around it: its signals and its standard files.

Called by `__main__` before anything else, so it imports next to nothing; and around
every command by `common` and `app`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import TextIO

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What asks a command to end."""


def end_on_signals() -> None:
    """Let the signals end this process at once: there is nothing to tidy up yet."""
    for number in SIGNALS:
        signal.signal(number, _end)


def cancel_on_signals() -> None:
    """Let SIGTERM do what SIGINT does in an asyncio.Runner; called in its task.

    That is to cancel the task, and the second time to raise KeyboardInterrupt.
    """
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGINT))


def open_standard_files() -> None:
    """Put /dev/null where whoever started us closed stdin, stdout or stderr.

    Else a socket or a library's file would get their numbers, and what is printed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is the one that is missing.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def is_lost(file: TextIO, *, is_suspect: bool = False) -> bool:
    """Tell whether a standard file can't be written to, and if so, empty it.

    What is left in it would be complained about when the interpreter ends. One that
    is suspect gets a line more: what it failed to write may have left it already.
    """
    try:
        file.write("\n" if is_suspect else "")
        file.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, file.fileno())
        os.close(null)
        file.flush()
        return True
    return False


def _end(_number: int, _frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"bwpool: interrupted\n")
    os._exit(1)

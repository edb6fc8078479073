"""Run one command that ends with the process which started this one.

Started by `embedded` as a script of its own, never imported: standard input is a pipe
whose other end only the parent holds, so its end of file means that the parent has
ended, however it did, or wants the command to end. Imports the standard library only,
and little of it, since it starts with every embedded server.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys

GRACE = 10.0
"""Seconds between SIGTERM and SIGKILL."""
PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main(command: list[str]) -> int:
    """Run `command` until it ends or the parent does; return its exit code.

    A number in front is the descriptor of the folder to run it in: the folder's name
    may lead elsewhere by now.
    """
    if command[0].isdecimal():
        folder = int(command.pop(0))
        os.fchdir(folder)
        os.close(folder)
    ended, held_by_command = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.set_inheritable(held_by_command, True)  # noqa: FBT003
        _become(command)
    os.close(held_by_command)
    # Only the parent decides: these reach whole groups and units.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if ended not in select.select([0, ended], [], [])[0]:
        os.kill(pid, signal.SIGTERM)
        if not select.select([ended], [], [], GRACE)[0]:
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def _become(command: list[str]) -> None:
    """Turn this forked child into the command; never returns."""
    try:
        _end_with_parent()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.execv(command[0], command)  # noqa: S606
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
    finally:
        os._exit(127)


def _end_with_parent() -> None:
    """Have Linux kill this process should the guard itself be killed."""
    if sys.platform == "linux":
        import ctypes

        # No libc to load, no such call: the pipe alone has to do.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

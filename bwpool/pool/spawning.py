"""How converters are started: without the working folder in their search path.

A started Python looks for modules in its working folder first, and that is often the
folder with the pictures, which anybody may have filled. Called by `slot`.
"""

from __future__ import annotations

import subprocess
from multiprocessing import util


def shut_out_the_working_folder() -> None:
    """Have all that multiprocessing starts from now on run with `-P`.

    That is the converters and the resource tracker, which is started anew whenever
    somebody kills it. The flag works under `python -E` too, where PYTHONSAFEPATH is
    ignored; and to change the environment is not safe while other threads read it.
    multiprocessing has no public way to pass a flag, in any Python up to 3.14.
    """
    util._args_from_interpreter_flags = _flags  # type: ignore[attr-defined]


def _flags() -> list[str]:
    """Return the flags that a child gets: ours, and `-P`."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags if {"-P", "-I"} & {*flags} else [*flags, "-P"]

"""How a process ends with the benchmark that started it, even if that is killed.

`python -I -S leash.py COMMAND…` becomes the command, under the same process id.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
SIGKILL = 9

if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, SIGKILL)
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - a benchmark's own command

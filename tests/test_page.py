"""The status page, read by one process while another writes.

Run as a program, `python test_page.py FD`, it is the one that writes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time

from bwpool.pool.page import PAGE_BYTES, Page

LOOKS = 100_000


def hammer(fd):
    """Go through orders and stages as fast as possible, until killed."""
    page = Page(fd)
    tag = 1
    while True:
        tag += 1
        page.begin(tag)
        for _ in range(10):
            page.enter("decode")


def test_a_number_is_never_seen_half_written():
    """Whenever one looks, an order has its own starting time, and none is unbegun."""
    with tempfile.TemporaryFile() as file:
        file.truncate(PAGE_BYTES)
        page = Page(file.fileno())
        before = time.monotonic()
        page.begin(1)
        fd = file.fileno()
        writer = subprocess.Popen([sys.executable, __file__, str(fd)], pass_fds=[fd])
        try:
            while page.read().begun == 1:
                assert writer.poll() is None
            for _ in range(LOOKS):
                doing = page.read()
                assert doing.tag >= 1
                assert doing.begun >= doing.tag
                assert doing.started >= before
        finally:
            writer.kill()
            writer.wait()
            page.close()


if __name__ == "__main__":
    hammer(int(sys.argv[1]))

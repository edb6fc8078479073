"""The status page, read by one process while another writes."""

from __future__ import annotations

import multiprocessing
import tempfile
import time

from bwpool.pool.page import PAGE_BYTES, Page

LOOKS = 300_000


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
        fork = multiprocessing.get_context("fork")
        writer = fork.Process(target=hammer, args=(file.fileno(),), daemon=True)
        writer.start()
        while page.read().begun < 2:
            pass
        try:
            for _ in range(LOOKS):
                doing = page.read()
                assert doing.tag >= 1
                assert doing.begun >= doing.tag
                assert doing.started >= before
        finally:
            writer.kill()
            writer.join()
            page.close()

"""When a queue is empty, without asking so often that it slows down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

SOONEST, LATEST = 0.003, 0.25
"""Seconds between two looks."""

STUCK = 100.0
"""Seconds without progress after which nobody seems to work; a job that a worker lost
comes again after 30."""


async def wait_until_none_is_left(left: Callable[[], Awaitable[int]]) -> None:
    """Return once nothing is left; looks again after half of the time it may take."""
    started = moved = time.monotonic()
    at_first = now_left = await left()
    while now_left:
        done = at_first - now_left
        pause = (moved - started) / done * now_left / 2 if done > 0 else SOONEST
        await asyncio.sleep(min(LATEST, max(SOONEST, pause)))
        before, now_left = now_left, await left()
        if now_left != before:
            moved = time.monotonic()
        elif time.monotonic() - moved > STUCK:
            raise TimeoutError(f"{now_left} jobs are left, and nobody works on them")

"""Tasks that run on the side, waiting for the first of two, pauses between tries."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Iterator
from typing import Any

import structlog

log = structlog.get_logger()


class Background:
    """Keeps tasks from being collected while they run, and their bugs from silence."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Run `coroutine` until it ends, or until `close`."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._forget)

    async def close(self) -> None:
        """Cancel what still runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.error("background.bug", exc_info=bug)


def pauses(first: float = 0.5, longest: float = 10.0) -> Iterator[float]:
    """Yield seconds to wait between tries, doubling up to `longest`, without end."""
    pause = first
    while True:
        yield pause
        pause = min(longest, pause * 2)


async def first_of(one: Awaitable[object], other: Awaitable[object]) -> None:
    """Return when one of two is done; a coroutine among them is cancelled, if it isn't.

    A future or a task belongs to somebody else and goes on.
    """
    ours = [x for x in (one, other) if not isinstance(x, asyncio.Future)]
    waiting = {x: asyncio.ensure_future(x) for x in (one, other)}
    try:
        await asyncio.wait(waiting.values(), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for awaitable in ours:
            waiting[awaitable].cancel()

"""Asking the server until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from bwpool.background import pauses
from bwpool.errors import QueueError

log = structlog.get_logger()

T = TypeVar("T")


async def insist(request: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask until there is an answer; QueueErrors are logged and tried again."""
    for pause in pauses():
        try:
            return await request()
        except QueueError as error:
            log.warning("queue.request_failed", error=str(error))
            await asyncio.sleep(pause)
    raise AssertionError("pauses never end")

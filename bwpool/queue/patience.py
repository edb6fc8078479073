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


class Refused(QueueError):
    """The server will not do this, however often it is asked."""


async def insist(request: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Ask until there is an answer; QueueErrors are logged and tried again.

    All but Refused, which is raised.
    """
    for pause in pauses():
        try:
            return await request()
        except Refused:
            raise
        except QueueError as error:
            log.warning("queue.request_failed", error=str(error))
            await asyncio.sleep(pause)
    raise AssertionError("pauses never end")

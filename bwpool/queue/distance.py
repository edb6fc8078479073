"""How far away the server is: the shortest round trip to it of late.

The shortest, since all that makes others longer is queueing, here or there: were that
counted, more would be asked for, and queue even longer. Called by the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from typing import TYPE_CHECKING

from bwpool.errors import QueueError

if TYPE_CHECKING:
    from bwpool.queue.connection import Connection

MEASURE_EVERY = 1.0
"""Seconds between two measurements."""

MEASUREMENTS = 30
"""How many count: a way that has become longer is believed after half a minute."""

LONGEST = 1.0
"""Seconds that are believed at the most; for a longer way nobody holds enough jobs."""


class Distance:
    """Measures round trips to the server; begin with `run`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._trips: deque[float] = deque(maxlen=MEASUREMENTS)
        connection.on_up.append(self._trips.clear)

    @property
    def round_trip(self) -> float:
        """The shortest of late, in seconds; 0 while none is known."""
        return min(self._trips, default=0.0)

    async def run(self) -> None:
        """Measure again and again; never returns."""
        while True:
            with contextlib.suppress(QueueError):  # down; `on_up` comes before more
                await self.measure()
            await asyncio.sleep(MEASURE_EVERY)

    async def measure(self) -> None:
        """Measure one round trip; raises QueueError if there is no way."""
        started = time.monotonic()
        await self._connection.flush()
        self._trips.append(min(LONGEST, time.monotonic() - started))

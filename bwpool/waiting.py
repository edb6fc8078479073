"""Retries that wait on the server: how many, and how long a further one may wait.

A delayed nak keeps its place in the consumer's max_ack_pending until its message is
delivered again. Were all places taken by jobs that wait, no other job would be
delivered. Called by `deliveries`, which naks, and by the supervisor, which looks at
what others hold; pure, since it is told the time.
"""

from __future__ import annotations

import heapq

from bwpool.policy import UNLIMITED, shrunk


class Waiting:
    """The retries of this supervisor that wait for their next delivery."""

    def __init__(self) -> None:
        self.elsewhere = 0
        """Places that others held, whatever for, when last looked at."""
        self._due: list[float] = []
        """When each wait ends, as a heap."""

    def count(self, now: float) -> int:
        """Count those that wait still."""
        while self._due and self._due[0] <= now:
            heapq.heappop(self._due)
        return len(self._due)

    def admit(self, delay: float, max_ack_pending: int, now: float) -> float:
        """Let one more wait, and return the seconds for which it may."""
        if max_ack_pending != UNLIMITED:
            left_to_us = max(0, max_ack_pending - self.elsewhere)
            delay = shrunk(delay, self.count(now), left_to_us)
        if delay > 0:
            heapq.heappush(self._due, now + delay)
        return delay

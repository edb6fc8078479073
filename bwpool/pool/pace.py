"""How long jobs take of late, and how many to hold because of that.

Called by `pool`; pure arithmetic, no processes and no clock.
"""

from __future__ import annotations

import math

LOOK_AHEAD = 0.05
"""Seconds of work that a slot may hold beyond the job under way: enough to hide the
way to and fro, too little to hoard what another supervisor could do. What is brought
from afar takes a round trip to the server more."""

MAX_DEPTH = 32
"""Jobs a slot is given at the most, however short they are."""

UNKNOWN = 2 * LOOK_AHEAD
"""Seconds that jobs are supposed to take when the first one is done."""

AGED = 8
"""How many jobs it takes until the mean has mostly forgotten those before."""


class Pace:
    """The mean of what jobs took, the latest counting most."""

    def __init__(self) -> None:
        # Nothing is looked ahead for before it is known how long jobs take.
        self.mean = math.inf
        """Seconds."""

    def note(self, elapsed: float) -> None:
        """Count a job that took `elapsed` seconds."""
        if math.isinf(self.mean):
            self.mean = UNKNOWN
        self.mean += (elapsed - self.mean) / AGED

    def note_busy(self, elapsed: float) -> None:
        """Count on jobs that take `elapsed` seconds at least, as one under way does."""
        self.mean = max(self.mean, elapsed)

    @property
    def depth(self) -> int:
        """Jobs a slot may be given: one, and what fits into the look-ahead."""
        return 1 + min(MAX_DEPTH - 1, self._ahead(0.0))

    def places(self, slots: int, slow: int, round_trip: float, most: int) -> int:
        """Return how many jobs `slots` keep busy while others are on their way.

        `slow` of them have a job that none should wait behind. Never more than
        `most`, unless that is less than two a slot.
        """
        wanted = slots + (slots - slow) * self._ahead(round_trip)
        return min(wanted, max(most, 2 * slots))

    def step(self, places: int, round_trip: float) -> float:
        """Return how many of the `places` are worth a question to the server.

        Half of what the look-ahead alone would be: each question costs more than a
        short job, and yet the next one has to be asked before the last one's answer.
        """
        return places * LOOK_AHEAD / (LOOK_AHEAD + round_trip) / 2

    def takes(self, jobs: int, slots: int) -> float:
        """Return the seconds that so many jobs take."""
        return jobs * self.mean / slots if jobs and slots else 0.0

    def _ahead(self, round_trip: float) -> int:
        """Jobs of a slot that fit into the look-ahead from so far away."""
        # A mean of 0 seconds is nothing to divide by.
        return int((LOOK_AHEAD + round_trip) / max(self.mean, 1e-6))

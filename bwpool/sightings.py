"""Sources that end too early: still on their way, or cut short for good.

No clock can tell by a file's age: ours may differ from that of whoever keeps the file.
So what was seen of a source is remembered, and it is over once that has stood still for
a while by a clock that nobody sets. The retries in between are deliveries, which come
to any converter: hence it is the supervisor that remembers. Called by `deliveries`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

from bwpool.errors import BadImage, CutShort

STOOD_STILL = 10.0
"""Seconds without a change after which nobody writes to a source any more. Fewer than
the delays before the last of five deliveries, so that the last one can tell."""

MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class _Sighting:
    seen: tuple[int, int]
    since: float
    """By the monotonic clock."""


class Sightings:
    """Remembers sources that were cut short, the latest `MAX_REMEMBERED`."""

    def __init__(self) -> None:
        self._sightings: OrderedDict[str, _Sighting] = OrderedDict()

    def judge(self, image: str, error: CutShort) -> BadImage:
        """Return `error`, or that the source `image` is cut short for good."""
        now = time.monotonic()
        first = self._sightings.pop(image, None)
        if first is None or first.seen != error.seen:
            first = _Sighting(error.seen, now)
        elif now - first.since >= STOOD_STILL:
            return BadImage(error.reason, stage=error.stage)
        self._sightings[image] = first
        if len(self._sightings) > MAX_REMEMBERED:
            self._sightings.popitem(last=False)
        return error

"""What the middle of several rounds is, and how far they differ.

Contenders take turns, in an order that changes, so that whatever else the machine does
hits all of them alike. Ratios are taken within a round, then their median.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

ROUNDS = 5

_order = random.Random(1)  # noqa: S311 - so that nobody always follows the same


def shuffled(names: Sequence[str]) -> list[str]:
    """Return the names in the order of the next round."""
    return _order.sample(names, len(names))


async def take_turns(
    contenders: Mapping[str, Callable[[], Awaitable[T]]], rounds: int
) -> dict[str, list[T]]:
    """Let every contender run once a round, and collect what they return."""
    results: dict[str, list[T]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in shuffled(list(contenders)):
            results[name].append(await contenders[name]())
    return results


def spread(values: Sequence[float]) -> float:
    """Return the width of the middle half, as a share of the median; of all, if few."""
    if len(values) < 4:
        low, middle, high = min(values), statistics.median(values), max(values)
    else:
        low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle if middle else 0.0


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Describe the rounds of one measurement."""
    return {
        "median": statistics.median(values),
        "spread": spread(values),
        "rounds": list(values),
    }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Describe how many times theirs ours is, round by round."""
    return summary([one / other for one, other in zip(ours, theirs, strict=True)])

"""The blue-noise mask, and the script that made it.

`python -m bwpool.convert.mask` writes `blue_noise.png` again, by the void-and-cluster
method of R. Ulichney, "The void-and-cluster method for dither array generation" (1993).
Called by `bilevel` for the mask that the package ships.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bwpool.convert.plan import Rows

SIDE = 64
"""Pixels; the mask repeats without a seam."""

_FILE = Path(__file__).with_name("blue_noise.png")
_SIGMA = 1.5
"""Of the Gaussian that says how crowded a pixel's neighbourhood is, as in the paper."""
_SCALE = 2**20
"""Crowding is counted in integers, so that every machine makes the same mask."""

Pattern = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@cache
def thresholds() -> Rows:
    """Return the shipped mask: a pixel is white where its gray exceeds the mask's.

    The values 0 to 254 are equally frequent, so that a gray of g makes g/255 of the
    pixels white.
    """
    with Image.open(_FILE) as image:
        return np.asarray(image)


def make(seed: int = 1) -> Rows:
    """Make a mask from nothing but a seed."""
    ranks = _ranks(_first_pattern(np.random.default_rng(seed)))
    return (ranks * 255 // SIDE**2).astype(np.uint8)


class _Crowd:
    """A pattern of pixels, and how crowded each place of it is."""

    def __init__(self, pattern: Pattern) -> None:
        self.pattern = np.zeros_like(pattern)
        self.crowding = np.zeros(pattern.shape, np.int64)
        for place in np.argwhere(pattern):
            self.flip(place)

    def flip(self, place: Any) -> None:
        """Add the pixel at `place`, or take it away."""
        row, column = place
        sign = -1 if self.pattern[row, column] else 1
        self.pattern[row, column] ^= True
        self.crowding += sign * np.roll(_KERNEL, (row, column), (0, 1))

    def tightest(self) -> Any:
        """Return where the pixels that are there crowd most."""
        crowding = np.where(self.pattern, self.crowding, -1)
        return np.unravel_index(crowding.argmax(), crowding.shape)

    def emptiest(self) -> Any:
        """Return where there is most room for another pixel."""
        crowding = np.where(self.pattern, np.iinfo(np.int64).max, self.crowding)
        return np.unravel_index(crowding.argmin(), crowding.shape)


def _kernel() -> Numbers:
    distance = np.minimum(np.arange(SIDE), SIDE - np.arange(SIDE))
    squares = distance[:, None] ** 2 + distance[None, :] ** 2
    weights: Numbers = np.rint(_SCALE * np.exp(-squares / (2 * _SIGMA**2))).astype(
        np.int64
    )
    return weights


_KERNEL = _kernel()


def _first_pattern(random: np.random.Generator) -> Pattern:
    """Spread a tenth of the pixels until no move makes them more even."""
    pattern = np.zeros(SIDE**2, np.bool_)
    pattern[random.choice(SIDE**2, SIDE**2 // 10, replace=False)] = True
    crowd = _Crowd(pattern.reshape(SIDE, SIDE))
    while True:
        moved = crowd.tightest()
        crowd.flip(moved)
        place = crowd.emptiest()
        crowd.flip(place)
        if place == moved:
            return crowd.pattern


def _ranks(first: Pattern) -> Numbers:
    """Rank all the pixels in the order in which they turn white."""
    ranks = np.zeros(first.shape, np.int64)
    count = int(first.sum())
    crowd = _Crowd(first)
    for rank in reversed(range(count)):
        place = crowd.tightest()
        crowd.flip(place)
        ranks[place] = rank
    crowd = _Crowd(first)
    for rank in range(count, SIDE**2 // 2):
        place = crowd.emptiest()
        crowd.flip(place)
        ranks[place] = rank
    # From here on the black pixels are the fewer, and are kept apart instead.
    black = _Crowd(~crowd.pattern)
    for rank in range(SIDE**2 // 2, SIDE**2):
        place = black.tightest()
        black.flip(place)
        ranks[place] = rank
    return ranks


if __name__ == "__main__":
    Image.fromarray(make()).save(_FILE, optimize=True)

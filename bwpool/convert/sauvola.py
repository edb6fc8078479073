"""Sauvola's threshold, which follows the light across a page; for documents.

Called by `bilevel`. The work is doxapy's, strip by strip, each with enough of its
neighbours around it for the result to be that of the whole page.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from bwpool.convert.plan import Rows

WINDOW = 51
"""Pixels a side of the neighbourhood that a pixel is judged by: wider than a stroke of
text scanned at 150 to 600 dpi, narrower than a shadow."""

K = 0.34
"""How far below its neighbourhood's mean ink must lie; of 0.1 to 0.5 the best on
rendered pages, near the 0.34 that T. Singh et al. (2011) found."""

_REACH = WINDOW // 2
_NOTHING = np.empty((0, 0), np.uint8)


def sauvola(strips: Iterator[Rows]) -> Iterator[Rows]:
    """Turn gray strips into strips of 0 and 255.

    The algorithm is that of J. Sauvola and M. Pietikäinen, "Adaptive document image
    binarization" (2000).
    """
    # Only who asks for this method waits for it.
    from doxapy import Binarization

    for rows, start, stop in _in_context(strips):
        engine = Binarization(Binarization.Algorithms.SAUVOLA)
        engine.initialize(rows)
        result = np.empty_like(rows)
        engine.to_binary(result, {"window": _window(rows), "k": K})
        yield result[start:stop]


def _window(rows: Rows) -> int:
    # doxapy 0.9.2, the last for Python 3.11, writes beyond its memory where a window
    # reaches from one edge of the picture past the other.
    return min(WINDOW, 2 * int(min(rows.shape)) - 1)


def _in_context(strips: Iterator[Rows]) -> Iterator[tuple[Rows, int, int]]:
    """Yield each strip among its neighbours' nearest rows, and where in it it lies."""
    above = _NOTHING
    for strip, below in pairwise(_ended(strips)):
        around = [part for part in (above, strip, below[:_REACH]) if len(part)]
        rows = around[0] if len(around) == 1 else np.concatenate(around)
        yield rows, len(above), len(above) + len(strip)
        above = rows[: len(above) + len(strip)][-_REACH:]


def _ended(strips: Iterator[Rows]) -> Iterator[Rows]:
    yield from strips
    yield _NOTHING

"""Faithful error diffusion without a compiler: what `_dither.c` does, by numpy.

Called by `dither` where the C extension is not there; the result is the same to the
bit. A pixel waits for its left neighbours and for five pixels of the row above, so all
rows of a band advance together, each three columns behind the one above. That takes
about a hundred times as long as the C extension on a core with AVX2.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Ints = NDArray[np.int16]
Gray = NDArray[np.uint8]
IsWhite = NDArray[np.bool_]

LAG: Final = 3
"""Columns from a row to the one below, which needs two columns beyond its own."""

BAND: Final = 512
"""Rows that advance together: few enough for constant memory, enough for a step to be
worth its calls."""

_REACH: Final = 5
"""How many steps back a row looks at the errors of the row above."""


class Skewed:
    """The diffusion of one picture, strip by strip from the top."""

    def __init__(self, width: int, *, packed: bool) -> None:
        """Start a picture whose rows have `width` pixels."""
        self._packed = packed
        self._passed_down = np.zeros(width, np.int16)

    def diffuse(
        self, gray: memoryview, stride: int, rows: int, out: memoryview
    ) -> None:
        """Fill `out`, which may be `gray`, with the next rows."""
        width = len(self._passed_down)
        pixels = np.ndarray((rows, width), np.uint8, gray, 0, (stride, 1))
        at = 0
        for top in range(0, rows, BAND):
            is_white = self._diffuse_band(pixels[top : top + BAND])
            stored = self._stored(is_white)
            out[at : at + stored.nbytes] = stored.data.cast("B")
            at += stored.nbytes

    def _stored(self, is_white: IsWhite) -> Gray:
        if self._packed:
            return np.packbits(is_white, axis=1)
        return is_white.view(np.uint8) * np.uint8(255)

    def _diffuse_band(self, gray: Gray) -> IsWhite:
        """Take all rows of a band through their steps.

        In step t row r is at x = t - LAG r. What it computes is in column r; what it
        gets from above is in column r of `down`, what it passes down in column r + 1.
        """
        rows, width = gray.shape
        gets, self._passed_down = self._passed_down, np.empty(width, np.int16)
        eighths = _by_steps(gray).astype(np.int16)
        eighths <<= 3
        is_white = np.zeros(eighths.shape, np.bool_)
        errors = [np.zeros(rows, np.int16) for _ in range(_REACH + 1)]
        down = np.zeros(rows + 1, np.int16)
        for t in range(len(eighths) + LAG):
            _pass_down(errors, down[1:])
            down[0] = gets[t] if t < width else 0
            if t >= LAG * rows:
                self._passed_down[t - LAG * rows] = down[rows]
            ended = min(rows, max(0, (t - width) // LAG + 1))
            errors.insert(0, errors.pop())  # the oldest is overwritten
            errors[0][:ended] = 0
            if ended < rows:
                here = slice(ended, min(rows, t // LAG + 1))
                last = [error[here] for error in errors[:3]]
                _quantise(eighths[t, here], down[here], last, is_white[t, here])
        return _by_rows(is_white, rows, width)


def _pass_down(errors: list[Ints], down: Ints) -> None:
    """Sum up what each row passes to the pixel that the row below is at."""
    e1, e2, e3, e4, e5 = errors[:_REACH]
    np.add(e2, e4, out=down)
    down += e3
    down += e3
    down += down
    down += e1
    down += e5


def _quantise(
    eighths: Ints, above: Ints, errors: list[Ints], is_white: IsWhite
) -> None:
    """Make pixels black or white; the first of `errors` is where their errors go."""
    error, e1, e2 = errors
    n = e1 + e1
    n += e2
    n += n
    n += above
    np.greater_equal(n, 5100 - 5 * eighths, out=is_white)
    n += 8
    np.right_shift(n, 4, out=error)
    error += eighths
    error -= is_white * np.int16(2040)


def _by_steps(gray: Gray) -> Gray:
    """Arrange pixels so that what is processed in step t is in row t, by its row."""
    rows, width = gray.shape
    pitch = width + LAG * rows
    padded = np.zeros((rows, pitch), np.uint8)
    padded[:, :width] = gray
    # Pixel t - LAG r of row r is at (pitch - LAG) r + t.
    steps = width + LAG * (rows - 1)
    return np.ascontiguousarray(as_strided(padded, (steps, rows), (1, pitch - LAG)))


def _by_rows(is_white: IsWhite, rows: int, width: int) -> IsWhite:
    """Bring the results of steps back into rows."""
    step, row = is_white.strides
    return as_strided(is_white, (rows, width), (LAG * step + row, step)).copy()

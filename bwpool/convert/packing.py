"""Packs rows of black and white as small as TIFF's ways allow: CCITT G4 or Deflate.

G4 is made for text and line art. It makes a dithered picture several times as large as
its bits, in several times the time that Deflate takes, so a sample of a page's rows
decides between them. Called by `tiff`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from bwpool.convert import g4
from bwpool.convert.plan import Rows

_BAND = 8
"""Neighbouring rows that a sample takes at a time: each row is coded by the one above
it."""

_LEAST_BANDS = 6
_FAR, _NEAR = 256, 64
"""How far the bands of a first and of a second sample lie apart."""

_HOPELESS = 1.5
"""G4 is not looked at further where a first sample by it is so many times as large."""

_CLOSE = 1.1
"""A way is tried as well where its estimate is at most so many times what the other one
turned out to take."""

_SPARSE = 0.25
"""Of their bits: rows that deflate to less are quickly deflated a second time."""

_PIECES, _PIECE_BYTES = 4, 4096
"""What of denser rows is deflated by way of trial."""

_PREFERENCE = 1.005
"""How much larger the pieces may be when they are deflated in a seventh of the time."""


class Sizes(NamedTuple):
    """What rows take in bytes, either way."""

    fax: float
    deflated: float


def pack(rows: Rows, width: int) -> tuple[bool, bytes]:
    """Pack a whole page the smaller way; also return whether that is G4."""
    expected = judge(rows, width)
    is_fax = expected.fax < expected.deflated
    data = encode(rows, width, is_fax=is_fax)
    if max(expected) < _CLOSE * len(data):
        other = encode(rows, width, is_fax=not is_fax)
        if len(other) < len(data):
            return not is_fax, other
    return is_fax, data


def encode(rows: Rows, width: int, *, is_fax: bool) -> bytes:
    """Pack rows one way or the other, so that they stand by themselves."""
    return g4.encode(rows, width) if is_fax else deflate(rows)


def judge(rows: Rows, width: int) -> Sizes:
    """Estimate what a page's rows take either way, by as small a sample as tells."""
    most = max(len(rows) // _LEAST_BANDS, _BAND)
    sample, share = _bands(rows, min(_FAR, most))
    fax, runs = len(g4.encode(sample, width)), len(_by_runs(sample))
    if fax > _HOPELESS * runs:
        return Sizes(fax / share, runs / share)
    near = min(_NEAR, most)
    return Sizes(
        fax=estimate(rows, width, near, is_fax=True),
        deflated=estimate(rows, width, near, is_fax=False),
    )


def estimate(rows: Rows, width: int, distance: int = _NEAR, *, is_fax: bool) -> float:
    """Estimate what rows take, by a band in every `distance` of them."""
    sample, share = _bands(rows, distance)
    return len(encode(sample, width, is_fax=is_fax)) / share


def _bands(rows: Rows, distance: int) -> tuple[Rows, float]:
    """Put together a band from the middle of every `distance` rows.

    Also returns the share of the rows that these are.
    """
    count = len(rows)
    if min(distance, count) <= _BAND:
        return rows, 1.0
    first = (min(distance, count) - _BAND) // 2
    tops = np.arange(first, count - _BAND + 1, distance)
    sample: Rows = rows[(tops[:, None] + np.arange(_BAND)).ravel()]
    return sample, len(sample) / count


def deflate(rows: Rows) -> bytes:
    """Deflate rows, looking for runs alone or for all that repeats.

    Error diffusion leaves nothing to find but runs, and looking for more takes seven
    times as long. Text, and patterns that repeat, become smaller by it.
    """
    runs = _by_runs(rows)
    is_quick = rows.nbytes <= _PIECES * _PIECE_BYTES
    if is_quick or len(runs) < _SPARSE * rows.nbytes or _seems_to_repeat(rows):
        return min(runs, _by_matches(rows, 6), key=len)
    return runs


def _seems_to_repeat(rows: Rows) -> bool:
    pieces = list(_pieces(rows))
    runs = sum(len(_by_runs(piece)) for piece in pieces)
    return runs > _PREFERENCE * sum(len(_by_matches(piece, 4)) for piece in pieces)


def _pieces(rows: Rows) -> Iterator[Rows]:
    content = rows.reshape(-1)
    distance = len(content) // _PIECES
    for start in range((distance - _PIECE_BYTES) // 2, len(content), distance):
        yield content[start : start + _PIECE_BYTES]


def _by_runs(rows: Rows) -> bytes:
    packer = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return packer.compress(rows.data) + packer.flush()


def _by_matches(rows: Rows, level: int) -> bytes:
    return zlib.compress(rows.data, level)

"""Encodes bilevel rows as CCITT G4, which is how TIFF keeps black and white.

The work is done by an optional C extension, several times faster than libtiff, which
does it where the extension wasn't built. Called by `tiff`.
"""

from __future__ import annotations

import io
from importlib import import_module
from typing import Any, Final

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import STRIPBYTECOUNTS, STRIPOFFSETS, TiffImageFile

from bwpool.convert.plan import Rows

try:
    _g4: Any = import_module("_bwpool_g4")
except ImportError:
    _g4 = None

HAVE_ENCODER: Final = _g4 is not None
"""Whether the C extension is there."""

_WHOLE_STRIP = 2**31 - 1


def encode(rows: Rows, width: int) -> bytes:
    """Encode packed rows, a set bit being white, as one strip that stands by itself.

    In the strip, as fax machines have it, white is 0.
    """
    return _by_extension(rows, width) if HAVE_ENCODER else by_libtiff(rows, width)


def _by_extension(rows: Rows, width: int) -> bytes:
    bits = np.ascontiguousarray(rows)
    # Only what is written to takes memory.
    out = np.empty(_g4.lib.g4_bound(width, len(rows)), np.uint8)
    size = _g4.lib.g4_encode(
        _g4.ffi.from_buffer("uint8_t[]", bits),
        width,
        len(rows),
        _g4.ffi.from_buffer("uint8_t[]", out, require_writable=True),
    )
    if size == 0:
        raise MemoryError(f"no memory for rows of {width} pixels")
    return out[:size].tobytes()


def by_libtiff(rows: Rows, width: int) -> bytes:
    """Do the same by way of a TIFF in memory, of which only the strip is kept."""
    image = Image.frombuffer("1", (width, len(rows)), ~rows, "raw", "1", 0, 1)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression="group4", strip_size=_WHOLE_STRIP)
    buffer.seek(0)
    with TiffImageFile(buffer) as written:
        (offset,) = written.tag_v2[STRIPOFFSETS]
        (length,) = written.tag_v2[STRIPBYTECOUNTS]
    return buffer.getvalue()[offset : offset + length]

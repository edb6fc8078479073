"""Reads the entries of a TIFF's directory, which EXIF has as well.

Pure. Called for the pages of a TIFF and for a JPEG's head.
"""

from __future__ import annotations

import struct

ORDERS = {b"II": "<", b"MM": ">"}
"""Of bytes, as `struct` calls them, by how the file begins."""

CLASSIC_ENTRY, BIG_ENTRY = "HHII", "HHQI4x"
"""An entry: tag, type, count, and the value, or where that is."""

_SHORT = 3


def read_tags(entries: bytes, order: str, form: str = CLASSIC_ENTRY) -> dict[int, int]:
    """Return what the field of each tag holds.

    Raises struct.error where the last entry is cut short.
    """
    unpacked = struct.iter_unpack(order + form, entries)
    return {tag: _field(kind, value, order) for tag, kind, _, value in unpacked}


def _field(kind: int, value: int, order: str) -> int:
    if kind != _SHORT:
        return value
    return value >> 16 if order == ">" else value & 0xFFFF  # it stands on the left

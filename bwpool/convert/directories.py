"""Lists the pages of a TIFF that are pages: not the small copies of a pyramid.

Walks the chain of directories without a library, since none tells which kind of page
each one describes. Called while a source is inspected.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

from bwpool.convert.limits import check_pages
from bwpool.storage import Source

_TAG = 254
_BIG_VERSION = 43
_REDUCED_OR_MASK = 0b101

_CLASSIC = ("H", "HHII", "I", 4)
_BIG = ("Q", "HHQI4x", "Q", 8)
"""The forms of a directory's count, its entries (tag, type, count, value) and an
offset, and where the first offset is."""


def full_pages(source: Source, max_pages: int) -> list[int]:
    """Return the numbers of the pages to convert; the first, if none is in full.

    Raises LimitExceeded as soon as there are too many.
    """
    numbers: list[int] = []
    for number, kind in enumerate(_kinds(source)):
        if not kind & _REDUCED_OR_MASK:
            numbers.append(number)
        check_pages(number + 1, max_pages)
    return numbers or [0]


def _kinds(source: Source) -> Iterator[int]:
    """Yield each directory's NewSubfileType; end where the chain ends or is broken."""
    order = "<" if source.read(2) == b"II" else ">"

    def unpack(form: str, at: int) -> int:
        data = source.read(struct.calcsize(order + form), at)
        (value,) = struct.unpack(order + form, data)
        return int(value)

    seen: set[int] = set()
    with suppress(struct.error):
        count_form, entry_form, offset_form, start = (
            _BIG if unpack("H", 2) == _BIG_VERSION else _CLASSIC
        )
        at = unpack(offset_form, start)
        while at and at not in seen:
            seen.add(at)
            count = unpack(count_form, at)
            at += struct.calcsize(order + count_form)
            entries = source.read(count * struct.calcsize(order + entry_form), at)
            yield _kind(struct.iter_unpack(order + entry_form, entries))
            at = unpack(offset_form, at + len(entries))


def _kind(entries: Iterator[tuple[int, ...]]) -> int:
    return next((value for tag, _, _, value in entries if tag == _TAG), 0)

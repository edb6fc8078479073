"""Writes TIFF page by page and strip by strip, black and white as G4 or Deflate.

A writer of our own, since it takes pages of any sizes and any height as they come, in
constant memory.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain

import numpy as np

from bwpool.convert import packing
from bwpool.convert.plan import Chunk, Page, Plan, Rows
from bwpool.errors import LimitExceeded

_HEADER = b"II*\0"
_FIRST_DIRECTORY_AT = 4
_MAX_BYTES = 2**32 - 1
_SHORT, _LONG, _RATIONAL = 3, 4, 5
_SIZES = {_SHORT: 2, _LONG: 4, _RATIONAL: 8}
_G4, _DEFLATE = 4, 8
_WHITE_IS_ZERO, _BLACK_IS_ZERO = 0, 1
_HORIZONTAL_DIFFERENCES = 2
_INCH = 2

Entry = tuple[int, int, tuple[int, ...]]
"""A directory's entry: tag, type, values; a rational's two numbers count as one."""


_JUDGED_PIXELS = 2**26
"""The pixels from a page's top that decide how it is packed, before any is written."""

_DOUBT = 1.05
_EARLY_DOUBT = 1.25
"""By what factor a page's strips may exceed what they were to take the other way,
before the page is packed that way after all; the latter before it has ended."""

_LITTLE = 64
"""What part of a page's bits is not worth beginning anew for before its end."""


@dataclass(slots=True)
class _Body:
    """The strips of a page."""

    start: int
    compression: int
    rows: int = 0
    """Of a strip; the last may have fewer."""
    size: int = 0
    """The bytes of all strips."""
    lengths: list[int] = field(default_factory=list)
    rival: float = 0
    """The bytes that they were to take the other way; not known of a whole page."""

    @property
    def end(self) -> int:
        """Where they end in the file."""
        return self.start + self.size

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each begins in the file."""
        return tuple(accumulate(self.lengths[:-1], initial=self.start))

    def chunk(self, rows: int, data: bytes) -> Chunk:
        """Take in a strip of so many rows."""
        self.rows = self.rows or rows
        self.lengths.append(len(data))
        self.size += len(data)
        return Chunk(data)


_Writing = Generator[Chunk, None, _Body]
"""Yields chunks; returns what they are."""


def encode(plan: Plan, pages: Iterator[Page]) -> Iterator[Chunk]:
    """Encode the pages, each followed by its directory, linked as they come."""
    size, link_at = len(_HEADER) + 4, _FIRST_DIRECTORY_AT
    for number, page in enumerate(pages):
        if number == 0:
            yield Chunk(_HEADER + bytes(4))
        write = _write_bits if plan.unit == "bit" else _write_bytes
        body = yield from write(page, size)
        padding = body.end % 2  # directories start at even offsets
        at = body.end + padding
        entries = _entries(page, plan, body)
        directory = _directory(entries, at)
        yield Chunk(bytes(padding) + directory)
        yield Chunk(at.to_bytes(4, "little"), link_at)
        size = at + len(directory)
        _check_size(size)
        link_at = size - _values_size(entries) - 4


def _write_bytes(page: Page, start: int) -> _Writing:
    body = _Body(start, _DEFLATE)
    for strip in page.strips():
        differences = strip.copy()
        differences[:, 1:] -= strip[:, :-1]
        yield body.chunk(len(strip), zlib.compress(differences.data, 3))
        _check_size(body.end)
    return body


def _write_bits(page: Page, start: int) -> _Writing:
    """Pack a page in the way that is the smaller one for all its strips together.

    A page in one piece is known before it is written. Of one that passes in strips only
    the top is: it is packed anew when the rest turns out to be of another kind.
    """
    strips = page.strips()
    head = _head(page, strips)
    if len(head) == 1 and len(head[0]) == page.height:
        is_fax, data = packing.pack(head[0], page.width)
        body = _Body(start, _G4 if is_fax else _DEFLATE)
        yield body.chunk(page.height, data)
        return body
    sizes = packing.judge(np.concatenate(head), page.width)
    compression = _G4 if sizes.fax < sizes.deflated else _DEFLATE
    strips = chain(head, strips)
    doubts = [_EARLY_DOUBT, math.inf, math.inf]  # the third goes by the whole page
    while True:
        body = _Body(start, compression)
        yield from _pack_strips(body, strips, page, doubts.pop(0))
        if not doubts or body.size <= _DOUBT * body.rival:
            return body
        yield Chunk(b"", start, cuts=True)
        compression = _DEFLATE if compression == _G4 else _G4
        strips = page.strips()


def _pack_strips(
    body: _Body, strips: Iterator[Rows], page: Page, doubt: float
) -> Iterator[Chunk]:
    """Pack strips until they end, or are the wrong way's by the factor `doubt`."""
    is_fax = body.compression == _G4
    little = page.width * page.height // (8 * _LITTLE)
    for strip in strips:
        data = packing.encode(strip, page.width, is_fax=is_fax)
        body.rival += packing.estimate(strip, page.width, is_fax=not is_fax)
        yield body.chunk(len(strip), data)
        _check_size(body.end)
        if body.size > doubt * body.rival + little:
            return


def _head(page: Page, strips: Iterator[Rows]) -> list[Rows]:
    """Take the strips of the page's top."""
    head: list[Rows] = []
    pixels = 0
    for strip in strips:
        # Not with the gray rows that it was made in the place of.
        head.append(strip if len(strip) == page.height else strip.copy())
        pixels += len(strip) * page.width
        if pixels >= _JUDGED_PIXELS:
            break
    return head


def _entries(page: Page, plan: Plan, body: _Body) -> list[Entry]:
    is_packed = plan.unit == "bit"
    is_fax = body.compression == _G4
    entries = [
        (256, _LONG, (page.width,)),
        (257, _LONG, (page.height,)),
        (258, _SHORT, (1 if is_packed else 8,)),
        (259, _SHORT, (body.compression,)),
        (262, _SHORT, (_WHITE_IS_ZERO if is_fax else _BLACK_IS_ZERO,)),
        (273, _LONG, body.offsets),
        (277, _SHORT, (1,)),
        (278, _LONG, (body.rows,)),
        (279, _LONG, tuple(body.lengths)),
    ]
    if page.dpi:
        across, down = (round(dpi * 1000) for dpi in page.dpi)
        entries += [
            (282, _RATIONAL, (across, 1000)),
            (283, _RATIONAL, (down, 1000)),
            (296, _SHORT, (_INCH,)),
        ]
    if not is_packed:
        entries.append((317, _SHORT, (_HORIZONTAL_DIFFERENCES,)))
    return entries


def _directory(entries: list[Entry], at: int) -> bytes:
    """Lay out a directory that starts at the offset `at`, its long values behind it."""
    head = len(entries).to_bytes(2, "little")
    values = b""
    values_at = at + 2 + 12 * len(entries) + 4
    for tag, kind, numbers in entries:
        data = _pack(kind, numbers)
        head += tag.to_bytes(2, "little") + kind.to_bytes(2, "little")
        head += (len(data) // _SIZES[kind]).to_bytes(4, "little")
        if len(data) <= 4:
            head += data.ljust(4, b"\0")
        else:
            head += (values_at + len(values)).to_bytes(4, "little")
            values += data
    return head + bytes(4) + values


def _values_size(entries: list[Entry]) -> int:
    sizes = (len(_pack(kind, numbers)) for _, kind, numbers in entries)
    return sum(size for size in sizes if size > 4)


def _pack(kind: int, numbers: tuple[int, ...]) -> bytes:
    width = 2 if kind == _SHORT else 4
    return b"".join(number.to_bytes(width, "little") for number in numbers)


def _check_size(size: int) -> None:
    if size > _MAX_BYTES:
        raise LimitExceeded("the output needs more than the 4 GB that a TIFF can hold")

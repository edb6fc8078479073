"""Writes TIFF page by page and strip by strip, CCITT G4 for black and white.

A writer of our own, since it takes pages of any sizes and any height as they come, in
constant memory.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from bwpool.convert import g4
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


def encode(plan: Plan, pages: Iterator[Page]) -> Iterator[Chunk]:
    """Encode the pages, each followed by its directory, linked as they come."""
    size, link_at = len(_HEADER) + 4, _FIRST_DIRECTORY_AT
    for number, page in enumerate(pages):
        if number == 0:
            yield Chunk(_HEADER + bytes(4))
        offsets: list[int] = []
        lengths: list[int] = []
        rows = 0
        for strip in page.strips():
            data = _encode_strip(strip, page, plan)
            rows = rows or len(strip)
            offsets.append(size)
            lengths.append(len(data))
            size += len(data)
            _check_size(size)
            yield Chunk(data)
        padding = size % 2  # directories start at even offsets
        entries = _entries(page, plan, rows, offsets, lengths)
        directory = _directory(entries, size + padding)
        yield Chunk(bytes(padding) + directory)
        yield Chunk((size + padding).to_bytes(4, "little"), link_at)
        size += padding + len(directory)
        _check_size(size)
        link_at = size - _values_size(entries) - 4


def _encode_strip(strip: Rows, page: Page, plan: Plan) -> bytes:
    if plan.unit == "bit":
        return g4.encode(strip, page.width)
    differences = strip.copy()
    differences[:, 1:] -= strip[:, :-1]
    return zlib.compress(differences.data, 3)


def _entries(
    page: Page, plan: Plan, rows: int, offsets: list[int], lengths: list[int]
) -> list[Entry]:
    packed = plan.unit == "bit"
    entries = [
        (256, _LONG, (page.width,)),
        (257, _LONG, (page.height,)),
        (258, _SHORT, (1 if packed else 8,)),
        (259, _SHORT, (_G4 if packed else _DEFLATE,)),
        (262, _SHORT, (_WHITE_IS_ZERO if packed else _BLACK_IS_ZERO,)),
        (273, _LONG, tuple(offsets)),
        (277, _SHORT, (1,)),
        (278, _LONG, (rows,)),
        (279, _LONG, tuple(lengths)),
    ]
    if page.dpi:
        across, down = (round(dpi * 1000) for dpi in page.dpi)
        entries += [
            (282, _RATIONAL, (across, 1000)),
            (283, _RATIONAL, (down, 1000)),
            (296, _SHORT, (_INCH,)),
        ]
    if not packed:
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

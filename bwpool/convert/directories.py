"""Finds the pages of a TIFF, and lets libvips see one of them at a time.

Which pages are pages, and not the small copies of a pyramid, no library tells. And
libvips walks the whole chain of pages each time it opens one, so that a thousand of
them take a million steps; a page that seems to be the only one takes one. Called while
a source is inspected.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pyvips

from bwpool.convert.ifd import BIG_ENTRY, CLASSIC_ENTRY, ORDERS, read_tags
from bwpool.convert.limits import check_pages
from bwpool.storage import Source

_WIDTH, _HEIGHT, _SUBFILE_TYPE = 256, 257, 254
_REDUCED_OR_MASK = 0b101
_BIG_VERSION = 43
_CLASSIC = ("H", CLASSIC_ENTRY, "I", 4)
_BIG = ("Q", BIG_ENTRY, "Q", 8)
"""The forms of a directory's count, its entries and an offset, and where the first
offset is."""

Patch = tuple[int, bytes]
"""An offset, and what to read there instead of what is there."""


@dataclass(frozen=True, slots=True)
class Directory:
    """A page, as the TIFF describes it."""

    size: tuple[int, int]
    is_full: bool
    """Whether it is a page of its own, in full resolution."""
    patches: tuple[Patch, Patch]
    """What makes it seem the only page."""


def find_pages(source: Source, max_pages: int) -> list[Directory]:
    """Return the pages to convert; all there are, if none is in full.

    Raises LimitExceeded as soon as there are too many.
    """
    found: list[Directory] = []
    for directory in _walk(source):
        found.append(directory)
        check_pages(len(found), max_pages)
    return [directory for directory in found if directory.is_full] or found


def only(source: Source, directory: Directory) -> pyvips.Source:
    """Return a stream of the TIFF in which `directory` is the only one."""
    position = 0

    def read(size: int) -> bytes:
        nonlocal position
        data = _patched(source.read(size, position), position, directory.patches)
        position += len(data)
        return data

    def seek(offset: int, whence: int) -> int:
        nonlocal position
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: position, io.SEEK_END: source.size}
        position = origin[whence] + offset
        return position

    stream = pyvips.SourceCustom()
    stream.on_read(read)
    stream.on_seek(seek)
    return stream


def _patched(data: bytes, start: int, patches: tuple[Patch, ...]) -> bytes:
    for at, patch in patches:
        first, end = at - start, at - start + len(patch)
        if first < len(data) and end > 0:
            inside = patch[max(-first, 0) : len(data) - first]
            data = data[: max(first, 0)] + inside + data[max(end, 0) :]
    return data


def _walk(source: Source) -> Iterator[Directory]:
    """Yield each directory; end where the chain ends or is broken."""
    order = ORDERS.get(source.read(2), ">")

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
            entries_at = at + struct.calcsize(order + count_form)
            entry_size = struct.calcsize(order + entry_form)
            entries = source.read(unpack(count_form, at) * entry_size, entries_at)
            link_at = entries_at + len(entries)
            tags = read_tags(entries, order, entry_form)
            yield Directory(
                size=(tags.get(_WIDTH, 0), tags.get(_HEIGHT, 0)),
                is_full=not tags.get(_SUBFILE_TYPE, 0) & _REDUCED_OR_MASK,
                patches=(
                    (start, struct.pack(order + offset_form, at)),
                    (link_at, bytes(struct.calcsize(order + offset_form))),
                ),
            )
            at = unpack(offset_form, link_at)

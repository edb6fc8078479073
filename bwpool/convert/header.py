"""What the head of a JPEG says of its pixels, of their resolution, and of their use.

Pure. Read here, since Pillow makes sense of every segment, which takes a tenth of the
time that a thumbnail does, and guesses a resolution where none is told.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from bwpool.convert.ifd import CLASSIC_ENTRY, ORDERS, read_tags
from bwpool.convert.plan import Dpi

_BITS = 8
_START_OF_SCAN = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_BARE = (0x01, *range(0xD0, 0xDA))
"""Markers without a segment."""

_JFIF, _EXIF, _ICC, _ADOBE = 0xE0, 0xE1, 0xE2, 0xEE
_PREFIXES = {
    _JFIF: b"JFIF\0",
    _EXIF: b"Exif\0\0",
    _ICC: b"ICC_PROFILE\0",
    _ADOBE: b"Adobe",
}
"""How the segments begin that matter here; others share their markers."""

_ORIENTATION, _ACROSS, _DOWN, _UNIT = 0x0112, 0x011A, 0x011B, 0x0128
"""Tags of EXIF: of the last three, two are resolutions and one is what they count."""

_UPRIGHT, _TURNED = 1, range(2, 9)
"""Orientations."""

_INCHES = {1: 1.0, 2: 2.54}
"""By JFIF's unit: the dots of an inch for one that is told. EXIF counts from 2."""

_ENTRY_BYTES = struct.calcsize(CLASSIC_ENTRY)


@dataclass(frozen=True, slots=True)
class Exif:
    """The little of EXIF that matters here; what it does not tell is 0 dots."""

    orientation: int = _UPRIGHT
    dpi: Dpi = None


@dataclass(frozen=True, slots=True)
class Header:
    """A JPEG's head."""

    width: int
    height: int
    components: int
    is_progressive: bool
    density: Dpi
    """The resolution that JFIF tells."""
    exif: bytes
    """A TIFF file in small, to be read by `read_exif`; empty if there is none."""
    icc: bytes
    is_adobe: bool


def read_header(data: bytes) -> Header:
    """Read what comes before the first scan.

    Raises ValueError or struct.error for what is none of eight bits, or too damaged.
    """
    frame = 0
    bodies: defaultdict[int, list[bytes]] = defaultdict(list)
    for marker, body in _segments(data):
        if marker in _FRAMES:
            frame, frame_body = marker, body
        elif marker in _PREFIXES and body.startswith(_PREFIXES[marker]):
            bodies[marker].append(body.removeprefix(_PREFIXES[marker]))
    if not frame:
        raise ValueError("no frame before the first scan")
    bits, height, width, components = struct.unpack_from(">BHHB", frame_body)
    if bits != _BITS or components not in (1, 3, 4):
        raise ValueError(f"{components} components of {bits} bits")
    return Header(
        width=width,
        height=height,
        components=components,
        is_progressive=frame in _PROGRESSIVE,
        density=_density(b"".join(bodies[_JFIF][:1])),
        exif=b"".join(bodies[_EXIF]),
        icc=_joined(bodies[_ICC]),
        is_adobe=bool(bodies[_ADOBE]),
    )


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker and the content of each segment up to the first scan."""
    at = 2
    while (at := data.find(b"\xff", at) + 1) and at < len(data):
        marker = data[at]
        if marker in (0x00, 0xFF):  # no marker, or filling before one
            continue
        at += 1
        if marker == _START_OF_SCAN:
            return
        if marker not in _BARE:
            size = int.from_bytes(data[at : at + 2])
            yield marker, data[at + 2 : at + size]
            at += size


def _density(jfif: bytes) -> Dpi:
    try:
        unit, across, down = struct.unpack_from(">BHH", jfif, 2)
    except struct.error:
        return None
    inch = _INCHES.get(unit, 0.0)
    return (across * inch, down * inch) if inch else None


def _joined(profile: list[bytes]) -> bytes:
    """Put together a profile, whose parts each begin with number and count."""
    parts = sorted(profile)
    if not parts or parts[0][1:2] != bytes([len(parts)]):
        return b""
    return b"".join(part[2:] for part in parts)


def read_exif(exif: bytes) -> Exif:
    """Read orientation and resolution from EXIF's first directory.

    Raises ValueError where there is none. Of one that is cut short, it reads the rest.
    """
    order = ORDERS.get(exif[:2])
    if order is None:
        raise ValueError("not EXIF")
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
    except struct.error:
        raise ValueError("EXIF without a directory") from None
    count = min(count, (len(exif) - start - 2) // _ENTRY_BYTES)
    tags = read_tags(exif[start + 2 :][: count * _ENTRY_BYTES], order)
    orientation = tags.get(_ORIENTATION, _UPRIGHT)
    inch = _INCHES.get(tags.get(_UNIT, 2) - 1, 0.0)
    across, down = (_rational(exif, order, tags.get(tag)) for tag in (_ACROSS, _DOWN))
    return Exif(
        orientation=orientation if orientation in _TURNED else _UPRIGHT,
        dpi=(across * inch, down * inch),
    )


def _rational(exif: bytes, order: str, at: int | None) -> float:
    """Read a fraction; 0 where there is none."""
    if at is None:
        return 0.0
    try:
        above, below = struct.unpack_from(order + "II", exif, at)
    except struct.error:
        return 0.0
    return above / below if below else 0.0

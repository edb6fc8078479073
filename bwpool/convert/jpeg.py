"""Reads JPEGs by libjpeg-turbo directly, and only their luma where that is enough.

A JPEG stores luma as a component of its own: taking it as it is skips chroma, colour
conversion and the way back to gray. simplejpeg is used since it reports damage that
libjpeg itself only warns of, and Pillow and libvips let pass as gray filler. What is
left to the general reader: JPEGs of more than eight bits, of chroma subsampled in ways
that simplejpeg doesn't know, and those too large for memory.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyvips
import simplejpeg

from bwpool.convert import colour, complaints, general
from bwpool.convert.header import Exif, Header, read_exif, read_header
from bwpool.convert.icc import is_plain
from bwpool.convert.limits import MAX_WHOLE_PIXELS
from bwpool.convert.plan import Page, Picture, Rows
from bwpool.settings import ConvertSettings
from bwpool.storage import Source

_MAX_BYTES = 2**29
"""Of a file that is read into memory at once."""

_HARMLESS = (
    "Unknown Adobe color transform",
    "unknown JFIF revision",
    "Invalid SOS parameters",
)
"""Warnings of libjpeg after which all the pixels are still right."""

_UNKNOWN_SUBSAMPLING = "subsampling level"
"""In what simplejpeg says of a JPEG whose chroma is subsampled as it doesn't know."""

_EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
_HEADER_MARKER = re.compile(r"e.|fe|db|c[0-2]")

_TURNS: dict[int, Callable[[Rows], Rows]] = {
    2: lambda rows: rows[:, ::-1],
    3: lambda rows: rows[::-1, ::-1],
    4: lambda rows: rows[::-1],
    5: lambda rows: rows.T,
    6: lambda rows: rows[::-1].T,
    7: lambda rows: rows[::-1, ::-1].T,
    8: lambda rows: rows.T[::-1],
}
"""How to set a picture upright that is stored with an EXIF orientation."""


def inspect(source: Source, content: str, settings: ConvertSettings) -> Picture:
    """Look at a JPEG's header."""
    otherwise = partial(general.inspect, source, content, settings)
    if source.size > _MAX_BYTES:
        return otherwise()
    data = source.read(source.size)
    try:
        header = read_header(data)
    except (ValueError, struct.error):  # the general reader will tell
        return otherwise()
    size = header.width, header.height
    if size[0] * size[1] > MAX_WHOLE_PIXELS and not header.is_progressive:
        return otherwise()
    return Picture(
        content=content,
        sizes=(size,),
        decode=lambda: _decode(header, data, otherwise),
        is_whole=header.is_progressive,
    )


def _decode(
    header: Header, data: bytes, otherwise: Callable[[], Picture]
) -> Iterator[Page]:
    try:
        page = _page(header, data)
    except ValueError as error:
        if _UNKNOWN_SUBSAMPLING not in str(error):
            raise
        yield from otherwise().decode()
    else:
        yield page


def _page(header: Header, data: bytes) -> Page:
    exif = _exif(header)
    dpi = colour.usable_dpi(header.density or exif.dpi)
    if header.components != 4 and is_plain(header.icc):
        gray = _upright(_samples(data, "GRAY")[..., 0], exif.orientation)
        height, width = gray.shape
        if (width, height) != (header.width, header.height):
            dpi = dpi and dpi[::-1]
        return Page(width, height, dpi, lambda: iter((gray,)))
    image = _coloured(header, data, exif.orientation)
    return colour.page(image, lambda: image, dpi)


def _coloured(header: Header, data: bytes, orientation: int) -> pyvips.Image:
    """Decode to an image that still has its colours, profile and orientation."""
    if header.components == 4:
        samples, space = _samples(data, "CMYK"), "cmyk"
        if header.is_adobe:  # Adobe stores how much paper shows, not ink
            samples = ~samples
    else:
        samples, space = _samples(data, "RGB"), "srgb"
    return colour.image_of(samples, space, header.icc, orientation)


def _samples(data: bytes, space: str) -> Rows:
    """Decode to an array of height, width and components."""
    samples: Rows
    try:
        samples = simplejpeg.decode_jpeg(data, space)
    except ValueError as error:
        if not _is_harmless(str(error), data):
            raise
        complaints.hear(str(error))
        _check_complete(data)
        samples = simplejpeg.decode_jpeg(data, space, strict=False)
    return samples


def _check_complete(data: bytes) -> None:
    """Have libvips look whether the file ends too early.

    simplejpeg tells the first warning only, and a harmless one may come before that.
    """
    options = {"access": "sequential", "fail_on": "truncated"}
    pyvips.Image.new_from_buffer(data, "", **options).avg()


def _is_harmless(warning: str, data: bytes) -> bool:
    extraneous = _EXTRANEOUS.search(warning)
    if extraneous is None:
        return any(words in warning for words in _HARMLESS)
    if _HEADER_MARKER.match(extraneous[2]):
        return True
    # Before the end, padding is harmless; what else is left over after the last pixel
    # shows that the decoder had lost its way.
    end = data.rfind(b"\xff\xd9")
    padding = data[max(end - int(extraneous[1]), 0) : end]
    return extraneous[2] == "d9" and not padding.strip(b"\0\xff")


def _exif(header: Header) -> Exif:
    if not header.exif:
        return Exif()
    try:
        return read_exif(header.exif)
    except ValueError:
        complaints.hear("the EXIF data can't be read")
        return Exif()


def _upright(gray: Rows, orientation: int) -> Rows:
    turn = _TURNS.get(orientation)
    return gray if turn is None else np.ascontiguousarray(turn(gray))

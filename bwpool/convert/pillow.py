"""Reads through Pillow what libvips doesn't: BMP, JPEG 2000, and HEIC with the extra.

Called while a source is inspected.
"""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np
from PIL import Image

from bwpool.convert import colour
from bwpool.convert.plan import BUFFERED_BYTES, Page, Picture
from bwpool.errors import BadImage
from bwpool.settings import ConvertSettings
from bwpool.storage import Source

_FORMATS = {"bmp": ("BMP", "DIB"), "jp2": ("JPEG2000",), "heic": ("HEIF",)}
_SPACES = {
    "L": "b-w",
    "LA": "b-w",
    "I;16": "grey16",
    "RGB": "srgb",
    "RGBA": "srgb",
    "CMYK": "cmyk",
}
"""What libvips calls Pillow's modes; the others are converted to one of these."""


def inspect(source: Source, content: str, _: ConvertSettings) -> Picture:
    """Look at the header of a BMP, JPEG 2000 or HEIC file."""
    if content == "heic":
        _register_heif()
    image = Image.open(_stream(source), formats=_FORMATS[content])
    return Picture(
        content=content,
        sizes=(image.size,),
        decode=lambda: iter((_page(image),)),
        is_whole=True,
    )


def _page(image: Image.Image) -> Page:
    image.load()
    dpi = colour.usable_dpi(image.info.get("dpi"))
    profile = image.info.get("icc_profile")
    if image.mode not in _SPACES:
        image = image.convert(_simpler_mode(image))
    samples = np.asarray(image)
    samples = samples.reshape(image.height, image.width, -1)
    whole = colour.image_of(samples, _SPACES[image.mode], profile)
    return colour.page(whole, lambda: whole, dpi)


def _simpler_mode(image: Image.Image) -> str:
    if image.mode == "1":
        return "L"
    return "RGBA" if image.has_transparency_data else "RGB"


def _stream(source: Source) -> BinaryIO:
    if source.size <= BUFFERED_BYTES:
        return io.BytesIO(source.read(source.size))
    return open(source.descriptor, "rb", closefd=False)


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise BadImage(
            "HEIC can't be read: install bwpool with the extra heif"
        ) from None
    register_heif_opener()

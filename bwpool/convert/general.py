"""Reads everything through libvips that has no faster way of its own.

Brings ICC profiles, CMYK, 16 bits, transparency, orientation, and pictures larger than
memory. Called while a source is inspected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from bwpool.convert import complaints
from bwpool.convert.colour import image_of, orientation, page
from bwpool.convert.directories import full_pages
from bwpool.convert.plan import BUFFERED_BYTES, Page, Picture
from bwpool.convert.sniff import OTHER
from bwpool.errors import BadImage
from bwpool.settings import ConvertSettings
from bwpool.storage import Source

_STREAMING_LOADERS = ("tiffload", "pngload", "jpegload")


def prepare() -> None:
    """Set up libvips in this process: nothing cached, no risky loaders, warm."""
    complaints.listen(logging.getLogger("pyvips"))
    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)  # noqa: FBT003 - the binding's own
    Image.MAX_IMAGE_PIXELS = None  # `limits` has its own, told from the header
    warm = np.zeros((8, 8, 3), np.uint8)
    page(lambda: image_of(warm, "srgb"))


def inspect(source: Source, content: str, settings: ConvertSettings) -> Picture:
    """Look at the header of whatever libvips can read."""
    data = source.read(source.size) if source.size <= BUFFERED_BYTES else None
    load = partial(_load, source, data)
    if content == "jpg":  # its errors are warnings, for libjpeg
        load = partial(load, fail_on="warning")
    first = _open(load, content)
    loader = first.get("vips-loader").removesuffix("_buffer").removesuffix("_source")
    if loader == "tiffload":
        numbers = full_pages(source, settings.max_pages)
        loads = [partial(load, page=number) for number in numbers]
        sizes = tuple(_size(load()) for load in loads)
    else:  # what other formats call pages are the frames of an animation
        loads, sizes = [load], (_size(first),)
    return Picture(
        content=content,
        sizes=sizes,
        decode=lambda: map(_page, loads),
        is_whole=loader not in _STREAMING_LOADERS or _is_interlaced(first),
    )


def _open(load: Callable[[], pyvips.Image], content: str) -> pyvips.Image:
    try:
        return load()
    except pyvips.Error as error:
        if content == OTHER or "not in a known format" not in error.detail:
            raise
        raise BadImage(f"the {content} is damaged or ends too early") from error


def _load(source: Source, data: bytes | None, **options: Any) -> pyvips.Image:
    options = {"access": "sequential", "fail_on": "error", **options}
    if data is not None:
        return pyvips.Image.new_from_buffer(data, "", **options)
    stream = pyvips.Source.new_from_descriptor(source.descriptor)
    return pyvips.Image.new_from_source(stream, "", **options)


def _size(image: pyvips.Image) -> tuple[int, int]:
    return image.width, image.height


def _is_interlaced(image: pyvips.Image) -> bool:
    return bool(image.get_typeof("interlaced") and image.get("interlaced"))


def _page(load: Callable[..., pyvips.Image]) -> Page:
    if orientation(load()) != 1:
        load = partial(load, access="random")  # rows are wanted in another order
    return page(load)

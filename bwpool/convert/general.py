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
from bwpool.convert.directories import Directory, find_pages, only
from bwpool.convert.plan import BUFFERED_BYTES, Page, Picture
from bwpool.convert.sniff import OTHER
from bwpool.errors import BadImage
from bwpool.settings import ConvertSettings
from bwpool.storage import Source

_OPTIONS = {"access": "sequential", "fail_on": "error"}
_STREAMING_LOADERS = ("tiffload", "pngload", "jpegload")


def prepare() -> None:
    """Set up libvips in this process: nothing cached, no risky loaders, warm."""
    complaints.listen(logging.getLogger("pyvips"))
    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)  # noqa: FBT003 - the binding's own
    Image.MAX_IMAGE_PIXELS = None  # `limits` has its own, told from the header
    warm = image_of(np.zeros((8, 8, 3), np.uint8), "srgb")
    page(warm, lambda: warm)


def inspect(source: Source, content: str, settings: ConvertSettings) -> Picture:
    """Look at the header of whatever libvips can read."""
    data = source.read(source.size) if source.size <= BUFFERED_BYTES else None
    load = partial(_load, source, data)
    if content == "jpg":  # its errors are warnings, for libjpeg
        load = partial(load, fail_on="warning")
    first = _open(load, content)
    loader = first.get("vips-loader").removesuffix("_buffer").removesuffix("_source")
    loads, sizes = [load], [(first.width, first.height)]
    # What other formats call pages are the frames of an animation.
    if loader == "tiffload" and first.get_n_pages() > 1:
        pages = find_pages(source, settings.max_pages)
        if not pages:
            raise BadImage("the tiff's pages can't be found")
        loads = [partial(_load_page, source, page) for page in pages]
        sizes = [page.size for page in pages]
    return Picture(
        content=content,
        sizes=tuple(sizes),
        decode=lambda: map(_page, loads),
        is_whole=loader not in _STREAMING_LOADERS or _is_interlaced(first),
    )


def _open(load: Callable[[], pyvips.Image], content: str) -> pyvips.Image:
    try:
        return load()
    except pyvips.Error as error:
        if "not in a known format" not in error.detail:
            raise
        if content == OTHER:
            raise BadImage("this is no picture of a format that is read") from error
        raise BadImage(f"the {content} is damaged or ends too early") from error


def _load(source: Source, data: bytes | None, **options: Any) -> pyvips.Image:
    options = {**_OPTIONS, **options}
    if data is not None:
        return pyvips.Image.new_from_buffer(data, "", **options)
    stream = pyvips.Source.new_from_descriptor(source.descriptor)
    return pyvips.Image.new_from_source(stream, "", **options)


def _load_page(source: Source, page: Directory, **options: Any) -> pyvips.Image:
    stream = only(source, page)
    image = pyvips.Image.new_from_source(stream, "", **{**_OPTIONS, **options})
    if (image.width, image.height) != page.size:  # it was judged by its tags
        raise BadImage("the tiff has a page of two different sizes")
    return image


def _is_interlaced(image: pyvips.Image) -> bool:
    return bool(image.get_typeof("interlaced") and image.get("interlaced"))


def _page(load: Callable[..., pyvips.Image]) -> Page:
    image = load()
    if orientation(image) != 1:  # rows are wanted in another order
        load = partial(load, access="random")
        image = load()
    return page(image, load)

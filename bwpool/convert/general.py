"""Reads everything through libvips that has no faster way of its own.

Brings ICC profiles, CMYK, 16 bits, transparency, orientation, and pictures larger than
memory. Called while a source is inspected.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from bwpool.convert import complaints
from bwpool.convert.colour import image_of, orientation, page
from bwpool.convert.plan import BUFFERED_BYTES, Page, Picture
from bwpool.convert.sniff import OTHER
from bwpool.errors import BadImage
from bwpool.storage import Source

_STREAMING_LOADERS = ("tiffload", "pngload", "jpegload")


def prepare() -> None:
    """Set up libvips in this process: nothing cached, no risky loaders, warm."""
    complaints.listen(logging.getLogger("pyvips"))
    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)
    Image.MAX_IMAGE_PIXELS = None  # `limits` has its own, told from the header
    warm = np.zeros((8, 8, 3), np.uint8)
    page(lambda: image_of(warm, "srgb"))


def inspect(source: Source, content: str) -> Picture:
    """Look at the header of whatever libvips can read."""
    data = source.read(source.size) if source.size <= BUFFERED_BYTES else None
    load = partial(_load, source, data)
    first = _open(load, content)
    loader = first.get("vips-loader").removesuffix("_buffer").removesuffix("_source")
    # What other formats call pages are the frames of an animation.
    count = first.get_n_pages() if loader == "tiffload" else 1
    others = (load(page=number) for number in range(1, count))
    return Picture(
        content=content,
        sizes=tuple((image.width, image.height) for image in (first, *others)),
        decode=partial(_decode, load, count),
        is_whole=loader not in _STREAMING_LOADERS,
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


def _decode(load: Callable[..., pyvips.Image], pages: int) -> Iterator[Page]:
    for number in range(pages):
        options: dict[str, Any] = {"page": number} if pages > 1 else {}
        if orientation(load(**options)) != 1:
            options["access"] = "random"  # rows are wanted in another order
        yield page(partial(load, **options))

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

from bwpool.convert.colour import image_of, orientation, page
from bwpool.convert.plan import BUFFERED_BYTES, Page, Picture
from bwpool.storage import Source

_STREAMING_LOADERS = ("tiffload", "pngload", "jpegload")

_warnings: list[str] = []


class _Collector(logging.Handler):
    """Keeps what libvips warns of, which pyvips passes on as log records."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().removeprefix("VIPS:").strip()
        if text:
            _warnings.append(text)


def prepare() -> None:
    """Set up libvips in this process: nothing cached, no risky loaders, warm."""
    logging.getLogger("pyvips").addHandler(_Collector(logging.WARNING))
    logging.getLogger("pyvips").propagate = False
    pyvips.cache_set_max(0)
    pyvips.block_untrusted_set(True)
    Image.MAX_IMAGE_PIXELS = None  # `limits` has its own, told from the header
    warm = np.zeros((8, 8, 3), np.uint8)
    page(lambda: image_of(warm, "srgb"))


def take_warnings() -> list[str]:
    """Return what libvips warned of since it was last asked."""
    taken = list(dict.fromkeys(_warnings))
    _warnings.clear()
    return taken


def inspect(source: Source, content: str) -> Picture:
    """Look at the header of whatever libvips can read."""
    data = source.read(source.size) if source.size <= BUFFERED_BYTES else None
    load = partial(_load, source, data)
    first = load()
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

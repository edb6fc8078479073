"""From a libvips image of any kind to gray rows.

Where ICC profiles, CMYK, 16 bits, transparency and orientation end. Called by the
readers, for whatever isn't gray already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from bwpool.convert.icc import is_plain
from bwpool.convert.plan import Dpi, Page, Rows

STREAMED_PIXELS = 2**26
"""Pages of more pixels than this pass through in strips."""

_STRIP_PIXELS = 2**21
_MIN_ROWS, _MAX_ROWS = 32, 256
"""Of a strip: no fewer than Sauvola's threshold reaches, few enough for the cache."""
_MM_PER_INCH = 25.4
_MAX_DPI = 65535
"""What every format can hold."""
_PROFILE = "icc-profile-data"
_ORIENTATION = "orientation"
_GRAY_SPACES = ("b-w", "grey16")
_TRANSPOSING = 5
"""The first of the orientations that exchange width and height."""


def page(
    image: pyvips.Image, again: Callable[[], pyvips.Image], dpi: Dpi = None
) -> Page:
    """Make a page of an image, which may be one that can be read only once.

    `again` opens it anew. `dpi` is what the reader knows better than the image.
    """
    dpi = dpi or _dpi(image)
    if orientation(image) >= _TRANSPOSING:
        dpi = dpi and dpi[::-1]
    flat = flatten(image)
    if flat.width * flat.height <= STREAMED_PIXELS:
        gray = _assemble(flat)
        return Page(flat.width, flat.height, dpi, lambda: iter((gray,)))
    return Page(flat.width, flat.height, dpi, lambda: _gray_strips(flatten(again())))


def image_of(
    samples: Rows, space: str, profile: bytes | None = None, orientation: int = 1
) -> pyvips.Image:
    """Wrap an array of height, width and components; both keep sharing its memory."""
    image = pyvips.Image.new_from_array(samples, interpretation=space).copy()
    if profile:
        image.set_type(pyvips.GValue.blob_type, _PROFILE, profile)
    image.set_type(pyvips.GValue.gint_type, _ORIENTATION, orientation)
    return image


def orientation(image: pyvips.Image) -> int:
    """Return the EXIF orientation; 1 is upright."""
    known = image.get_typeof(_ORIENTATION)
    return int(image.get(_ORIENTATION)) if known else 1


def flatten(image: pyvips.Image) -> pyvips.Image:
    """Bring an image to eight bits of sRGB or gray, upright, on white."""
    image = _eight_bits(image.autorot())
    if image.hasalpha():
        image = image.flatten(background=255)
    return image if image.bands in (1, 3) else image[0]


def usable_dpi(dpi: tuple[float, float] | None) -> Dpi:
    """Return the resolution, unless it is nonsense."""
    known = dpi and all(1 <= dots <= _MAX_DPI for dots in dpi)
    return dpi if known else None


def _eight_bits(image: pyvips.Image) -> pyvips.Image:
    is_gray = image.interpretation in _GRAY_SPACES
    profile = image.get(_PROFILE) if image.get_typeof(_PROFILE) else None
    if not is_plain(profile):
        image = image.icc_transform(
            "srgb", embedded=True, intent="relative", black_point_compensation=True
        )
    elif image.interpretation not in ("srgb", "b-w"):
        image = image.colourspace("b-w" if is_gray else "srgb")
    return image.cast("uchar")


def _dpi(image: pyvips.Image) -> Dpi:
    # libvips says one pixel a millimetre where the source says nothing.
    if image.xres == image.yres == 1.0:
        return None
    return usable_dpi((image.xres * _MM_PER_INCH, image.yres * _MM_PER_INCH))


def _assemble(image: pyvips.Image) -> Rows:
    gray = np.empty((image.height, image.width), np.uint8)
    top = 0
    for strip in _gray_strips(image):
        gray[top : top + len(strip)] = strip
        top += len(strip)
    return gray


def _gray_strips(image: pyvips.Image) -> Iterator[Rows]:
    region = pyvips.Region.new(image)
    step = max(_MIN_ROWS, min(_STRIP_PIXELS // image.width, _MAX_ROWS))
    for top in range(0, image.height, step):
        rows = min(step, image.height - top)
        pixels = region.fetch(0, top, image.width, rows)
        yield _luma(pixels, image.width, rows, image.bands)


def _luma(pixels: Any, width: int, rows: int, bands: int) -> Rows:
    """Take the Rec. 601 luma of sRGB pixels, in integers, as Pillow and JPEG do."""
    if bands == 1:
        return np.frombuffer(pixels, np.uint8).reshape(rows, width)
    rgb = Image.frombuffer("RGB", (width, rows), pixels, "raw", "RGB", 0, 1)
    return np.array(rgb.convert("L"))

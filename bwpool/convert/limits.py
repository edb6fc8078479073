"""Refuses sources that are too large, from what their header says.

Called while a source is inspected, before anything of it is decoded.
"""

from __future__ import annotations

from bwpool.convert.plan import Picture
from bwpool.errors import LimitExceeded
from bwpool.settings import ConvertSettings

MAX_WHOLE_PIXELS = 2**28
"""The pixels of a page whose decoder must hold it in memory all at once, at four to
eight bytes a pixel; the limit on pixels is meant for pictures that can be streamed."""


def check_bytes(size: int, settings: ConvertSettings) -> None:
    """Raise LimitExceeded for a file of too many bytes."""
    if size > settings.max_bytes:
        raise LimitExceeded(
            f"the source has {size:,} bytes, at most {settings.max_bytes:,} are allowed"
        )


def check_picture(
    picture: Picture, settings: ConvertSettings, *, is_whole: bool
) -> None:
    """Raise LimitExceeded for too many pages or pixels.

    `is_whole` says whether a page will be in memory all at once.
    """
    check_pages(len(picture.sizes), settings.max_pages)
    _check_pixels(picture.pixels, settings.max_pixels, "pixels")
    if is_whole:
        largest = max(width * height for width, height in picture.sizes)
        _check_pixels(largest, MAX_WHOLE_PIXELS, "pixels that can't be streamed")


def check_pages(pages: int, allowed: int) -> None:
    """Raise LimitExceeded for too many pages."""
    if pages > allowed:
        raise LimitExceeded(
            f"the source has {pages:,} pages, at most {allowed:,} are allowed"
        )


def _check_pixels(pixels: int, allowed: int, what: str) -> None:
    if pixels > allowed:
        raise LimitExceeded(
            f"the source has {pixels:,} {what}, at most {allowed:,} are allowed"
        )

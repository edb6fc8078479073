"""From rows to the bytes of a file, and to the file.

The last two steps of the pipeline. PNG and TIFF are written strip by strip, JPEG and
WebP from a whole page.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import chain

import numpy as np
import simplejpeg
from PIL import Image
from PIL.ExifTags import Base

from bwpool.convert import png, tiff
from bwpool.convert.plan import Chunk, Page, Picture, Plan, Rows
from bwpool.errors import InvalidJob
from bwpool.storage import Pending, Place

_MAX_SIDE = {"jpg": 65500, "webp": 16383}
"""What a picture of these formats can measure."""


def check_fits(picture: Picture, target: str) -> None:
    """Raise InvalidJob unless the format `target` can hold the picture."""
    pages = len(picture.sizes)
    if target != "tiff" and pages > 1:
        raise InvalidJob(
            f"the source has {pages} pages, {target} holds one: ask for tiff"
        )
    side = max(max(size) for size in picture.sizes)
    if side > _MAX_SIDE.get(target, side):
        raise InvalidJob(
            f"the source is {side} pixels long, {target} holds {_MAX_SIDE[target]}: "
            "ask for png or tiff"
        )


def encode(plan: Plan, pages: Iterator[Page]) -> Iterator[Chunk]:
    """Encode the pages as the format that was settled on."""
    return ENCODERS[plan.format](plan, pages)


def write(plan: Plan, chunks: Iterator[Chunk]) -> Pending:
    """Write an encoded output to its temporary file."""
    first = next(chunks)  # what can't be decoded leaves no trace
    settings = plan.settings
    place = Place(
        *(settings.out, plan.name), sync=settings.sync, mount=settings.found.out_mount
    )
    try:
        for chunk in chain((first,), chunks):
            place.write(chunk.data, chunk.at)
    except BaseException:
        place.discard()
        raise
    return place.finish()


_INCH = 2
"""As EXIF counts units."""

_DENSITY_AT = 13
"""Where JFIF's unit and densities are, in a file that starts with a JFIF header."""


def _jpeg(plan: Plan, pages: Iterator[Page]) -> Iterator[Chunk]:
    page = next(pages)
    data = simplejpeg.encode_jpeg(_whole(page)[..., None], plan.quality, "GRAY", "Gray")
    yield Chunk(data)
    if page.dpi:
        yield Chunk(_density(page.dpi), _DENSITY_AT)


def _density(dpi: tuple[float, float]) -> bytes:
    return bytes([1]) + b"".join(round(dots).to_bytes(2) for dots in dpi)


def _webp(plan: Plan, pages: Iterator[Page]) -> Iterator[Chunk]:
    page = next(pages)
    image = Image.fromarray(_whole(page))
    buffer = io.BytesIO()
    exif = _resolution(page.dpi) if page.dpi else b""
    if plan.is_bilevel:
        image.save(buffer, "WEBP", exif=exif, lossless=True, method=0, quality=0)
    else:
        image.save(buffer, "WEBP", exif=exif, quality=plan.quality, method=2)
    yield Chunk(buffer.getvalue())


def _resolution(dpi: tuple[float, float]) -> bytes:
    """Say the resolution in EXIF, since WebP itself has no place for it."""
    exif = Image.Exif()
    exif[Base.XResolution], exif[Base.YResolution] = dpi
    exif[Base.ResolutionUnit] = _INCH
    return exif.tobytes()


def _whole(page: Page) -> Rows:
    strips = list(page.strips())
    return strips[0] if len(strips) == 1 else np.concatenate(strips)


ENCODERS: dict[str, Callable[[Plan, Iterator[Page]], Iterator[Chunk]]] = {
    "jpg": _jpeg,
    "png": png.encode,
    "tiff": tiff.encode,
    "webp": _webp,
}

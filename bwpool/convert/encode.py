"""From rows to the bytes of a file, and to the file.

The last two steps of the pipeline. PNG and TIFF are written strip by strip, JPEG and
WebP from a whole page.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import chain

import simplejpeg
from PIL import Image
from PIL.ExifTags import Base

from bwpool.convert.functions import find
from bwpool.convert.plan import Chunk, Page, Picture, Plan
from bwpool.errors import InvalidJob
from bwpool.formats import FORMATS, Format
from bwpool.storage import Pending, Place


def check_fits(picture: Picture, target: Format) -> None:
    """Raise InvalidJob unless the format `target` can hold the picture."""
    pages = len(picture.sizes)
    if not _holds(target.pages, pages):
        others = [one.name for one in FORMATS.values() if _holds(one.pages, pages)]
        raise InvalidJob(
            f"the source has {pages} pages, {target.name} holds {target.pages}: "
            f"ask for {' or '.join(others)}"
        )
    side = max(max(size) for size in picture.sizes)
    if not _holds(target.max_side, side):
        others = [one.name for one in FORMATS.values() if _holds(one.max_side, side)]
        raise InvalidJob(
            f"the source is {side} pixels long, {target.name} holds "
            f"{target.max_side}: ask for {' or '.join(others)}"
        )


def _holds(most: int | None, number: int) -> bool:
    return most is None or number <= most


def encode(plan: Plan, pages: Iterator[Page]) -> Iterator[Chunk]:
    """Encode the pages as the format that was settled on."""
    chunks: Iterator[Chunk] = find(plan.format.encoder)(plan, pages)
    return chunks


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
            if chunk.cuts:
                place.cut((chunk.at or 0) + len(chunk.data))
    except BaseException:
        place.discard()
        raise
    return place.finish()


_INCH = 2
"""As EXIF counts units."""

_DENSITY_AT = 13
"""Where JFIF's unit and densities are, in a file that starts with a JFIF header."""


def jpeg(plan: Plan, pages: Iterator[Page]) -> Iterator[Chunk]:
    """Encode one page."""
    page = next(pages)
    data = simplejpeg.encode_jpeg(page.rows()[..., None], plan.quality, "GRAY", "Gray")
    yield Chunk(data)
    if page.dpi:
        yield Chunk(_density(page.dpi), _DENSITY_AT)


def _density(dpi: tuple[float, float]) -> bytes:
    return bytes([1]) + b"".join(round(dots).to_bytes(2) for dots in dpi)


def webp(plan: Plan, pages: Iterator[Page]) -> Iterator[Chunk]:
    """Encode one page, without loss if it is black and white."""
    page = next(pages)
    image = Image.fromarray(page.rows())
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

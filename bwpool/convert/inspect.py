"""Looks at a source before anything is decoded: what it is, and whether it may be.

The first steps of the pipeline. Each format has one reader, which returns a `Picture`
from its header alone; the limits are checked against that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from bwpool.convert import general, jpeg, pillow
from bwpool.convert.limits import check_bytes, check_picture
from bwpool.convert.plan import Page, Picture, Plan
from bwpool.errors import BadImage, InvalidJob, SourceRefused
from bwpool.job import Job
from bwpool.settings import ConvertSettings
from bwpool.storage import CONTENT_FORMATS, Source, format_of_name, output_name

_HEAD_BYTES = 64

_READERS: dict[str, Callable[[Source, str], Picture]] = {
    "jpg": jpeg.inspect,
    "bmp": pillow.inspect,
    "jp2": pillow.inspect,
    "heic": pillow.inspect,
}
"""All other formats, and those that nobody has heard of, are left to libvips."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"BM", "bmp"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def plan(job: Job, settings: ConvertSettings, source: Source) -> Plan:
    """Settle everything about a conversion, or raise what forbids it."""
    check_bytes(source.size, settings)
    if source.size == 0:
        raise BadImage("the file is empty")
    content = sniff(source.read(_HEAD_BYTES))
    picture = _READERS.get(content, general.inspect)(source, content)
    check_picture(picture, settings)
    asked = job.format or settings.format
    format = _output_format(asked, source, picture)
    if format != "tiff" and len(picture.sizes) > 1:
        raise InvalidJob(
            f"the source has {len(picture.sizes)} pages, {format} holds one: "
            "ask for tiff"
        )
    name = output_name(job.id, source.path.name, asked)
    _check_target(source, settings, name)
    return Plan(
        settings=settings,
        source=source,
        picture=picture,
        method=job.method or settings.method,
        format=format,
        quality=job.quality or settings.quality,
        name=name,
    )


def decode(_: Plan, picture: Picture) -> Iterator[Page]:
    """Decode the picture to gray pages, each when it is asked for."""
    return picture.decode()


def sniff(head: bytes) -> str:
    """Name the format that a file's first bytes announce; "other" if none we know."""
    for magic, content in _MAGIC:
        if head.startswith(magic):
            return content
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        brands = head[8 : min(int.from_bytes(head[:4]), _HEAD_BYTES)]
        # AVIF shares HEIF's generic brands.
        if b"avi" not in brands and any(brand in brands for brand in _HEIF_BRANDS):
            return "heic"
    return "other"


def _output_format(asked: str, source: Source, picture: Picture) -> str:
    if asked != "same":
        return asked
    by_name = format_of_name(source.path.name)
    by_content = picture.content if picture.content in CONTENT_FORMATS else "png"
    return by_name or by_content


def _check_target(source: Source, settings: ConvertSettings, name: str) -> None:
    target = Path(settings.out) / name
    if source.is_file(target):
        raise SourceRefused(f"the output {target} would replace its own source")

"""Looks at a source before anything is decoded: what it is, and whether it may be.

The first steps of the pipeline. Each format has one reader, which returns a `Picture`
from its header alone; the limits are checked against that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bwpool.convert import general, jpeg, pillow
from bwpool.convert.encode import check_fits
from bwpool.convert.limits import check_bytes, check_picture
from bwpool.convert.plan import Page, Picture, Plan
from bwpool.convert.sniff import HEAD_BYTES, sniff
from bwpool.errors import BadImage, SourceRefused
from bwpool.formats import FALLBACK, FORMATS, SAME
from bwpool.job import Job
from bwpool.methods import METHODS
from bwpool.settings import ConvertSettings
from bwpool.storage import Source, format_of_name, output_name

_READERS: dict[str, Callable[[Source, str, ConvertSettings], Picture]] = {
    "jpg": jpeg.inspect,
    "bmp": pillow.inspect,
    "jp2": pillow.inspect,
    "heic": pillow.inspect,
}
"""All other formats, and those that nobody has heard of, are left to libvips."""


def plan(job: Job, settings: ConvertSettings, source: Source) -> Plan:
    """Settle everything about a conversion, or raise what forbids it."""
    check_bytes(source.size, settings)
    if source.size == 0:
        raise BadImage("the file is empty")
    content = sniff(source.read(HEAD_BYTES))
    picture = _READERS.get(content, general.inspect)(source, content, settings)
    method = METHODS[job.method or settings.method]
    check_picture(picture, settings, is_whole=picture.is_whole or method.is_whole)
    asked = job.format or settings.format
    target = FORMATS[_output_format(asked, source, picture)]
    check_fits(picture, target)
    name = output_name(job.id, source.name, asked)
    _check_target(source, settings, name)
    return Plan(
        settings=settings,
        source=source,
        picture=picture,
        method=method,
        format=target,
        quality=job.quality or settings.quality,
        name=name,
    )


def decode(_: Plan, picture: Picture) -> Iterator[Page]:
    """Decode the picture to gray pages, each when it is asked for."""
    return picture.decode()


def _output_format(asked: str, source: Source, picture: Picture) -> str:
    if asked != SAME:
        return asked
    by_name = format_of_name(source.name)
    by_content = picture.content if picture.content in FORMATS else FALLBACK
    return by_name or by_content


def _check_target(source: Source, settings: ConvertSettings, name: str) -> None:
    target = f"{settings.out}/{name}"
    if source.is_file(target):
        raise SourceRefused(f"the output {target} would replace its own source")

"""How an output is named, and which format its source's name asks for.

Pure. Called by the converters, and by whoever must know an output's name before
anything is converted.
"""

from __future__ import annotations

from bwpool.errors import InvalidJob
from bwpool.formats import FALLBACK, FORMATS, SAME, format_of_suffix
from bwpool.job import check_id

MAX_NAME_BYTES = 240
"""The last segment of an id with its extension; file systems allow 255."""


def format_of_name(name: str) -> str | None:
    """Say which format `same` means for a source called `name`; None: see inside."""
    suffix = _suffix(name)
    if not suffix:
        return None
    known = format_of_suffix(suffix)
    return known.name if known else FALLBACK


def output_name(job_id: str, source_name: str, asked: str) -> str:
    """Name a job's output, relative to the output folder.

    `asked` is the format that the job or the run asks for. With `same`, the extension
    is the source's as written if its format can be written, the fallback's if not, and
    none if it has none. Raises InvalidJob for an id that doesn't name a place in the
    output folder, or whose segments are too long.
    """
    check_id(job_id)
    name = job_id + _extension(source_name, asked)
    for segment in name.split("/"):
        if _size(segment) > MAX_NAME_BYTES:
            raise InvalidJob(
                f"id has a segment of more than {MAX_NAME_BYTES} bytes, "
                "extension included"
            )
    return name


def _extension(source_name: str, asked: str) -> str:
    if asked != SAME:
        return FORMATS[asked].suffixes[0]
    suffix = _suffix(source_name)
    if not suffix or format_of_suffix(suffix):
        return suffix
    return FORMATS[FALLBACK].suffixes[0]


def _suffix(name: str) -> str:
    # As pathlib has it, in a tenth of the time, since every thumbnail waits for it.
    stem, dot, rest = name.rpartition(".")
    return dot + rest if stem and rest else ""


def _size(segment: str) -> int:
    try:
        return len(segment.encode())
    except UnicodeEncodeError:
        raise InvalidJob("id is not valid Unicode") from None

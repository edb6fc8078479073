"""What an output can be encoded as: one descriptor each, in one list.

Pure. What must know of a format reads it here: the options and their help, the check
of jobs, the naming of outputs, the limits, and `convert`, which finds the encoder that
a descriptor names and fails on import where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format that outputs can have."""

    name: str
    """What options and jobs call it."""
    suffixes: tuple[str, ...]
    """The extensions of its files, in lower case; the first is given where none is
    kept from the source."""
    bits: Literal[1, 8]
    """What a pixel of a black and white output takes."""
    pages: int | None
    """How many pages a file can hold; None for any number."""
    max_side: int | None
    """How many pixels a page can measure across and down; None for any number."""
    encoder: str
    """`module:function`, which takes a plan and pages and yields chunks of a file."""


SAME: Final = "same"
"""Asks for the format of the source's name; no format itself."""

FALLBACK: Final = "png"
"""What `same` means where a source's own format can't be written."""

FORMATS: Final = {
    format.name: format
    for format in (
        Format(
            name="jpg",
            suffixes=(".jpg", ".jpeg"),
            bits=8,
            pages=1,
            max_side=65_500,
            encoder="bwpool.convert.encode:jpeg",
        ),
        Format(
            name="png",
            suffixes=(".png",),
            bits=1,
            pages=1,
            max_side=None,
            encoder="bwpool.convert.png:encode",
        ),
        Format(
            name="tiff",
            suffixes=(".tiff", ".tif"),
            bits=1,
            pages=None,
            max_side=None,
            encoder="bwpool.convert.tiff:encode",
        ),
        Format(
            name="webp",
            suffixes=(".webp",),
            bits=8,
            pages=1,
            max_side=16_383,
            encoder="bwpool.convert.encode:webp",
        ),
    )
}
"""By name, in the order in which they are shown."""


def format_choices() -> tuple[str, ...]:
    """Return what can be asked for: `same`, or a format's name."""
    return (SAME, *FORMATS)


def format_of_suffix(suffix: str) -> Format | None:
    """Return the format of files with this extension, if it can be written."""
    suffix = suffix.lower()
    for one in FORMATS.values():
        if suffix in one.suffixes:
            return one
    return None

"""The ways from gray to black and white: one descriptor each, in one list.

Pure. What must know of a method reads it here: the options and their help, the check
of jobs, the README's table, `preview`, and `convert`, which finds the function that a
descriptor names and fails on import where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """A way from gray to black and white."""

    name: str
    """What options and jobs call it."""
    summary: str
    """One line for people: what it does, and what for. It has to fit a preview."""
    function: str | None
    """`module:function`, which takes a gray page and what a pixel takes in its result,
    and yields rows of black and white; None leaves the page gray."""
    is_whole: bool
    """Whether the function must have a page in one piece. If not, it gets strips, and
    pages larger than memory pass through."""
    is_dithered: bool
    """Whether it scatters dots, which compress best by runs alone."""


DEFAULT_METHOD: Final = "floyd-steinberg"

METHODS: Final = {
    method.name: method
    for method in (
        Method(
            name="floyd-steinberg",
            summary="Error diffusion that keeps the tone, and sharpens a little.",
            function="bwpool.convert.bilevel:diffuse",
            is_whole=False,
            is_dithered=True,
        ),
        Method(
            name="faithful",
            summary="Error diffusion that does not sharpen. Nearest to a photograph.",
            function="bwpool.convert.bilevel:faithful",
            is_whole=False,
            is_dithered=True,
        ),
        Method(
            name="blue-noise",
            summary="Evenly scattered dots without worms or echoes.",
            function="bwpool.convert.bilevel:blue_noise",
            is_whole=False,
            is_dithered=True,
        ),
        Method(
            name="threshold",
            summary="White from the middle gray on. For clean line art.",
            function="bwpool.convert.bilevel:threshold",
            is_whole=False,
            is_dithered=False,
        ),
        Method(
            name="otsu",
            summary="One threshold, found for each page. For evenly lit pages.",
            function="bwpool.convert.bilevel:otsu",
            is_whole=False,
            is_dithered=False,
        ),
        Method(
            name="sauvola",
            summary="A threshold that follows the light. For scanned pages.",
            function="bwpool.convert.bilevel:local",
            is_whole=False,
            is_dithered=False,
        ),
        Method(
            name="gray",
            summary="Stays gray.",
            function=None,
            is_whole=False,
            is_dithered=False,
        ),
    )
}
"""By name, in the order in which they are shown."""

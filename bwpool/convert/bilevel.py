"""From gray to black and white, by the method that was asked for.

A step of the pipeline. Every method takes a page as its strips come, and hands out
strips of the same rows, in bits or bytes as the encoder wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from bwpool.convert import sauvola
from bwpool.convert.dither import HAVE_KERNEL, Diffuser, Weights, floyd_steinberg
from bwpool.convert.functions import find
from bwpool.convert.mask import SIDE, thresholds
from bwpool.convert.plan import Page, Plan, Rows, Unit
from bwpool.methods import METHODS, Method

MIDDLE = 128
"""The lowest gray that `threshold` makes white."""

Function = Callable[[Page, Unit], Iterator[Rows]]
"""Takes a gray page; yields rows of black and white."""


def prepare(method: str) -> None:
    """Load what `method` needs, so that the first picture needn't wait for it."""
    blank = Page(16, 16, None, lambda: iter((np.zeros((16, 16), np.uint8),)))
    if function := _function(METHODS[method]):
        list(function(blank, "bit"))


def bilevel(plan: Plan, pages: Iterator[Page]) -> Iterator[Page]:
    """Turn gray pages into black and white, unless the method leaves them gray."""
    function = _function(plan.method)
    for page in pages:
        yield page if function is None else _screened(page, function, plan.unit)


def _function(method: Method) -> Function | None:
    if method.function is None:
        return None
    function: Function = find(method.function)
    if not method.is_whole:
        return function
    return lambda page, unit: function(page.in_one_piece(), unit)


def _screened(page: Page, function: Function, unit: Unit) -> Page:
    return page.with_strips(lambda: function(page, unit))


def diffuse(page: Page, unit: Unit) -> Iterator[Rows]:
    """Diffuse each pixel's error to its neighbours (R. Floyd and L. Steinberg, 1976).

    Keeps the tone of every area.
    """
    if not HAVE_KERNEL:  # Pillow can't be fed in strips, and nothing else is as fast
        gray = np.concatenate(list(page.strips()))
        height, width = gray.shape
        packed = unit == "bit"
        yield _rows(floyd_steinberg(gray.data, width, height, packed=packed), height)
        return
    yield from _diffused(page, unit, "floyd-steinberg")


def faithful(page: Page, unit: Unit) -> Iterator[Rows]:
    """Diffuse each pixel's error farther, and keep the quantiser from sharpening.

    The formula and where it comes from are in `_dither.c`.
    """
    return _diffused(page, unit, "faithful")


def _diffused(page: Page, unit: Unit, weights: Weights) -> Iterator[Rows]:
    diffuser = Diffuser(page.width, packed=unit == "bit", weights=weights)
    for strip in page.strips():
        # In place: fresh memory costs as much as the diffusion itself.
        data = diffuser.feed(strip.data, len(strip), out=strip.data)
        yield _rows(data, len(strip))


def _rows(data: memoryview | bytearray, count: int) -> Rows:
    return np.frombuffer(data, np.uint8).reshape(count, -1)


def blue_noise(page: Page, unit: Unit) -> Iterator[Rows]:
    """Cut each pixel by its own threshold, of a mask without visible structure."""
    mask = np.tile(thresholds(), -(-page.width // SIDE))[:, : page.width]
    top = 0
    for strip in page.strips():
        is_white = np.empty(strip.shape, np.bool_)
        for row, gray in enumerate(strip):
            np.greater(gray, mask[(top + row) % SIDE], out=is_white[row])
        yield _stored(is_white, unit)
        top += len(strip)


def threshold(page: Page, unit: Unit) -> Iterator[Rows]:
    """Cut at the middle gray."""
    return _cut(page, MIDDLE, unit)


def otsu(page: Page, unit: Unit) -> Iterator[Rows]:
    """Cut where the page's histogram falls best into two."""
    histogram = np.zeros(256)
    for strip in page.strips():
        histogram += np.bincount(strip.ravel(), minlength=256)
    return _cut(page, otsu_threshold(histogram), unit)


def otsu_threshold(histogram: NDArray[np.float64]) -> int:
    """Return the lowest gray that is white, by the criterion of N. Otsu (1979).

    It maximises the variance between the two classes.
    """
    levels = np.arange(256)
    below, sums = np.cumsum(histogram), np.cumsum(histogram * levels)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = sums / below - (sums[-1] - sums) / above
    variance = np.nan_to_num(below * above * distance**2)
    # A page of a single gray has no best cut: it goes by the middle.
    return int(variance.argmax()) + 1 if variance.any() else MIDDLE


def _cut(page: Page, lowest_white: int, unit: Unit) -> Iterator[Rows]:
    for strip in page.strips():
        yield _stored(strip >= lowest_white, unit)


def local(page: Page, unit: Unit) -> Iterator[Rows]:
    """Cut each pixel by the mean and contrast of its neighbourhood."""
    for strip in sauvola.sauvola(page.strips()):
        yield _stored(strip > 0, unit)


def _stored(is_white: NDArray[np.bool_], unit: Unit) -> Rows:
    if unit == "bit":
        return np.packbits(is_white, axis=1)
    return is_white.view(np.uint8) * np.uint8(255)

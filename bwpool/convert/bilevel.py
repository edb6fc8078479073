"""From gray to black and white, by the method that was asked for.

A step of the pipeline. Every method works on a page as its strips come, and hands out
strips of the same rows, packed or not as the encoder wants them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from bwpool.convert.dither import HAVE_KERNEL, Diffuser, floyd_steinberg
from bwpool.convert.mask import SIDE, thresholds
from bwpool.convert.plan import Page, Plan, Rows
from bwpool.convert.sauvola import sauvola as sauvola_strips

THRESHOLD = 128
"""The lowest gray that `threshold` makes white."""

Method = Callable[[Page, bool], Iterator[Rows]]
"""Takes a gray page, and whether to pack; yields rows of black and white."""


def prepare(method: str) -> None:
    """Load what `method` needs, so that the first picture needn't wait for it."""
    blank = Page(16, 16, None, lambda: iter((np.zeros((16, 16), np.uint8),)))
    if method in METHODS:
        list(METHODS[method](blank, True))


def bilevel(plan: Plan, pages: Iterator[Page]) -> Iterator[Page]:
    """Turn gray pages into pages of black and white; `gray` leaves them as they are."""
    method = METHODS.get(plan.method)
    for page in pages:
        yield page if method is None else _screened(page, method, plan.is_packed)


def _screened(page: Page, method: Method, packed: bool) -> Page:
    return replace(page, strips=lambda: method(page, packed))


def diffuse(page: Page, packed: bool) -> Iterator[Rows]:
    """Diffuse each pixel's error to its neighbours; keeps the tone of every area."""
    if not HAVE_KERNEL:  # Pillow can't be fed in strips, and the rest is far slower
        gray = np.concatenate(list(page.strips()))
        yield _rows(
            floyd_steinberg(gray.data, *gray.shape[::-1], packed=packed), len(gray)
        )
        return
    diffuser = Diffuser(page.width, packed=packed)
    for strip in page.strips():
        # In place: fresh memory costs as much as the diffusion itself.
        yield _rows(diffuser.feed(strip.data, len(strip), out=strip.data), len(strip))


def blue_noise(page: Page, packed: bool) -> Iterator[Rows]:
    """Cut each pixel by its own threshold, of a mask without visible structure."""
    mask = thresholds()
    across = np.tile(mask, -(-page.width // SIDE))[:, : page.width]
    top = 0
    for strip in page.strips():
        down = np.resize(np.roll(across, -top, axis=0), strip.shape)
        yield pack(strip > down, packed)
        top = (top + len(strip)) % SIDE


def _rows(data: memoryview | bytearray, count: int) -> Rows:
    return np.frombuffer(data, np.uint8).reshape(count, -1)


def threshold(page: Page, packed: bool) -> Iterator[Rows]:
    """Cut at the middle gray."""
    return _cut(page, THRESHOLD, packed)


def otsu(page: Page, packed: bool) -> Iterator[Rows]:
    """Cut where the two sides of the page's histogram are most alike in themselves."""
    histogram = np.zeros(256)
    for strip in page.strips():
        histogram += np.bincount(strip.ravel(), minlength=256)
    return _cut(page, otsu_threshold(histogram), packed)


def otsu_threshold(histogram: np.ndarray) -> int:
    """Return the lowest gray that is white, by N. Otsu's criterion (1979).

    It maximises the variance between the two classes.
    """
    levels = np.arange(256)
    below = np.cumsum(histogram)
    sums = np.cumsum(histogram * levels)
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = sums / below - (sums[-1] - sums) / above
        variance = np.nan_to_num(below * above * distance**2)
    # A page of one gray has no best cut: it is white or black like the middle.
    return int(variance.argmax()) + 1 if variance.any() else THRESHOLD


def sauvola(page: Page, packed: bool) -> Iterator[Rows]:
    """Cut each pixel by the mean and contrast of its neighbourhood."""
    for strip in sauvola_strips(page.strips()):
        yield pack(strip > 0, packed)


def _cut(page: Page, lowest_white: int, packed: bool) -> Iterator[Rows]:
    for strip in page.strips():
        yield pack(strip >= lowest_white, packed)


def pack(is_white: np.ndarray, packed: bool) -> Rows:
    """Bring a mask to the form that encoders take."""
    if packed:
        return np.packbits(is_white, axis=1)
    return is_white.view(np.uint8) * np.uint8(255)


METHODS: dict[str, Method] = {
    "floyd-steinberg": diffuse,
    "blue-noise": blue_noise,
    "threshold": threshold,
    "otsu": otsu,
    "sauvola": sauvola,
}

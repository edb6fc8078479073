"""What the steps of one conversion share: pages, the plan, and the clock.

Used inside `convert` only; knows nothing of any picture library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bwpool.formats import Format
from bwpool.methods import Method
from bwpool.settings import ConvertSettings
from bwpool.storage import Source

Rows = NDArray[np.uint8]
"""Rows of pixels, contiguous and writable: one byte each, or packed, eight to a byte
with the leftmost on top, a set bit being white."""

Unit = Literal["bit", "byte"]
"""What a pixel takes in a row."""

Dpi = tuple[float, float] | None
"""Dots per inch across and down; None where the source doesn't say."""

BUFFERED_BYTES = 32 * 1024 * 1024
"""Sources up to this size are read in one go, larger ones through their descriptor."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page on its way through the steps."""

    width: int
    height: int
    dpi: Dpi
    strips: Callable[[], Iterator[Rows]]
    """Reads the page from top to bottom, an ordinary one in one piece, a huge one in
    strips. Can be called again until somebody writes to a strip, as its last reader
    may."""

    def with_strips(self, strips: Callable[[], Iterator[Rows]]) -> Page:
        """Return the page with other rows."""
        return Page(self.width, self.height, self.dpi, strips)

    def in_one_piece(self) -> Page:
        """Return the page with all its rows in one strip."""
        return self.with_strips(lambda: iter((self.rows(),)))

    def rows(self) -> Rows:
        """Read all its rows at once."""
        strips = list(self.strips())
        return strips[0] if len(strips) == 1 else np.concatenate(strips)


@dataclass(frozen=True, slots=True)
class Picture:
    """A source that has been looked at, but not decoded."""

    content: str
    """Its format, whatever its name says."""
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each page, as stored."""
    decode: Callable[[], Iterator[Page]]
    """Decodes its pages to gray, in order, each when it is asked for."""
    is_whole: bool = False
    """Whether its decoder must hold a page's pixels in memory all at once."""

    @property
    def pixels(self) -> int:
        """The pixels of all its pages."""
        return sum(width * height for width, height in self.sizes)


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is settled about a conversion before anything is decoded."""

    settings: ConvertSettings
    source: Source
    picture: Picture
    method: Method
    format: Format
    quality: int
    name: str
    """The output's path inside the output folder."""

    @property
    def is_bilevel(self) -> bool:
        """Whether the output is black and white, not gray."""
        return self.method.function is not None

    @property
    def unit(self) -> Unit:
        """What a pixel takes in the rows that reach the encoder."""
        packs = self.is_bilevel and self.format.bits == 1
        return "bit" if packs else "byte"


class Chunk(NamedTuple):
    """A piece of an encoded output."""

    data: bytes
    at: int | None = None
    """Where it goes, overwriting; None appends."""
    cuts: bool = False
    """Whether what lies behind it is dropped, so that the next is appended there."""


class Stages:
    """The clock: how long each stage took, and which one is under way.

    Later steps pull from earlier ones, so stages alternate while a huge picture
    passes through; each moment is charged to the stage that is at work.
    """

    def __init__(self, on_stage: Callable[[str], None]) -> None:
        """Start in no stage; `on_stage` is told of each one that begins."""
        self.seconds: dict[str, float] = {}
        self.current = ""
        self._on_stage = on_stage
        self._since = perf_counter()

    def enter(self, name: str) -> None:
        """Charge the time until now to the stage that ends here."""
        now = perf_counter()
        if self.current:
            spent = self.seconds.get(self.current, 0.0)
            self.seconds[self.current] = spent + now - self._since
        self.current, self._since = name, now
        if name:
            self._on_stage(name)

    def run(
        self, name: str, step: Callable[[Plan, Any], Any], plan: Plan, value: Any
    ) -> Any:
        """Take a step; what it hands out lazily is charged to it as well."""
        self.enter(name)
        result = step(plan, value)
        return self._over(name, result) if isinstance(result, Iterator) else result

    def _over(self, name: str, items: Iterator[Any]) -> Iterator[Any]:
        while True:
            outer = self.current
            self.enter(name)
            item = next(items, None)
            # Not after an error: the stage that failed is the one to name.
            self.enter(outer)
            if item is None:
                return
            yield self._page(name, item) if isinstance(item, Page) else item

    def _page(self, name: str, page: Page) -> Page:
        return page.with_strips(lambda: self._over(name, page.strips()))

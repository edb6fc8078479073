"""How a bar chart is drawn as SVG, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, BAR, GAP, LABEL, VALUE = 720, 18, 8, 190, 110
OURS, OTHERS, INK, PAPER = "#1f6feb", "#a9b3bf", "#1c2126", "#ffffff"
FONT = "font-family='system-ui, sans-serif'"


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a name, how long it is, and what is written at its end."""

    name: str
    value: float
    text: str
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that share a scale, under a title."""

    title: str
    bars: Sequence[Bar]

    @property
    def height(self) -> int:
        """How much room it takes."""
        return 44 + len(self.bars) * (BAR + GAP)


def draw(panels: Sequence[Panel]) -> str:
    """Draw panels one below the other."""
    height = sum(panel.height for panel in panels) + 12
    size = f"width='{WIDTH}' height='{height}'"
    view = f"viewBox='0 0 {WIDTH} {height}' font-size='13' {FONT}"
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} {view}>",
        f"<rect {size} fill='{PAPER}'/>",
    ]
    top = 0
    for panel in panels:
        parts += _panel(panel, top)
        top += panel.height
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, top: int) -> list[str]:
    title = escape(panel.title)
    lines = [
        f"<text x='16' y='{top + 28}' font-weight='600' fill='{INK}'>{title}</text>"
    ]
    longest = max(bar.value for bar in panel.bars)
    for number, bar in enumerate(panel.bars):
        y = top + 42 + number * (BAR + GAP)
        lines += _bar(bar, y, bar.value / longest)
    return lines


def _bar(bar: Bar, y: int, share: float) -> list[str]:
    length = max(1.0, share * (WIDTH - LABEL - VALUE))
    ink = f"y='{y + BAR - 5}' fill='{INK}'"
    if bar.is_ours:
        ink += " font-weight='600'"
    fill = OURS if bar.is_ours else OTHERS
    box = f"x='{LABEL}' y='{y}' width='{length:.1f}' height='{BAR}' rx='2'"
    name, text = escape(bar.name), escape(bar.text)
    return [
        f"<text x='{LABEL - 8}' text-anchor='end' {ink}>{name}</text>",
        f"<rect {box} fill='{fill}'/>",
        f"<text x='{LABEL + length + 6:.1f}' {ink}>{text}</text>",
    ]

"""Whether every picture was converted, to black and white, at its size and tone."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

MAX_MIDDLE = 0.05
"""The share of pixels half-way between black and white, at the most: JPEG blurs."""

MAX_OFF = 2.0
"""How far off the mean tone may be, of 255, where a converter keeps it."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Verified:
    """What was seen in the outputs of one contender."""

    count: int
    off: float
    """The largest difference in mean tone from its source, of 255."""


def gray_of(path: Path) -> Pixels:
    """Return a picture's luma, by Pillow."""
    with Image.open(path) as image:
        image.draft("L", image.size)
        return np.asarray(image.convert("L"))


def verify(name: str, outputs: Mapping[Path, Path], *, keeps_tone: bool) -> Verified:
    """Exit unless each output is its source in black and white.

    Outputs that are the same to the byte are decoded once.
    """
    looked_at: dict[tuple[Path, str], float] = {}
    for output, source in outputs.items():
        if not output.exists():
            sys.exit(f"{name} made no {output.name}")
        digest = hashlib.sha256(output.read_bytes()).hexdigest()
        if (source, digest) not in looked_at:
            off = check(name, output, source)
            if keeps_tone and off > MAX_OFF:
                sys.exit(f"{name} changed the tone of {source.name} by {off:.1f}")
            looked_at[source, digest] = off
    return Verified(len(outputs), max(looked_at.values()))


def check(name: str, output: Path, source: Path) -> float:
    """Exit unless the size fits and nearly all is black or white; tell the tone."""
    shape, tone = _shape_and_tone(source)
    pixels = gray_of(output)
    if pixels.shape != shape:
        sys.exit(f"{name} changed the size of {source.name}: {pixels.shape}")
    middle = float(np.mean((pixels > 85) & (pixels < 170)))
    if middle > (0 if output.suffix == ".png" else MAX_MIDDLE):
        sys.exit(f"{name} left {middle:.0%} of {source.name} gray")
    return abs(float(pixels.mean()) - tone)


@cache
def _shape_and_tone(source: Path) -> tuple[tuple[int, ...], float]:
    pixels = gray_of(source)
    return pixels.shape, float(pixels.mean())

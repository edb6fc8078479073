"""Renders the pictures that tests convert, always the same ones.

Photo-like gradients and shapes, a page of text under uneven light with its truth, and
the files that they are stored in: one for each readable format.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bwpool.job import Job
from bwpool.settings import ConvertSettings

Pixels = NDArray[np.uint8]


def photo(width: int = 320, height: int = 200) -> Image.Image:
    """Render something like a photograph: sky, sun, hills, and a little grain."""
    y, x = np.mgrid[0:height, 0:width]
    across, down = x / width, y / height
    sky = np.stack([90 + 120 * down, 140 + 80 * down, 235 - 40 * down], axis=-1)
    sun = np.exp(-((across - 0.7) ** 2 + (down - 0.25) ** 2) * 60)[..., None]
    picture = sky + sun * np.array([160, 110, -60])
    for depth, shade in ((0.55, 110), (0.7, 70), (0.85, 35)):
        ridge = depth + 0.06 * np.sin(9 * across + 20 * depth)
        hill = np.array([shade * 0.8, shade, shade * 0.5])
        light = 1 + 0.3 * np.sin(40 * across + 30 * down)[..., None]
        picture = np.where((down > ridge)[..., None], hill * light, picture)
    grain = np.random.default_rng(7).normal(0, 3, picture.shape)
    return Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8))


def text_page(
    width: int = 900, height: int = 1200
) -> tuple[Image.Image, NDArray[np.bool_]]:
    """Render a page of text under uneven light; also return where the ink is."""
    truth = Image.new("L", (width, height), 255)
    draw = ImageDraw.Draw(truth)
    font = ImageFont.load_default(28)
    words = "The quick brown fox jumps over the lazy dog while 0123456789 sleep "
    for line in range(height // 44 - 2):
        start = line * 5 % len(words)
        draw.text((50, 50 + 44 * line), (words * 2)[start:][:52], 0, font)
    paper = np.asarray(truth) / 255
    y, x = np.mgrid[0:height, 0:width]
    light = 60 + 180 * (x / width) ** 1.5 * (1 - 0.4 * y / height)
    noise = np.random.default_rng(3).normal(0, 2, paper.shape)
    seen = (light * (0.25 + 0.75 * paper) + noise).clip(0, 255).astype(np.uint8)
    return Image.fromarray(seen), np.asarray(truth) < 128


def luma(image: Image.Image) -> Pixels:
    """Return a picture's gray, as the contract defines it."""
    return np.asarray(image.convert("RGB").convert("L"))


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    """Store a picture by Pillow, in the format of the path's extension."""
    image.save(path, **options)
    return path


def _vips(image: Image.Image) -> pyvips.Image:
    samples = np.asarray(image)
    space = "b-w" if samples.ndim == 2 else "srgb"
    return pyvips.Image.new_from_array(samples, interpretation=space)


def _sixteen_bits(path: Path) -> Path:
    wide = _vips(photo()).cast("ushort") * 257
    wide.cast("ushort").copy(interpretation="rgb16").write_to_file(str(path))
    return path


def _tiled(path: Path) -> Path:
    _vips(photo()).tiffsave(str(path), tile=True, compression="jpeg", Q=95)
    return path


def _heic(path: Path) -> Path:
    from pillow_heif import from_pillow

    from_pillow(photo()).save(path, quality=95)
    return path


def _palette(path: Path) -> Path:
    return save(photo().quantize(256), path)


def _animated(path: Path) -> Path:
    others = [Image.new("RGB", photo().size, "black")] * 2
    return save(photo(), path, save_all=True, append_images=others)


ODD_SUBSAMPLING = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV02B@n5)Ta&5)cv>6%-gAG9exu93DL^E+jHZKuk+VKt"
    "@GST61DhRc%&9Mr4R(ZFhTtf`Lw8jhBplmUDiAeE-`3Lje^R7akfOJ0T%Ed{ahKe0+R-e0+R"
    "-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0=}F01*fP5C9kh0Wkmq5"
    "di}c0sq7R761VO0RR910000000000000052LHqW77zdf0000000000000000000KVgJMc6#)"
    "SO00000000000000000003|HJ?k5di=I0000000000000000095m01N{G00I#M5dc2`mV^jE"
    "ge0>}j0nJt1OM3"
)
"""A JPEG of 24 by 16, from black at the top to white, its chroma a third as wide."""


READABLE: dict[str, Callable[[Path], Path]] = {
    "baseline.jpg": lambda path: save(photo(), path, quality=95),
    "progressive.jpg": lambda path: save(photo(), path, quality=95, progressive=True),
    "gray.jpg": lambda path: save(photo().convert("L"), path, quality=95),
    "cmyk.jpg": lambda path: save(photo().convert("CMYK"), path, quality=95),
    "rgb.png": lambda path: save(photo(), path),
    "palette.png": _palette,
    "sixteen.png": _sixteen_bits,
    "lossless.webp": lambda path: save(photo(), path, lossless=True),
    "lossy.webp": lambda path: save(photo(), path, quality=95),
    "plain.tif": lambda path: save(photo(), path),
    "tiled.tiff": _tiled,
    "sixteen.tiff": _sixteen_bits,
    "palette.gif": _palette,
    "animated.gif": _animated,
    "picture.avif": lambda path: save(photo(), path, quality=95),
    "picture.bmp": lambda path: save(photo(), path),
    "picture.jp2": lambda path: save(photo(), path),
}
"""How to make a file of each readable kind, all of the same picture, by its name."""

if find_spec("pillow_heif"):
    READABLE["picture.heic"] = _heic

BAD_TONE = {"cmyk.jpg"}
"""Those whose colours go through a profile, so that their gray is only near."""


def job(path: Path, job_id: str = "output", **asked: Any) -> Job:
    """Make a job for the picture at `path`."""
    return Job(job_id, path.absolute().as_uri(), **asked)


def settings(out: Path, **given: Any) -> ConvertSettings:
    """Make settings with `out`, unsynced, to be quick."""
    return ConvertSettings(out=str(out), **{"no_sync": True, **given})


def stored(path: str | Path) -> Pixels:
    """Read an output back as gray."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))

"""The pictures that the benchmarks convert.

Photographs of landscapes that this script renders: fractal terrain under light and
haze, woods, water, and a sensor's grain; as hard to compress as photographs are, and
the same on every machine. `--pictures FOLDER` of the benchmarks takes one's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image

Plane = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture to convert."""

    name: str
    path: Path
    width: int
    height: int

    @property
    def megapixels(self) -> float:
        """Its size."""
        return self.width * self.height / 1e6


def render(folder: Path, *, quick: bool) -> list[Sample]:
    """Render the corpus into `folder`; `quick` renders it small."""
    large, small = ((400, 250), (120, 75)) if quick else ((2560, 1600), (400, 250))
    scenes = [landscape(*large, seed=seed) for seed in (1, 2)]
    thumbnail = scenes[0].resize(small, Image.Resampling.LANCZOS)
    return [
        _save(thumbnail, folder / "thumbnail-baseline.jpg", quality=90),
        _save(thumbnail, folder / "thumbnail-progressive.jpg", progressive=True),
        _save(scenes[0], folder / "photo-444.jpg", quality=80, subsampling=0),
        _save(scenes[1], folder / "photo-420.jpg", quality=85, subsampling=2),
        _save(scenes[0], folder / "photo-progressive.jpg", progressive=True),
        _save(scenes[1], folder / "photo.png"),
    ]


def render_large(folder: Path, *, quick: bool) -> list[Sample]:
    """Render what takes memory: JPEGs of 15 megapixels, and a gigapixel in tiles."""
    large, side = ((512, 288), 2048) if quick else ((5120, 2880), 32768)
    scene = landscape(*large, seed=3)
    return [
        _save(scene, folder / "large-baseline.jpg", quality=85),
        _save(scene, folder / "large.jpg", quality=85, subsampling=0, progressive=True),
        _tiled(scene, folder / "gigapixel.tif", side),
    ]


def _tiled(scene: Image.Image, path: Path, side: int) -> Sample:
    """Repeat a scene in a TIFF of JPEG tiles, as slides and maps are stored."""
    tile = pyvips.Image.new_from_array(np.asarray(scene))
    across, down = -(-side // scene.width), -(-side // scene.height)
    wall = tile.replicate(across, down).crop(0, 0, side, side * 125 // 128)
    wall.tiffsave(path, tile=True, compression="jpeg", Q=75, xres=12, yres=12)
    return sample(path)


def gather(folder: Path) -> list[Sample]:
    """Take the pictures in `folder`, however deep."""
    suffixes = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff")
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return [sample(path) for path in sorted(paths)]


def sample(path: Path) -> Sample:
    """Look at a picture's size."""
    image = pyvips.Image.new_from_file(path)
    return Sample(path.name, path, image.width, image.height)


def digest(samples: Iterable[Sample]) -> str:
    """Hash the corpus, so that results can be told apart."""
    total = hashlib.sha256()
    for one in samples:
        total.update(one.path.read_bytes())
    return total.hexdigest()[:12]


def landscape(width: int, height: int, *, seed: int) -> Image.Image:
    """Render a landscape: sky, hills in haze, woods, and water before them."""
    random = np.random.default_rng(seed)
    picture = _sky(width, height, random)
    for distance in (1.0, 0.6, 0.3, 0.0):
        _hills(picture, distance, random)
    _water(picture, random)
    grain = random.normal(0, 1.6, picture.shape)
    return Image.fromarray((picture + grain).clip(0, 255).astype(np.uint8))


def _sky(width: int, height: int, random: np.random.Generator) -> Plane:
    down = np.linspace(0, 1, height)[:, None, None]
    zenith, horizon = np.array([70.0, 120.0, 200.0]), np.array([225.0, 215.0, 200.0])
    clouds = _fractal(width, height, 1.7, random)[..., None].clip(0, None) * 70
    sky: Plane = zenith * (1 - down) + horizon * down + clouds
    return sky


def _hills(picture: Plane, distance: float, random: np.random.Generator) -> None:
    """Paint a range of hills into the picture, the paler the farther away."""
    height, width, _ = picture.shape
    ridge = _fractal(width, 8, 1.5, random)[0]
    top = height * (0.62 - 0.22 * distance + (0.03 + 0.04 * distance) * ridge)
    rows = np.arange(height)[:, None]
    ground = _fractal(width, height, 1.35 + 0.35 * distance, random)
    slope = np.diff(ground, axis=1, append=ground[:, -1:])
    light = (0.75 + 8.0 * slope + 0.22 * ground)[..., None].clip(0.05, 1.6)
    wood, haze = np.array([62.0, 84.0, 40.0]), np.array([170.0, 185.0, 205.0])
    near, far = light * wood, haze * (0.35 + 0.4 * light)
    colour = near * (1 - distance) + far * distance
    inside = rows >= top
    picture[inside] = colour[inside]


def _water(picture: Plane, random: np.random.Generator) -> None:
    """Mirror the picture in its lower quarter, rippled and darkened."""
    height, width, _ = picture.shape
    shore = height * 3 // 4
    depth = height - shore
    waves = 6 * np.linspace(0.2, 1, depth)[:, None]
    ripples = _fractal(width, depth, 1.0, random) * waves
    rows = shore - 1 - np.arange(depth)[:, None] + ripples.round().astype(int)
    columns = np.arange(width)[None, :]
    mirrored = picture[rows.clip(0, shore - 1), columns]
    picture[shore:] = mirrored * 0.7 + np.array([8.0, 18.0, 30.0])


def _fractal(
    width: int, height: int, roughness: float, random: np.random.Generator
) -> Plane:
    """Make noise whose amplitude falls with frequency, as on real surfaces."""
    across = np.fft.rfftfreq(width)[None, :] * width
    down = np.fft.fftfreq(height)[:, None] * height
    frequency = np.hypot(across, down)
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(random.normal(size=(height, width))) / frequency**roughness
    noise = np.fft.irfft2(spectrum, s=(height, width))
    scaled: Plane = noise / noise.std()
    return scaled


def _save(image: Image.Image, path: Path, **options: Any) -> Sample:
    image.save(path, **options)
    return Sample(path.name, path, *image.size)

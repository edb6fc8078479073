"""Colours of all kinds come to the gray that they look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from pictures import Pixels, job, luma, photo, save, settings, stored
from PIL import Image, ImageCms

from bwpool.convert import convert, prepare
from bwpool.convert.icc import is_plain
from bwpool.settings import ConvertSettings


@pytest.fixture(scope="session", autouse=True)
def prepared() -> None:
    """Prepare this process as a converter does."""
    prepare(ConvertSettings())


def gray_of(source: Path, tmp_path: Path) -> Pixels:
    """Convert to gray, without loss after that."""
    converted, pending = convert(
        job(source, method="gray", format="png"), settings(tmp_path)
    )
    pending.commit()
    return stored(converted.output)


def difference(one: Pixels, other: Pixels) -> float:
    """Return the mean absolute difference."""
    return float(np.abs(one.astype(int) - other).mean())


def widened(image: Image.Image) -> tuple[Image.Image, bytes]:
    """Store a picture in Display P3's primaries; also return their profile."""
    vips = pyvips.Image.new_from_array(np.asarray(image), interpretation="srgb")
    wide = vips.icc_transform("p3", input_profile="srgb", intent="relative")
    return Image.fromarray(wide.numpy()), wide.get("icc-profile-data")


def srgb_profile() -> bytes:
    """Return Pillow's sRGB profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def test_profiles_are_told_apart() -> None:
    """Only a profile that changes nothing is passed over."""
    assert is_plain(None)
    assert is_plain(srgb_profile())
    assert not is_plain(widened(photo())[1])
    assert not is_plain(b"nonsense")


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_wide_profile_is_applied(suffix: str, tmp_path: Path) -> None:
    """Colours stored in wide primaries are brought to sRGB before their luma counts."""
    wide, profile = widened(photo())
    faithful: dict[str, dict[str, Any]] = {
        "jpg": {"quality": 98, "subsampling": 0},
        "webp": {"lossless": True},
    }
    options = faithful.get(suffix, {})
    source = save(wide, tmp_path / f"in.{suffix}", icc_profile=profile, **options)
    ignored = difference(luma(photo()), luma(wide))

    assert difference(luma(photo()), gray_of(source, tmp_path)) < 0.7 * ignored


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_broken_profile_costs_a_warning(suffix: str, tmp_path: Path) -> None:
    """A profile that can't be used is left out; the picture is converted."""
    source = save(photo(), tmp_path / f"in.{suffix}", icc_profile=b"nonsense" * 20)
    asked = job(source, method="gray", format="png")
    converted, pending = convert(asked, settings(tmp_path))
    pending.commit()

    assert difference(luma(photo()), stored(converted.output)) < 3
    assert converted.warnings


def test_srgb_profile_takes_the_short_way(tmp_path: Path) -> None:
    """A JPEG that says sRGB gives the luma that it stores."""
    plain = save(photo(), tmp_path / "plain.jpg", quality=90)
    tagged = save(
        photo(), tmp_path / "tagged.jpg", quality=90, icc_profile=srgb_profile()
    )

    assert np.array_equal(gray_of(plain, tmp_path), gray_of(tagged, tmp_path))


def cmyk_ramp() -> Image.Image:
    """Render from paper to black ink."""
    ramp = np.zeros((64, 256, 4), np.uint8)
    ramp[..., 3] = np.arange(256)
    return Image.fromarray(ramp, "CMYK")


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_ink_is_dark(suffix: str, tmp_path: Path) -> None:
    """CMYK comes out with paper white and ink dark, whichever way it is stored."""
    source = save(cmyk_ramp(), tmp_path / f"in.{suffix}")
    gray = gray_of(source, tmp_path).astype(int)

    assert gray[:, :8].mean() > 245
    assert gray[:, -8:].mean() < 60
    assert (np.diff(gray[::8, ::8].mean(axis=0)) <= 0).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_keep_their_tone(suffix: str, tmp_path: Path) -> None:
    """Sixteen bits, gray or coloured, come to the eight that they begin with."""
    gray = luma(photo())
    wide = Image.fromarray(gray.astype(np.uint16) * 257)
    source = save(wide, tmp_path / f"in.{suffix}")

    assert difference(gray, gray_of(source, tmp_path)) < 0.5


def half_clear(mode: str) -> Image.Image:
    """Render black, clear on its left half."""
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    return image.convert(mode) if mode != "RGBA" else image


def _sixteen_bit_alpha(path: Path) -> Path:
    samples = np.asarray(half_clear("RGBA")).astype(np.uint16) * 257
    image = pyvips.Image.new_from_array(samples, interpretation="rgb16")
    image.write_to_file(str(path))
    return path


CLEAR: dict[str, Callable[[Path], Path]] = {
    "rgba.png": lambda path: save(half_clear("RGBA"), path),
    "la.png": lambda path: save(half_clear("LA"), path),
    "palette.png": lambda path: save(half_clear("RGBA").quantize(4), path),
    "sixteen.png": _sixteen_bit_alpha,
    "rgba.webp": lambda path: save(half_clear("RGBA"), path, lossless=True),
    "rgba.tif": lambda path: save(half_clear("RGBA"), path),
    "rgba.gif": lambda path: save(half_clear("RGBA"), path),
    "rgba.avif": lambda path: save(half_clear("RGBA"), path, quality=95),
    "rgba.jp2": lambda path: save(half_clear("RGBA"), path),
}


@pytest.mark.parametrize("name", CLEAR)
def test_transparency_lies_on_white(name: str, tmp_path: Path) -> None:
    """Where a picture is clear, white paper shows."""
    gray = gray_of(CLEAR[name](tmp_path / name), tmp_path)

    assert gray[:, :30].min() > 250
    assert gray[:, 34:].max() < 5


@pytest.mark.parametrize("mode", ["1", "L", "P"])
@pytest.mark.parametrize("suffix", ["bmp", "png", "tif", "gif"])
def test_few_levels_are_spread(mode: str, suffix: str, tmp_path: Path) -> None:
    """Two levels, grays and palettes come out as the grays that they stand for."""
    image = photo().convert(mode)
    expected = np.asarray(image.convert("RGB").convert("L"))
    source = save(image, tmp_path / f"in.{suffix}")

    assert difference(expected, gray_of(source, tmp_path)) < 1

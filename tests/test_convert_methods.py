"""Each method is as faithful as it promises, and the mask as even."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pictures import Pixels, job, luma, photo, save, settings, stored, text_page
from PIL import Image

from bwpool.convert import convert, mask, prepare
from bwpool.convert.bilevel import otsu_threshold
from bwpool.convert.functions import find
from bwpool.convert.plan import Page
from bwpool.methods import METHODS
from bwpool.settings import ConvertSettings


@pytest.fixture(scope="session", autouse=True)
def prepared() -> None:
    """Prepare this process as a converter does."""
    prepare(ConvertSettings())


def screen(gray: Pixels, method: str) -> Pixels:
    """Bring gray rows to black and white."""
    height, width = gray.shape
    page = Page(width, height, None, lambda: iter((gray.copy(),)))
    return np.concatenate(list(find(METHODS[method].function)(page, "byte")))


def hpsnr(picture: Pixels, output: Pixels) -> float:
    """Return the PSNR in decibels after a Gaussian of 1.5 pixels."""
    difference = blurred(picture) - blurred(output)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def blurred(pixels: Pixels) -> NDArray[np.float32]:
    """See a picture from afar."""
    image = pyvips.Image.new_from_array(pixels.astype(np.float32))
    return image.gaussblur(1.5, min_ampl=0.001, precision="float").numpy()


@pytest.mark.parametrize(
    ("method", "decibels"),
    [("floyd-steinberg", 34), ("faithful", 39), ("blue-noise", 29)],
)
def test_dithering_is_faithful(method: str, decibels: float) -> None:
    """From afar, a dithered photograph is the photograph, and as bright."""
    gray = luma(photo(960, 600))
    output = screen(gray, method)

    assert hpsnr(gray, output) >= decibels
    assert output.mean() == pytest.approx(gray.mean(), abs=0.5)


def test_faithful_is_nearest_to_a_photograph() -> None:
    """Nearer than Floyd–Steinberg, and its mean tone is all but the photograph's."""
    gray = luma(photo(960, 600))
    output = screen(gray, "faithful")

    assert hpsnr(gray, output) > hpsnr(gray, screen(gray, "floyd-steinberg")) + 0.8
    assert output.mean() == pytest.approx(gray.mean(), abs=0.05)


def f_measure(ink: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the harmonic mean of precision and recall."""
    right = (ink & truth).sum()
    return float(2 * right / (ink.sum() + truth.sum()))


def test_sauvola_reads_under_uneven_light(tmp_path: Path) -> None:
    """Where one threshold for the page loses half the text, Sauvola's keeps it."""
    page, truth = text_page()
    source = save(page, tmp_path / "page.png")
    scores = {}
    for method in ("sauvola", "otsu"):
        _, pending = convert(job(source, method, method=method), settings(tmp_path))
        pending.commit()
        scores[method] = f_measure(stored(pending.path) == 0, truth)

    assert scores["sauvola"] >= 0.95
    assert scores["otsu"] < 0.8


def test_otsu_parts_two_populations() -> None:
    """Otsu's threshold lies between two separate populations, wherever they are."""
    for low, high in ((10, 60), (100, 140), (0, 255)):
        gray = np.array([[low, low + 1, high, high - 1]], np.uint8)
        assert np.array_equal(screen(gray, "otsu"), [[0, 0, 255, 255]])


def test_single_gray_goes_by_the_middle() -> None:
    """A page of one gray turns black or white as a whole, also for Otsu."""
    for level in (0, 1, 127, 128, 254, 255):
        histogram = np.zeros(256)
        histogram[level] = 10
        assert otsu_threshold(histogram) == 128


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))),
    st.sampled_from([one.name for one in METHODS.values() if one.function]),
)
def test_bits_are_the_bytes(gray: Pixels, method: str) -> None:
    """Every method gives the same pixels in bits as in bytes, only 0 and 255."""
    height, width = gray.shape
    page = Page(width, height, None, lambda: iter((gray.copy(),)))
    function = find(METHODS[method].function)
    unpacked = np.concatenate(list(function(page, "byte")))
    packed = np.concatenate(list(function(page, "bit")))

    assert set(np.unique(unpacked)) <= {0, 255}
    assert np.array_equal(np.packbits(unpacked > 0, axis=1), packed)


def test_mask_gives_every_gray_its_share() -> None:
    """Each gray makes as many pixels white as it should, black and white all."""
    thresholds = mask.thresholds()
    for gray in range(256):
        white = (gray > thresholds).mean()
        assert white == pytest.approx(gray / 255, abs=1 / 256)


def test_mask_is_blue() -> None:
    """The mask has far less of the low frequencies, which one would see, than noise."""
    for gray in (16, 64, 128, 200):
        dots = (mask.thresholds() < gray).astype(float)
        spectrum = np.abs(np.fft.fft2(dots - dots.mean())) ** 2
        low, all_of_it = spectrum[:4, :4], spectrum
        assert low.mean() < 0.1 * all_of_it.mean()


def test_mask_is_what_the_script_makes() -> None:
    """The mask that is shipped can be made again."""
    assert np.array_equal(mask.make(), mask.thresholds())


def test_mask_repeats_across_and_down() -> None:
    """A picture larger than the mask is covered by it again and again."""
    gray = np.full((150, 170), 77, np.uint8)
    output = screen(gray, "blue-noise")

    assert np.array_equal(output[:64, :64], output[64:128, 64:128])
    assert np.array_equal(output[:22, :42], output[128:, 128:])


def test_threshold_is_the_middle() -> None:
    """128 is white and 127 is black."""
    gray = np.arange(256, dtype=np.uint8)[None]

    assert np.array_equal(screen(gray, "threshold") > 0, gray >= 128)


def test_gray_is_left_alone(tmp_path: Path) -> None:
    """The method `gray` ends at the luma."""
    source = save(photo(), tmp_path / "in.png")
    _, pending = convert(job(source, method="gray"), settings(tmp_path))
    pending.commit()
    with Image.open(pending.path) as image:
        assert image.mode == "L"

    assert np.array_equal(luma(photo()), stored(pending.path))

"""Pages of black and white are as small as the better of G4 and Deflate makes them."""

from __future__ import annotations

import shutil
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import pyvips
from numpy.typing import NDArray
from pictures import job, photo, settings, text_page
from PIL import Image, ImageSequence

from bwpool.convert import convert, g4, packing, prepare, tiff
from bwpool.convert.plan import Page, Rows
from bwpool.settings import ConvertSettings

Bits = NDArray[np.bool_]


@pytest.fixture(scope="session", autouse=True)
def prepared() -> None:
    """Prepare this process as a converter does."""
    prepare(ConvertSettings())


def dithered(width: int, height: int) -> Bits:
    """Render a photograph in black and white; true is white."""
    return np.asarray(photo(width, height).convert("1"))


def text(width: int = 1200, height: int = 1600, *, noise: float = 0) -> Bits:
    """Render a page of text, with specks on a share of its pixels."""
    specks = np.random.default_rng(5).random((height, width)) < noise
    return ~text_page(width, height)[1] ^ specks


def mixed(rows: int) -> Bits:
    """Render a page of text with a dithered picture of so many rows in it."""
    page = text()
    page[700 : 700 + rows, 100:1100] = dithered(1000, rows)
    return page


PAGES: dict[str, Callable[[], Bits]] = {
    "photograph": partial(dithered, 1200, 800),
    "thumbnail": partial(dithered, 400, 250),
    "text": text,
    "specks": partial(text, noise=0.01),
    "many specks": partial(text, noise=0.05),
    "a line's picture": partial(mixed, 30),
    "a small picture": partial(mixed, 120),
    "a large picture": partial(mixed, 500),
    "white": lambda: np.ones((900, 700), np.bool_),
    "a pixel": lambda: np.zeros((1, 1), np.bool_),
}


def packed(bits: Bits) -> Rows:
    """Pack pixels eight to a byte."""
    return np.packbits(bits, axis=1)


def smallest(bits: Bits, strip: int | None = None) -> int:
    """Return what the better of G4 and Deflate takes, in strips of so many rows."""
    rows = packed(bits)
    strips = [rows[top:][:strip] for top in range(0, len(rows), strip or len(rows))]
    fax = sum(len(g4.by_libtiff(one, bits.shape[1])) for one in strips)
    return min(fax, sum(len(zlib.compress(one.data)) for one in strips))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_takes_what_the_smaller_way_takes(name: str) -> None:
    """Whatever is on it, a page is within 2 % of the better, and of its raw bits."""
    bits = PAGES[name]()
    _, data = packing.pack(packed(bits), bits.shape[1])

    assert len(data) <= 1.02 * smallest(bits)
    assert len(data) <= 1.01 * packed(bits).nbytes + 16


def test_a_dithered_photograph_costs_no_second_encoding() -> None:
    """A sample tells that G4, which takes several times as long, is not worth it."""
    rows = np.tile(packed(dithered(1200, 800)), (3, 1))  # too far apart to match
    seconds = {"pack": 9.0, "G4": 9.0}
    for _ in range(5):
        for name, action in (("pack", packing.pack), ("G4", g4.encode)):
            started = time.thread_time()
            action(rows, 1200)
            seconds[name] = min(seconds[name], time.thread_time() - started)

    assert seconds["pack"] < 0.8 * seconds["G4"]


def written(bits: Bits, strip: int) -> tuple[bytes, list[int]]:
    """Write a page that comes in strips; also return how often each strip was read."""
    reads: list[int] = []
    height, width = bits.shape

    def strips() -> Iterator[Rows]:
        for number, top in enumerate(range(0, height, strip)):
            reads.append(number)
            yield packed(bits[top : top + strip])

    file = bytearray(8)
    body = tiff._write_bits(Page(width, height, None, strips), len(file))
    for chunk in body:
        file += chunk.data
        if chunk.cuts:
            del file[chunk.at :]
    return bytes(file[8:]), reads


@pytest.mark.parametrize("name", ["photograph", "text", "white"])
def test_a_page_in_strips_is_read_once(name: str) -> None:
    """A page whose top tells of the rest is packed right at the first attempt."""
    bits = PAGES[name]()
    data, reads = written(bits, 64)

    assert len(reads) == len(set(reads))
    assert len(data) <= 1.02 * smallest(bits, 64)


@pytest.mark.parametrize("is_text_first", [True, False])
def test_a_page_in_strips_is_packed_anew_when_its_top_misled(
    monkeypatch: pytest.MonkeyPatch, *, is_text_first: bool
) -> None:
    """Text above a picture, and a picture above text, are packed as the whole asks."""
    monkeypatch.setattr(tiff, "_JUDGED_PIXELS", 1200 * 64)
    halves = [text(1200, 1024), dithered(1200, 1024)]
    small = [dithered(1200, 32), text(1200, 4096)]
    bits = np.concatenate(halves if is_text_first else small)
    data, reads = written(bits, 64)

    assert len(reads) > len(set(reads))
    assert len(data) <= 1.05 * smallest(bits, 64)


def test_what_is_wrong_from_the_top_is_noticed_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A white margin above a photograph does not cost a reading of the whole."""
    monkeypatch.setattr(tiff, "_JUDGED_PIXELS", 1200 * 128)
    bits = np.concatenate([np.ones((192, 1200), np.bool_), dithered(1200, 1600)])
    data, reads = written(bits, 64)

    assert len(data) <= 1.02 * smallest(bits, 64)
    assert len(reads) < 1.5 * len(set(reads))


@pytest.fixture
def pages(tmp_path: Path) -> tuple[Path, list[Bits]]:
    """Convert a TIFF whose pages are a photograph and text, in turn."""
    expected = [dithered(640, 401), text(601, 800), dithered(201, 77), text(333, 300)]
    images = [Image.fromarray(bits).convert("L") for bits in expected]
    source = tmp_path / "in.tif"
    images[0].save(source, save_all=True, append_images=images[1:], dpi=(300, 300))
    converted, pending = convert(job(source, method="threshold"), settings(tmp_path))
    pending.commit()
    return Path(converted.output), expected


def test_each_page_is_packed_by_itself(pages: tuple[Path, list[Bits]]) -> None:
    """Photographs are deflated, text is G4, in one file, as Pillow reads it."""
    path, expected = pages
    with Image.open(path) as result:
        for page, bits in zip(ImageSequence.Iterator(result), expected, strict=True):
            is_fax = page.info["compression"] == "group4"

            assert page.mode == "1"
            assert is_fax == (bits.shape[1] in (601, 333))
            assert np.array_equal(bits, np.asarray(page))


def test_libvips_reads_pages_packed_either_way(pages: tuple[Path, list[Bits]]) -> None:
    """Another reader sees the same pixels."""
    path, expected = pages
    for number, bits in enumerate(expected):
        image = pyvips.Image.new_from_file(str(path), page=number)

        assert np.array_equal(bits, image.numpy().reshape(bits.shape) > 0)


@pytest.mark.skipif(not shutil.which("tiffinfo"), reason="tiffinfo is not installed")
def test_tiffinfo_reads_pages_packed_either_way(
    pages: tuple[Path, list[Bits]],
) -> None:
    """The tool of libtiff decodes every strip without a complaint."""
    command = ["tiffinfo", "-d", str(pages[0])]
    told = subprocess.run(command, capture_output=True, text=True, check=True)

    assert told.stderr == ""
    assert told.stdout.count("CCITT Group 4") == 2
    assert told.stdout.count("AdobeDeflate") == 2


def test_strips_packed_anew_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was begun twice has nothing left in it of the first attempt."""
    monkeypatch.setattr(tiff, "_JUDGED_PIXELS", 1200 * 128)
    monkeypatch.setattr("bwpool.convert.colour.STREAMED_PIXELS", 1000)
    monkeypatch.setattr("bwpool.convert.colour._STRIP_PIXELS", 1200 * 64)
    bits = np.concatenate([text(1200, 700), dithered(1200, 900)])
    source = tmp_path / "in.png"
    Image.fromarray(bits).convert("L").save(source)
    converted, pending = convert(
        job(source, method="threshold", format="tiff"), settings(tmp_path)
    )
    pending.commit()

    assert converted.bytes_out <= 1.05 * smallest(bits, 64) + 500
    assert Path(converted.output).stat().st_size == converted.bytes_out
    with Image.open(converted.output) as result:
        assert np.array_equal(bits, np.asarray(result))

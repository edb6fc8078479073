"""Pictures in several strips or pages come out as they would in one piece."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pictures
import pytest
import pyvips
from hypothesis import given
from hypothesis import strategies as st
from pictures import job, luma, photo, save, settings, stored
from PIL import Image, ImageSequence

from bwpool.convert import colour, convert, directories, prepare, sauvola
from bwpool.errors import BadImage, InvalidJob, LimitExceeded
from bwpool.methods import METHODS
from bwpool.settings import ConvertSettings

FORMATS = ("jpg", "png", "tiff", "webp")


@pytest.fixture(scope="session", autouse=True)
def prepared() -> None:
    """Prepare this process as a converter does."""
    prepare(ConvertSettings())


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let even small pictures pass in strips of a few rows."""
    monkeypatch.setattr(colour, "STREAMED_PIXELS", 1000)
    monkeypatch.setattr(colour, "_STRIP_PIXELS", 320 * 37)


@pytest.mark.parametrize("method", METHODS)
def test_strips_make_no_difference(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture that passes in strips gives the pixels that it gives in one piece."""
    source = save(photo(), tmp_path / "in.png")
    results: dict[str, list[np.ndarray]] = {target: [] for target in FORMATS}
    for rows in (0, 37, 64):
        if rows:
            monkeypatch.setattr(colour, "STREAMED_PIXELS", 1000)
            monkeypatch.setattr(colour, "_STRIP_PIXELS", 320 * rows)
        for target, seen in results.items():
            asked = job(source, method=method, format=target)
            converted, pending = convert(asked, settings(tmp_path))
            pending.commit()
            seen.append(stored(converted.output))

    for whole, *stripped in results.values():
        assert all(np.array_equal(whole, pixels) for pixels in stripped)


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("name", ["tiled.tiff", "sixteen.png", "cmyk.jpg"])
def test_strips_of_other_formats_agree(name: str, tmp_path: Path) -> None:
    """What is decoded in strips is the same picture."""
    source = pictures.READABLE[name](tmp_path / name)
    converted, pending = convert(
        job(source, method="gray", format="png"), settings(tmp_path)
    )
    pending.commit()

    near = 40 if name in pictures.BAD_TONE else 2
    assert stored(converted.output).mean() == pytest.approx(
        luma(photo()).mean(), abs=near
    )


@pytest.mark.usefixtures("streamed")
def test_turned_picture_streams(tmp_path: Path) -> None:
    """A picture stored on its side is set upright in strips too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    source = save(photo(), tmp_path / "in.png", exif=exif)
    converted, pending = convert(
        job(source, method="gray", format="png"), settings(tmp_path)
    )
    pending.commit()
    expected = luma(photo().transpose(Image.Transpose.ROTATE_270))

    assert np.array_equal(expected, stored(converted.output))


def test_context_of_strips_is_that_of_the_page() -> None:
    """However a page is cut, Sauvola's threshold sees the same neighbourhoods."""
    gray = np.array(pictures.text_page(300, 260)[0])
    (whole,) = sauvola.sauvola(iter([gray]))

    def cut(rows: int) -> Iterator[np.ndarray]:
        return (gray[top : top + rows] for top in range(0, len(gray), rows))

    for rows in (25, 31, 64, 259):
        assert np.array_equal(whole, np.concatenate(list(sauvola.sauvola(cut(rows)))))


def pages(folder: Path) -> tuple[Path, list[Image.Image]]:
    """Store three pages of different sizes and resolutions in one TIFF."""
    images = [photo(), photo(200, 320), photo(101, 37)]
    first, *others = images
    path = folder / "pages.tif"
    first.save(path, save_all=True, append_images=others, dpi=(300, 300))
    return path, images


def test_pages_become_pages(tmp_path: Path) -> None:
    """A TIFF of several pages becomes a TIFF of as many, each as it should be."""
    source, images = pages(tmp_path)
    converted, pending = convert(job(source), settings(tmp_path))
    pending.commit()
    assert converted.pixels == sum(image.width * image.height for image in images)
    with Image.open(converted.output) as result:
        for page, image in zip(ImageSequence.Iterator(result), images, strict=True):
            assert page.info["dpi"] == pytest.approx((300, 300))
            expected = np.asarray(image.convert("L").convert("1"))
            assert np.array_equal(expected, np.asarray(page))


def test_libvips_reads_the_pages(tmp_path: Path) -> None:
    """Another library reads the pages that we write as we do."""
    source, _ = pages(tmp_path)
    converted, pending = convert(job(source, method="gray"), settings(tmp_path))
    pending.commit()
    for number in range(3):
        image = pyvips.Image.new_from_file(converted.output, page=number)
        with Image.open(converted.output) as result:
            result.seek(number)
            assert np.array_equal(np.asarray(result), image.numpy())


def test_pages_need_a_format_that_holds_them(tmp_path: Path) -> None:
    """Several pages into one that holds one are refused; the error names TIFF."""
    source, _ = pages(tmp_path)
    with pytest.raises(InvalidJob, match="tiff"):
        convert(job(source, format="png"), settings(tmp_path))


def test_pages_are_limited(tmp_path: Path) -> None:
    """Pages are counted, and their pixels together."""
    source, images = pages(tmp_path)
    pixels = sum(image.width * image.height for image in images)
    for limit in ({"max_pages": 2}, {"max_pixels": pixels - 1}):
        with pytest.raises(LimitExceeded):
            convert(job(source), settings(tmp_path, **limit))


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    """Of an animation, the first frame is converted."""
    for name in ("in.gif", "in.webp", "in.png"):
        others = [Image.new("RGB", photo().size, "black")] * 3
        source = save(photo(), tmp_path / name, save_all=True, append_images=others)
        converted, pending = convert(
            job(source, method="gray", format="png"), settings(tmp_path)
        )
        pending.commit()

        assert stored(converted.output).mean() == pytest.approx(
            luma(photo()).mean(), abs=1
        )


@pytest.mark.parametrize("bigtiff", [False, True])
def test_pyramid_is_one_picture(*, bigtiff: bool, tmp_path: Path) -> None:
    """The small copies that a pyramidal TIFF holds are no pages."""
    image = pyvips.Image.new_from_array(np.asarray(photo(640, 400)))
    path = tmp_path / "in.tif"
    image.tiffsave(
        str(path),
        tile=True,
        pyramid=True,
        tile_width=64,
        tile_height=64,
        bigtiff=bigtiff,
    )
    converted, pending = convert(job(path, format="png"), settings(tmp_path))
    pending.commit()

    assert stored(converted.output).shape == (400, 640)


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 30))
def test_patches_show_wherever_reads_are_cut(at: int, size: int, start: int) -> None:
    """A patched stream reads the same however the reads fall on the patch."""
    data = bytes(range(100, 150))
    patch = bytes(range(size))
    whole = (data[:at] + patch + data[at + size :])[:50]
    for end in range(start + 1, 51):
        cut = directories._patched(data[start:end], start, ((at, patch),))
        assert cut == whole[start:end]


def test_many_pages_take_linear_time(tmp_path: Path) -> None:
    """Twice the pages take about twice the time, not four times."""
    image = photo(64, 48).convert("L").convert("1")
    seconds = []
    for count in (100, 400):
        path = tmp_path / f"{count}.tif"
        image.save(path, save_all=True, append_images=[image] * (count - 1))
        started = time.perf_counter()
        converted, pending = convert(job(path), settings(tmp_path))
        seconds.append(time.perf_counter() - started)
        pending.discard()
        assert converted.pixels == count * 64 * 48

    assert seconds[1] < 9 * seconds[0]


@pytest.mark.parametrize("order", ["<", ">"])
def test_page_of_two_sizes_is_refused(order: str, tmp_path: Path) -> None:
    """A page that says its width twice can't pass the limits by one of them."""
    form = order + "HHII"
    pixel = [(258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 1)]
    tags = [(256, 4, 60_000), (256, 4, 1), (257, 4, 1), *pixel]
    entries = b"".join(
        struct.pack(form, tag, kind, 1, value << 16 * (kind == 3 and order == ">"))
        for tag, kind, value in tags
    )
    count = struct.pack(order + "H", len(tags))
    size = len(count) + len(entries) + 4
    links = [struct.pack(order + "I", 10 + size), bytes(4)]
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 10)
    path = tmp_path / "in.tif"
    path.write_bytes(
        head + b"\0\0" + b"".join(count + entries + link for link in links)
    )
    os.utime(path, (1e9, 1e9))
    with pytest.raises((BadImage, LimitExceeded)):
        convert(job(path), settings(tmp_path, max_pixels=100))

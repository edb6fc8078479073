"""Every readable format through every method into every format, and what goes wrong."""

from __future__ import annotations

import os
import time
import zlib
from pathlib import Path

import numpy as np
import pictures
import pytest
from pictures import job, luma, photo, save, settings, stored
from PIL import Image, ImageOps

from bwpool.convert import convert, prepare
from bwpool.errors import (
    BadImage,
    ConversionFailed,
    CutShort,
    InvalidJob,
    JobError,
    LimitExceeded,
    SourceRefused,
    StorageUnavailable,
)
from bwpool.formats import format_choices
from bwpool.job import Converted, Job
from bwpool.methods import METHODS
from bwpool.settings import Amount, ConvertSettings


@pytest.fixture(scope="session", autouse=True)
def prepared() -> None:
    """Prepare this process as a converter does."""
    prepare(ConvertSettings())


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Hold a file of each readable format, by name."""
    folder = tmp_path_factory.mktemp("sources")
    return {name: make(folder / name) for name, make in pictures.READABLE.items()}


def run(job: Job, settings: ConvertSettings) -> Converted:
    """Convert and commit."""
    converted, pending = convert(job, settings)
    pending.commit()
    return converted


def refused(job: Job, settings: ConvertSettings) -> JobError:
    """Return the error that a job ends in, after seeing that it leaves no trace."""
    before = sorted(Path(settings.out).rglob("*"))
    with pytest.raises(JobError) as caught:
        convert(job, settings)

    assert before == sorted(Path(settings.out).rglob("*"))
    return caught.value


def expected_tone(method: str) -> float | None:
    """Return the mean gray that a method should give for the photograph, if known."""
    gray = luma(photo())
    if method == "threshold":
        return float((gray >= 128).mean() * 255)
    return None if method in ("otsu", "sauvola") else float(gray.mean())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", pictures.READABLE)
def test_matrix(
    name: str, method: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    """Each format comes out of each method in each format, its size and tone right."""
    tone = expected_tone(method)
    for target in format_choices():
        asked = job(sources[name], target, method=method, format=target)
        converted = run(asked, settings(tmp_path))
        pixels = stored(converted.output)
        is_lossy = converted.output.endswith((".jpg", ".jpeg"))

        assert luma(photo()).shape == pixels.shape
        assert converted.bytes_out == Path(converted.output).stat().st_size
        assert converted.bytes_in == sources[name].stat().st_size
        assert converted.pixels == pixels.size
        if method != "gray" and not is_lossy:
            assert {0, 255} == set(np.unique(pixels))
        if tone is not None:
            near = 40 if name in pictures.BAD_TONE else 2
            assert pixels.mean() == pytest.approx(tone, abs=near)


@pytest.mark.parametrize(
    ("target", "mode"), [("png", "1"), ("tiff", "1"), ("jpg", "L"), ("webp", "RGB")]
)
def test_bilevel_formats_store_bits(target: str, mode: str, tmp_path: Path) -> None:
    """PNG and TIFF of a bilevel method have one bit a pixel."""
    source = save(photo(), tmp_path / "in.png")
    converted = run(job(source, format=target), settings(tmp_path))
    with Image.open(converted.output) as image:
        assert mode == image.mode


def test_floyd_steinberg_is_pillows(tmp_path: Path) -> None:
    """The default method gives the very pixels that Pillow gives."""
    source = save(photo(), tmp_path / "in.png")
    converted = run(job(source), settings(tmp_path))
    expected = np.asarray(photo().convert("L").convert("1").convert("L"))

    assert np.array_equal(expected, stored(converted.output))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "webp", "tiff", "png"])
def test_orientation_is_applied(orientation: int, suffix: str, tmp_path: Path) -> None:
    """A picture stored turned comes out upright, with its resolution turned too."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = save(photo(), tmp_path / f"in.{suffix}", exif=exif, dpi=(100, 200))
    with Image.open(source) as image:
        expected = luma(ImageOps.exif_transpose(image))
    converted = run(job(source, method="gray", format="png"), settings(tmp_path))
    result = stored(converted.output)

    assert expected.shape == result.shape
    assert np.abs(expected.astype(int) - result).mean() < 1
    if suffix != "webp":
        with Image.open(converted.output) as image:
            dpi = (100, 200) if orientation < 5 else (200, 100)
            assert image.info["dpi"] == pytest.approx(dpi, abs=0.1)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "bmp"])
@pytest.mark.parametrize("target", ["jpg", "png", "tiff", "webp"])
def test_resolution_is_kept(suffix: str, target: str, tmp_path: Path) -> None:
    """What a scanner says about dots per inch reaches the output."""
    source = save(photo(), tmp_path / f"in.{suffix}", dpi=(300, 150))
    converted = run(job(source, format=target), settings(tmp_path))
    with Image.open(converted.output) as image:
        exif = image.getexif()
        dpi = image.info.get("dpi", (exif.get(0x011A), exif.get(0x011B)))

    assert dpi == pytest.approx((300, 150), abs=0.5)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    """Where a picture is transparent, white paper shows."""
    clear = Image.new("RGBA", (40, 40), (0, 0, 0, 0))
    for name in ("in.png", "in.webp", "in.gif", "in.tif"):
        source = save(clear, tmp_path / name)
        converted = run(job(source, method="gray", format="png"), settings(tmp_path))

        assert {255} == set(np.unique(stored(converted.output)))


def test_output_follows_the_sources_name(tmp_path: Path) -> None:
    """`same` goes by the name, by the content where there is none, else it is PNG."""
    out = tmp_path / "out"
    out.mkdir()
    for name, target, expected in [
        ("a.JPG", "PNG", "x.JPG"),
        ("b", "WEBP", "x"),
        ("c", "GIF", "x"),
        ("d.gif", "GIF", "x.png"),
    ]:
        photo().save(tmp_path / name, target)
        converted = run(job(tmp_path / name, "x"), settings(out))
        with Image.open(converted.output) as image:
            kinds = {"a.JPG": "JPEG", "b": "WEBP"}

            assert expected == Path(converted.output).name
            assert kinds.get(name, "PNG") == image.format


def test_output_never_replaces_its_source(tmp_path: Path) -> None:
    """An output that would be its own source is refused, by any name of the file."""
    source = save(photo(), tmp_path / "in.png")
    os.link(source, tmp_path / "hard.png")
    (tmp_path / "soft.png").symlink_to(source)
    before = source.read_bytes()
    for name in ("in", "hard", "soft"):
        error = refused(job(source, name), settings(tmp_path))
        assert isinstance(error, SourceRefused)

    assert before == source.read_bytes()


def test_stages_are_told_and_timed(tmp_path: Path) -> None:
    """Each stage is announced in order, and its seconds are in the result."""
    source = save(photo(), tmp_path / "in.jpg")
    told: list[str] = []
    converted, pending = convert(job(source), settings(tmp_path), on_stage=told.append)
    pending.discard()
    names = ["open", "inspect", "decode", "bilevel", "encode", "write"]

    assert names == list(dict.fromkeys(told))
    assert set(names) == set(converted.stages)
    assert all(spent >= 0 for spent in converted.stages.values())


def old(path: Path) -> Path:
    """Make a file look as if nobody were writing to it any more."""
    os.utime(path, (1e9, 1e9))
    return path


def damaged(name: str, sources: dict[str, Path], folder: Path, share: float) -> Path:
    """Cut a source short."""
    data = sources[name].read_bytes()
    path = folder / name
    path.write_bytes(data[: int(len(data) * share)])
    return old(path)


@pytest.mark.parametrize("share", [0.1, 0.9])
@pytest.mark.parametrize("name", pictures.READABLE)
def test_truncated_source_is_a_bad_image(
    name: str, share: float, sources: dict[str, Path], tmp_path: Path
) -> None:
    """A source cut short is never converted to gray filler."""
    error = refused(job(damaged(name, sources, tmp_path, share)), settings(tmp_path))

    assert isinstance(error, BadImage), error


@pytest.mark.parametrize("name", pictures.READABLE)
def test_source_still_being_written_is_retried(
    name: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    """A source cut short may yet be completed, whatever its age by our clock."""
    path = damaged(name, sources, tmp_path, 0.5)
    for age in (-3600, 0, 3600):
        seconds = int(time.time()) - age
        os.utime(path, (seconds, seconds))
        error = refused(job(path), settings(tmp_path))

        assert isinstance(error, CutShort), error
        assert error.retryable
        assert error.seen == (path.stat().st_size, seconds * 1_000_000_000)


def test_damaged_jpeg_is_a_bad_image(tmp_path: Path) -> None:
    """A JPEG whose middle is overwritten is refused though libjpeg would go on."""
    source = save(photo(), tmp_path / "in.jpg", quality=95)
    data = bytearray(source.read_bytes())
    data[len(data) // 2 :][:40] = b""
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(range(1, 41))
    source.write_bytes(data)

    assert isinstance(refused(job(old(source)), settings(tmp_path)), BadImage)


def test_harmless_complaint_is_kept(tmp_path: Path) -> None:
    """Junk before a marker costs a warning, not the picture."""
    source = save(photo(), tmp_path / "in.jpg", quality=95)
    data = source.read_bytes()
    source.write_bytes(data[:2] + bytes(3) + data[2:])
    converted = run(job(source), settings(tmp_path))

    assert any("extraneous bytes" in warning for warning in converted.warnings)


@pytest.mark.parametrize("stage", ["decode", "encode", "write"])
def test_source_that_changes_is_retried(stage: str, tmp_path: Path) -> None:
    """A source that is written to while it is read is not to be trusted."""
    source = old(save(photo(), tmp_path / "in.jpg"))

    def write_to_it(begun: str) -> None:
        if begun == stage:
            with source.open("ab") as file:
                file.write(b"more")

    with pytest.raises(ConversionFailed, match="changed") as caught:
        convert(job(source), settings(tmp_path), on_stage=write_to_it)

    assert caught.value.retryable
    assert [source] == list(tmp_path.iterdir())


def test_source_overwritten_meanwhile_is_retried(tmp_path: Path) -> None:
    """Damage that comes from a writer at work is not the picture's fault."""
    source = old(save(photo(), tmp_path / "in.tif"))

    def cut(begun: str) -> None:
        if begun == "inspect":
            os.truncate(source, 1000)

    with pytest.raises(ConversionFailed, match="changed"):
        convert(job(source), settings(tmp_path), on_stage=cut)


def png_header(width: int, height: int) -> bytes:
    """Return the start of a PNG of any size."""
    fields = width.to_bytes(4) + height.to_bytes(4) + bytes([8, 2, 0, 0, 0])
    block = b"IHDR" + fields
    return (
        b"\x89PNG\r\n\x1a\n"
        + (13).to_bytes(4)
        + block
        + zlib.crc32(block).to_bytes(4)
        + bytes(4)
        + b"IDAT"
        + zlib.crc32(b"IDAT").to_bytes(4)
    )


BAD: dict[str, tuple[bytes, type[JobError]]] = {
    "empty.jpg": (b"", BadImage),
    "text.jpg": (b"This is no picture.\n" * 50, BadImage),
    "zeros.png": (bytes(1000), BadImage),
    "header.png": (png_header(60_000, 60_000), LimitExceeded),
    "bomb.gif": (
        b"GIF89a\xff\xff\xff\xff\x80\0\0"
        + bytes(6)
        + b",\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;",
        LimitExceeded,
    ),
    "picture.svg": (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>',
        BadImage,
    ),
    "paper.pdf": (b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\n%%EOF", BadImage),
    "marker.jpg": (b"\xff\xd8\xff", BadImage),
    "head.bmp": (b"BM" + bytes(20), BadImage),
    "head.tif": (b"II*\0\x08\0\0\0", BadImage),
}


@pytest.mark.timeout(1)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_has_its_kind(name: str, tmp_path: Path) -> None:
    """What is no picture, or too large a one, is told apart at once."""
    data, kind = BAD[name]
    path = tmp_path / name
    path.write_bytes(data)
    error = refused(job(old(path)), settings(tmp_path))

    assert isinstance(error, kind), error
    assert error.stage == "inspect"


@pytest.mark.timeout(1)
def test_sparse_file_is_too_large(tmp_path: Path) -> None:
    """A file of ten gigabytes is refused unread."""
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(10_000_000_000)

    assert isinstance(refused(job(path), settings(tmp_path)), LimitExceeded)


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("baseline.jpg", {"max_pixels": Amount(63_999)}),
        ("rgb.png", {"max_pixels": Amount(63_999)}),
        ("picture.bmp", {"max_pixels": Amount(63_999)}),
        ("baseline.jpg", {"max_bytes": Amount(1000)}),
    ],
)
def test_limits_hold(
    name: str, limit: dict[str, Amount], sources: dict[str, Path], tmp_path: Path
) -> None:
    """Each limit is the settings' to say."""
    error = refused(job(sources[name]), settings(tmp_path, **limit))

    assert isinstance(error, LimitExceeded)


def test_vanished_output_folder_is_unavailable(tmp_path: Path) -> None:
    """Without its output folder, a converter says so, and charges no job."""
    source = save(photo(), tmp_path / "in.jpg")
    with pytest.raises(StorageUnavailable) as caught:
        convert(job(source), settings(tmp_path / "gone"))

    assert caught.value.stage == "write"


def test_too_wide_for_the_format(tmp_path: Path) -> None:
    """A picture that a format can't hold is the job's fault, which says what can."""
    source = save(Image.new("L", (17_000, 2)), tmp_path / "in.png")
    error = refused(job(source, format="webp"), settings(tmp_path))

    assert isinstance(error, InvalidJob)
    assert "png or tiff" in error.reason


def test_unusual_jpegs_are_read(tmp_path: Path) -> None:
    """JPEGs of RGB, and of unknown resolution or orientation, give their luma."""
    exif = Image.Exif()
    exif[0x0112] = 99
    rgb = save(photo(), tmp_path / "rgb.jpg", quality=95, keep_rgb=True)
    odd = save(photo(), tmp_path / "odd.jpg", quality=95, exif=exif, dpi=(0, 0))
    broken = save(photo(), tmp_path / "broken.jpg", quality=95, exif=b"Exif\0\0MM junk")
    for source in (rgb, odd, broken):
        converted = run(job(source, method="gray", format="png"), settings(tmp_path))
        difference = luma(photo()).astype(int) - stored(converted.output)

        assert np.abs(difference).mean() < 2


def test_unknown_subsampling_is_read(tmp_path: Path) -> None:
    """A JPEG whose chroma is subsampled in an unusual way is read all the same."""
    source = tmp_path / "in.jpg"
    source.write_bytes(pictures.ODD_SUBSAMPLING)
    converted = run(job(source, method="gray", format="png"), settings(tmp_path))
    gray = stored(converted.output)

    assert gray.shape == (16, 24)
    assert (np.diff(gray[::5].mean(axis=1)) > 20).all()


def test_harmless_complaint_hides_no_truncation(tmp_path: Path) -> None:
    """A JPEG with junk before a marker is still refused when it is cut short."""
    source = save(photo(), tmp_path / "in.jpg", quality=95)
    data = source.read_bytes()
    source.write_bytes(data[:2] + bytes(3) + data[2 : len(data) // 2])

    assert isinstance(refused(job(old(source)), settings(tmp_path)), BadImage)

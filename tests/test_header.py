"""A JPEG's head, beside what Pillow makes of it."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from bwpool.convert.header import Exif, read_exif, read_header

ORIENTATION, ACROSS, DOWN, UNIT = 0x0112, 0x011A, 0x011B, 0x0128
CM, INCH = 3, 2


def jpeg(mode="RGB", size=(24, 16), **options):
    """Save a picture by Pillow."""
    file = io.BytesIO()
    Image.new(mode, size).save(file, "JPEG", **options)
    return file.getvalue()


def exif_of(tags, order="<"):
    """Write tags by Pillow, without what a JPEG puts before them."""
    exif = Image.Exif()
    exif.endian = order
    for tag, value in tags.items():
        exif[tag] = value
    return exif.tobytes().removeprefix(b"Exif\0\0")


@given(
    mode=st.sampled_from(["L", "RGB", "CMYK"]),
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    progressive=st.booleans(),
    dpi=st.sampled_from([None, (72, 72), (300, 150)]),
    icc=st.binary(max_size=150_000),
    comment=st.binary(max_size=200),
)
def test_the_head_is_what_pillow_reads(mode, size, progressive, dpi, icc, comment):
    """Of whatever Pillow writes."""
    options = {"dpi": dpi} if dpi else {}
    data = jpeg(
        mode, size, progressive=progressive, icc_profile=icc, comment=comment, **options
    )
    header = read_header(data)
    with Image.open(io.BytesIO(data)) as image:
        assert (header.width, header.height) == image.size
        assert header.components == image.layers
        assert header.is_progressive == ("progressive" in image.info)
        assert header.density == image.info.get("dpi")
        assert header.icc == (image.info.get("icc_profile") or b"")
        assert header.is_adobe == ("adobe" in image.info)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("unit", "inch"), [(INCH, 1), (CM, 2.54)])
def test_exif_tells_orientation_and_resolution(order, unit, inch):
    """In either order of bytes, by inches or centimetres."""
    tags = {ORIENTATION: 6, ACROSS: 300.0, DOWN: 150.0, UNIT: unit}
    exif = read_exif(exif_of(tags, order))

    assert exif.orientation == 6
    assert exif.dpi == pytest.approx((300 * inch, 150 * inch))


@pytest.mark.parametrize("orientation", [0, 9, 99])
def test_an_unknown_orientation_is_upright(orientation):
    """And what is not told is nothing."""
    assert read_exif(exif_of({ORIENTATION: orientation})) == Exif(1, (0.0, 0.0))


def test_exif_in_a_jpeg_is_found():
    """Where JFIF tells no resolution."""
    exif = exif_of({ORIENTATION: 3, ACROSS: 600.0, DOWN: 600.0, UNIT: INCH})
    header = read_header(jpeg(exif=b"Exif\0\0" + exif))

    assert header.density is None
    assert read_exif(header.exif) == Exif(3, (600.0, 600.0))


@given(st.binary(max_size=300), st.integers(0, 700))
def test_damage_raises_what_is_promised(junk, cut):
    """Whatever bytes come, it ends, with a result or one of two errors."""
    good = jpeg(exif=b"Exif\0\0" + exif_of({ORIENTATION: 6, ACROSS: 300.0}))
    for data in (junk, b"\xff\xd8" + junk, good[:cut], good[:cut] + junk):
        try:
            header = read_header(data)
        except (ValueError, struct.error):
            continue
        assert header.width >= 0
    for exif in (junk, b"II*\0" + junk, b"MM\0*\0\0\0\x08" + junk):
        try:
            found = read_exif(exif)
        except ValueError:
            continue
        assert 1 <= found.orientation <= 8

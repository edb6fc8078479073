"""The compiled G4 encoder gives what libtiff gives, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pictures import photo, text_page

from bwpool.convert import g4

needs_encoder = pytest.mark.skipif(
    not g4.HAVE_ENCODER, reason="the extension was not built"
)


@st.composite
def bitmaps(draw: st.DrawFn) -> NDArray[np.bool_]:
    """Draw rows of ink, sparse or dense, like their neighbours or not."""
    width = draw(st.integers(1, 200) | st.integers(2500, 6000))
    height = draw(st.integers(1, 6))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0, 0.001, 0.02, 0.5, 0.98, 1]))
    rows = random.random((height, width)) < density
    if draw(st.booleans()):
        rows[1:] = rows[:1] ^ (random.random((height - 1, width)) < 0.01)
    return rows


@needs_encoder
@given(bitmaps())
def test_any_bitmap_is_encoded_as_by_libtiff(ink: NDArray[np.bool_]) -> None:
    """Whatever the bits, the two encoders agree."""
    rows = np.packbits(ink, axis=1)
    width = ink.shape[1]

    assert g4.encode(rows, width) == g4.by_libtiff(rows, width)


@needs_encoder
def test_pictures_are_encoded_as_by_libtiff() -> None:
    """A dithered photograph and a page of text are encoded alike."""
    for image in (photo(641, 401), text_page()[0]):
        bits = image.convert("L").convert("1")
        rows = np.frombuffer(bits.tobytes(), np.uint8).reshape(bits.height, -1)

        assert g4.encode(rows, bits.width) == g4.by_libtiff(rows, bits.width)


@needs_encoder
def test_bits_beyond_the_width_do_not_matter() -> None:
    """What fills up the last byte of a row is no part of the picture."""
    clean = np.array([[0b10100000], [0b01000000]], np.uint8)
    dirty = clean | np.array([[0b00010101], [0b00001111]], np.uint8)

    assert g4.encode(clean, 3) == g4.encode(dirty, 3)

"""Every kernel of the faithful diffusion against its formula, and what it promises."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from grays import (
    Content,
    contents,
    each_kernel,
    extremes,
    heights,
    noise,
    seeds,
    widths,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bwpool.convert.dither import Diffuser, Kernel


def by_formula(gray: bytes, width: int, height: int) -> bytes:
    """Diffuse as the head of the C file has it, the errors in eighths of a level."""
    out = bytearray(width * height)
    above = [0] * (width + 4)
    for y in range(height):
        row = [0] * (width + 4)  # pixel x is at x + 2
        for x in range(width):
            v = gray[y * width + x]
            n = 4 * row[x + 1] + 2 * row[x]
            n += above[x] + 2 * above[x + 1] + 4 * above[x + 2]
            n += 2 * above[x + 3] + above[x + 4]
            white = 255 if n + 40 * v >= 5100 else 0
            row[x + 2] = 8 * v + (n + 8) // 16 - 8 * white
            assert abs(row[x + 2]) <= 1721
            out[y * width + x] = white
        above = row
    return bytes(out)


def packed_rows(bilevel: bytes, width: int) -> bytes:
    rows = np.frombuffer(bilevel, np.uint8).reshape(-1, width)
    return np.packbits(rows > 0, axis=1).tobytes()


def faithful(
    gray: bytes, width: int, height: int, *, packed: bool, kernel: Kernel
) -> bytes:
    diffuser = Diffuser(width, packed=packed, kernel=kernel, weights="faithful")
    return bytes(diffuser.feed(gray, height))


@each_kernel
@settings(max_examples=120, deadline=None)
@given(width=widths, height=heights, content=contents, seed=seeds)
@example(width=1, height=1, content=extremes, seed=0)
def test_a_picture_is_diffused_by_the_formula(
    kernel: Kernel, width: int, height: int, content: Content, seed: int
) -> None:
    """A whole picture comes out bit for bit as the formula has it."""
    gray = content(random.Random(seed), width, height)
    expected = by_formula(gray, width, height)

    assert faithful(gray, width, height, packed=False, kernel=kernel) == expected
    packed = faithful(gray, width, height, packed=True, kernel=kernel)
    assert packed == packed_rows(expected, width)


@each_kernel
@settings(max_examples=100, deadline=None)
@given(
    width=st.integers(1, 130),
    height=heights,
    cuts=st.sets(st.integers(0, 50)),
    gap=st.integers(0, 70),
    content=contents,
    seed=seeds,
)
def test_strips_make_the_whole(
    kernel: Kernel,
    width: int,
    height: int,
    cuts: set[int],
    gap: int,
    content: Content,
    seed: int,
) -> None:
    """However a picture is cut into strips, with whatever gaps between its rows."""
    rng = random.Random(seed)
    gray = content(rng, width, height)
    rows = [gray[y * width : (y + 1) * width] for y in range(height)]
    diffuser = Diffuser(width, packed=False, kernel=kernel, weights="faithful")
    edges = sorted({0, height, *(cut for cut in cuts if cut < height)})
    result = b"".join(
        diffuser.feed(
            rng.randbytes(gap).join(rows[top:bottom]), bottom - top, stride=width + gap
        )
        for top, bottom in pairwise(edges)
    )

    assert result == by_formula(gray, width, height)


@each_kernel
@settings(max_examples=50, deadline=None)
@given(width=st.integers(1, 130), height=heights, seed=seeds, packed=st.booleans())
def test_rows_are_diffused_in_place(
    kernel: Kernel, width: int, height: int, seed: int, packed: bool
) -> None:
    """The result may overwrite the gray rows, and nothing behind itself."""
    gray = noise(random.Random(seed), width, height)
    buffer = bytearray(gray)
    diffuser = Diffuser(width, packed=packed, kernel=kernel, weights="faithful")
    result = diffuser.feed(buffer, height, out=buffer)
    expected = by_formula(gray, width, height)

    assert result == (packed_rows(expected, width) if packed else expected)
    assert buffer[result.nbytes :] == gray[result.nbytes :]


@each_kernel
@pytest.mark.parametrize(("width", "height"), [(70_001, 5), (32_769, 17), (7, 2_000)])
def test_long_rows_and_many_bands_come_out_right(
    kernel: Kernel, width: int, height: int
) -> None:
    """Rows longer than an int16 can count, and bands below one another."""
    gray = noise(random.Random(0), width, height)
    result = faithful(gray, width, height, packed=False, kernel=kernel)

    assert result == by_formula(gray, width, height)


@each_kernel
def test_flat_fields_keep_their_tone(kernel: Kernel) -> None:
    """No gray is off by more than 0.15 on 512 by 512, where rounding errors add up."""
    levels = range(2, 254, 50 if kernel == "pillow" else 1)
    for level in levels:
        field = bytes([level]) * 512**2
        result = faithful(field, 512, 512, packed=False, kernel=kernel)
        mean = np.frombuffer(result, np.uint8).mean()
        assert mean == pytest.approx(level, abs=0.15)


def test_without_the_extension_numpy_does_the_same() -> None:
    """A page of the method `faithful` is the same where nothing could be compiled."""
    code = (
        "import sys\n"
        "if len(sys.argv) > 1: sys.modules['_bwpool_dither'] = None\n"
        "import numpy as np\n"
        "from bwpool.convert.bilevel import faithful\n"
        "from bwpool.convert.dither import HAVE_KERNEL\n"
        "from bwpool.convert.plan import Page\n"
        "gray = np.random.default_rng(1).integers(0, 256, (600, 333), np.uint8)\n"
        "strips = (gray[:100].copy(), gray[100:].copy())\n"
        "page = Page(333, 600, None, lambda: iter(strips))\n"
        "print(HAVE_KERNEL, b''.join(map(bytes, faithful(page, 'bit'))).hex())\n"
    )
    command = [sys.executable, "-c", code]
    without = subprocess.run(
        [*command, "without"], capture_output=True, text=True, check=True
    )
    here = subprocess.run(command, capture_output=True, text=True, check=True)

    assert without.stdout.startswith("False ")
    assert without.stdout.split()[1] == here.stdout.split()[1]

"""Every kernel against Pillow, and the arguments of ``bwpool.convert.dither``."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from itertools import pairwise

import pytest
from grays import (
    Content,
    contents,
    each_kernel,
    extremes,
    gradient,
    heights,
    noise,
    seeds,
    widths,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from bwpool.convert.dither import (
    HAVE_KERNEL,
    KERNELS,
    Diffuser,
    Kernel,
    floyd_steinberg,
    kernel_name,
)


def by_pillow(gray: bytes, width: int, height: int, *, packed: bool) -> bytes:
    image = Image.frombytes("L", (width, height), gray).convert("1")
    return (image if packed else image.convert("L")).tobytes()


@each_kernel
@settings(max_examples=300, deadline=None)
@given(width=widths, height=heights, content=contents, seed=seeds, packed=st.booleans())
@example(width=1, height=1, content=extremes, seed=0, packed=True)
def test_picture(
    kernel: Kernel, width: int, height: int, content: Content, seed: int, packed: bool
) -> None:
    """A whole picture comes out bit for bit as from Pillow."""
    gray = content(random.Random(seed), width, height)
    result = floyd_steinberg(gray, width, height, packed=packed, kernel=kernel)
    assert result == by_pillow(gray, width, height, packed=packed)


@each_kernel
@settings(max_examples=300, deadline=None)
@given(
    width=widths,
    height=heights,
    cuts=st.sets(st.integers(0, 50)),
    content=contents,
    seed=seeds,
    packed=st.booleans(),
)
def test_strips(
    kernel: Kernel,
    width: int,
    height: int,
    cuts: set[int],
    content: Content,
    seed: int,
    packed: bool,
) -> None:
    """However a picture is cut into strips, it comes out as if it were whole."""
    gray = content(random.Random(seed), width, height)
    diffuser = Diffuser(width, packed=packed, kernel=kernel)
    edges = sorted({0, height, *(cut for cut in cuts if cut < height)})
    result = b"".join(
        diffuser.feed(gray[top * width : bottom * width], bottom - top)
        for top, bottom in pairwise(edges)
    )
    assert result == by_pillow(gray, width, height, packed=packed)


@each_kernel
@settings(max_examples=100, deadline=None)
@given(
    width=widths,
    height=heights,
    gap=st.integers(0, 70),
    seed=seeds,
    packed=st.booleans(),
)
def test_stride(
    kernel: Kernel, width: int, height: int, gap: int, seed: int, packed: bool
) -> None:
    """Gaps between rows are skipped, and the last row need not have one."""
    rng = random.Random(seed)
    rows = [rng.randbytes(width) for _ in range(height)]
    gray = rng.randbytes(gap).join(rows)
    result = floyd_steinberg(
        gray, width, height, packed=packed, stride=width + gap, kernel=kernel
    )
    assert result == by_pillow(b"".join(rows), width, height, packed=packed)


@each_kernel
@settings(max_examples=100, deadline=None)
@given(width=widths, height=heights, seed=seeds, packed=st.booleans())
def test_out(kernel: Kernel, width: int, height: int, seed: int, packed: bool) -> None:
    """A given buffer is filled to the last byte of the result and not beyond."""
    gray = noise(random.Random(seed), width, height)
    diffuser = Diffuser(width, packed=packed, kernel=kernel)
    out = bytearray(b"\xaa" * (height * diffuser.row_bytes + 100))
    result = diffuser.feed(gray, height, out=out)
    assert result.obj is out
    assert result == by_pillow(gray, width, height, packed=packed)
    assert out[result.nbytes :] == b"\xaa" * 100


@each_kernel
@settings(max_examples=100, deadline=None)
@given(width=widths, height=heights, seed=seeds, packed=st.booleans())
def test_in_place(
    kernel: Kernel, width: int, height: int, seed: int, packed: bool
) -> None:
    """The result may overwrite the gray rows."""
    gray = noise(random.Random(seed), width, height)
    buffer = bytearray(gray)
    diffuser = Diffuser(width, packed=packed, kernel=kernel)
    result = diffuser.feed(buffer, height, out=buffer)
    assert result == by_pillow(gray, width, height, packed=packed)


@each_kernel
def test_wide(kernel: Kernel) -> None:
    """Rows longer than an int16 can count come out right."""
    width, height = 70_001, 19
    gray = noise(random.Random(0), width, height)
    result = floyd_steinberg(gray, width, height, packed=True, kernel=kernel)
    assert result == by_pillow(gray, width, height, packed=True)


@each_kernel
def test_tall(kernel: Kernel) -> None:
    """Many bands, one below the other, come out right."""
    width, height = 41, 1999
    gray = gradient(random.Random(1), width, height)
    result = floyd_steinberg(gray, width, height, packed=False, kernel=kernel)
    assert result == by_pillow(gray, width, height, packed=False)


@each_kernel
def test_format(kernel: Kernel) -> None:
    """White is 255 or a 1, the leftmost pixel is the highest bit, padding is 0."""
    gray = bytes([255, 0, 0, 255, 0, 255, 255, 255, 0, 255])
    assert floyd_steinberg(gray, 10, 1, packed=False, kernel=kernel) == gray
    packed = floyd_steinberg(gray, 10, 1, packed=True, kernel=kernel)
    assert packed == bytes([0b10010111, 0b01000000])


@each_kernel
def test_no_rows(kernel: Kernel) -> None:
    """A strip of no rows is nothing, and changes nothing."""
    gray = noise(random.Random(2), 20, 20)
    diffuser = Diffuser(20, packed=True, kernel=kernel)
    parts = [diffuser.feed(gray[:200], 10), diffuser.feed(b"", 0)]
    parts.append(diffuser.feed(gray[200:], 10))
    assert b"".join(parts) == by_pillow(gray, 20, 20, packed=True)


@each_kernel
def test_threads(kernel: Kernel) -> None:
    """Diffusers in several threads do not disturb each other."""
    pictures = [noise(random.Random(seed), 300, 100) for seed in range(4)]
    results: dict[int, bytearray] = {}

    def work(i: int) -> None:
        results[i] = floyd_steinberg(pictures[i], 300, 100, packed=True, kernel=kernel)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, gray in enumerate(pictures):
        assert results[i] == by_pillow(gray, 300, 100, packed=True)


@each_kernel
@pytest.mark.parametrize("width", [0, -1, 2**31, 2**80])
def test_bad_width(kernel: Kernel, width: int) -> None:
    """A width that no row can have is refused by name."""
    with pytest.raises(ValueError, match="width"):
        Diffuser(width, packed=False, kernel=kernel)
    with pytest.raises(ValueError, match="width"):
        floyd_steinberg(b"", width, 1, packed=False, kernel=kernel)


@each_kernel
def test_bad_arguments(kernel: Kernel) -> None:
    """A wrong number of rows, stride or buffer is refused by name."""
    feed = Diffuser(10, packed=True, kernel=kernel).feed
    with pytest.raises(ValueError, match="rows"):
        feed(bytes(10), -1)
    with pytest.raises(ValueError, match="stride"):
        feed(bytes(20), 2, stride=9)
    with pytest.raises(ValueError, match="stride"):
        feed(bytes(20), 2, stride=-10)
    with pytest.raises(ValueError, match="gray has 19 bytes, not the 20 needed"):
        feed(bytes(19), 2)
    with pytest.raises(ValueError, match="gray"):
        feed(bytes(20), 2, stride=11)
    with pytest.raises(ValueError, match="gray"):
        feed(bytes(20), 2**62)
    with pytest.raises(ValueError, match="gray is not contiguous"):
        feed(memoryview(bytes(40))[::2], 2)
    with pytest.raises(ValueError, match="out has 3 bytes, not the 4 needed"):
        feed(bytes(20), 2, out=bytearray(3))
    with pytest.raises(ValueError, match="out is read-only"):
        feed(bytes(20), 2, out=bytes(4))
    with pytest.raises(ValueError, match="out is not contiguous"):
        feed(bytes(20), 2, out=memoryview(bytearray(8))[::2])
    with pytest.raises(ValueError, match="height"):
        floyd_steinberg(b"", 10, 0, packed=True, kernel=kernel)
    with pytest.raises(ValueError, match="gray"):
        floyd_steinberg(bytes(9), 10, 1, packed=True, kernel=kernel)


def test_bad_kernel() -> None:
    """A kernel that is not usable here is refused by name."""
    with pytest.raises(ValueError, match="kernel"):
        Diffuser(1, packed=False, kernel="mmx")  # type: ignore[arg-type]


def in_python(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@each_kernel
def test_environment(kernel: Kernel) -> None:
    """BWPOOL_KERNEL chooses the kernel."""
    code = "from bwpool.convert.dither import *; print(kernel_name())"
    assert in_python(code, BWPOOL_KERNEL=kernel).stdout == f"{kernel}\n"


def test_bad_environment() -> None:
    """A BWPOOL_KERNEL that is not usable is an error, not passed over."""
    done = in_python("import bwpool.convert.dither", BWPOOL_KERNEL="mmx")
    assert done.returncode != 0
    assert "BWPOOL_KERNEL=mmx" in done.stderr


def test_without_extension() -> None:
    """Without the extension, Pillow is what is used."""
    code = (
        "import sys; sys.modules['_bwpool_dither'] = None\n"
        "from bwpool.convert.dither import *\n"
        "print(HAVE_KERNEL, KERNELS, kernel_name())"
    )
    done = in_python(code, BWPOOL_KERNEL="")
    assert done.stdout == "False ('pillow',) pillow\n"


@pytest.mark.skipif("BWPOOL_KERNEL" in os.environ, reason="chosen by the environment")
def test_default() -> None:
    """The fastest kernel is the default."""
    assert kernel_name() == KERNELS[0]
    assert (len(KERNELS) > 1) == HAVE_KERNEL

"""Gray rows for the kernels of error diffusion, and the kernels there are."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import strategies as st

from bwpool.convert.dither import KERNELS, Kernel

ALL_KERNELS: tuple[Kernel, ...] = ("avx2", "scalar", "pillow")

each_kernel = pytest.mark.parametrize(
    "kernel",
    [
        pytest.param(k, marks=pytest.mark.skipif(k not in KERNELS, reason="not here"))
        for k in ALL_KERNELS
    ],
)

# The AVX2 kernel takes 16 rows at a time, each 3 columns behind the one above, in tiles
# of 16 columns: this covers every number of rows left over, pictures all inside the
# slant at both ends, and both ends of a row anywhere in a tile.
widths = st.integers(1, 130) | st.sampled_from([255, 256, 257, 1000])
heights = st.integers(1, 50)
seeds = st.integers(0, 2**32)

Content = Callable[[random.Random, int, int], bytes]


def _clip(value: float) -> int:
    return min(max(int(value), 0), 255)


def noise(rng: random.Random, width: int, height: int) -> bytes:
    return rng.randbytes(width * height)


def flat(rng: random.Random, width: int, height: int) -> bytes:
    return bytes([rng.randrange(256)]) * (width * height)


def extremes(rng: random.Random, width: int, height: int) -> bytes:
    # About the threshold, and at the ends, where values are clipped.
    return bytes(rng.choices([0, 1, 127, 128, 129, 254, 255], k=width * height))


def gradient(rng: random.Random, width: int, height: int) -> bytes:
    dx, dy, start = rng.uniform(-4, 4), rng.uniform(-4, 4), rng.uniform(0, 255)
    return bytes(
        _clip(start + dx * x + dy * y) for y in range(height) for x in range(width)
    )


def texture(rng: random.Random, width: int, height: int) -> bytes:
    base, swing = rng.randrange(256), rng.randrange(1, 64)
    return bytes(
        _clip(base + rng.uniform(-swing, swing)) for _ in range(width * height)
    )


contents = st.sampled_from([noise, flat, extremes, gradient, texture])

"""Error diffusion by Floyd and Steinberg, and one that is nearer to a photograph.

The former is bit for bit that of Pillow's ``convert("1")``.
The work is done by an optional C extension, sixteen rows at a time on a core that has
AVX2; the formulas are in ``_dither.c``.  Without the extension Floyd–Steinberg goes
through Pillow, where it has whole pictures, and strips through a slow loop in Python;
the faithful diffusion goes through numpy.  The result is the same to the bit.

``BWPOOL_KERNEL`` in the environment, read once, chooses the kernel used by default:
avx2, scalar or pillow.  One that cannot be used is a ValueError on import.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import Buffer

__all__ = [
    "HAVE_KERNEL",
    "KERNELS",
    "Diffuser",
    "Kernel",
    "Weights",
    "floyd_steinberg",
    "kernel_name",
]

Kernel = Literal["avx2", "scalar", "pillow"]
Weights = Literal["floyd-steinberg", "faithful"]

try:
    _dither: Any = import_module("_bwpool_dither")
except ImportError:
    _dither = None

HAVE_KERNEL: Final = _dither is not None
"""Whether the C extension is there."""

# Pillow holds the sides of a picture in a C int.
_MAX_WIDTH: Final = 2**31 - 1


def _usable() -> tuple[Kernel, ...]:
    if not HAVE_KERNEL:
        return ("pillow",)
    if not _dither.lib.have_avx2():
        return ("scalar", "pillow")
    return ("avx2", "scalar", "pillow")


def _chosen() -> Kernel:
    wanted = os.environ.get("BWPOOL_KERNEL") or KERNELS[0]
    for kernel in KERNELS:
        if kernel == wanted:
            return kernel
    raise ValueError(f"BWPOOL_KERNEL={wanted} is not one of {', '.join(KERNELS)}")


KERNELS: Final = _usable()
"""The kernels that work on this machine, the fastest first."""

_DEFAULT: Final = _chosen()


def kernel_name() -> Kernel:
    """Name the kernel used by default: the fastest, or what BWPOOL_KERNEL says."""
    return _DEFAULT


class Diffuser:
    """The diffusion of one picture, strip by strip from the top.

    However the picture is cut, the result is the same: what the last row passes down
    is kept for the next strip.  The memory used is some 18 bytes per pixel of width.
    The kernels in C run without the GIL; a Diffuser is for one thread at a time.

    Args:
        width: pixels in a row.
        packed: whether to return bits rather than bytes.
        kernel: one of ``KERNELS``; ``kernel_name()`` if not given.  "pillow" means
            Python here, since Pillow cannot begin with a row that has one above it,
            and numpy for faithful diffusion.
        weights: which diffusion.

    Raises:
        ValueError: if ``width`` is not positive, or the kernel cannot be used.
    """

    def __init__(
        self,
        width: int,
        *,
        packed: bool,
        kernel: Kernel | None = None,
        weights: Weights = "floyd-steinberg",
    ) -> None:
        kernel = _checked(width, kernel)
        self.width: Final = width
        self.packed: Final = packed
        self.row_bytes: Final = _row_bytes(width, packed)
        """Bytes of a bilevel row."""
        self._engine = _engine(width, packed, kernel, weights)

    def feed(
        self,
        gray: Buffer,
        rows: int,
        *,
        stride: int | None = None,
        out: Buffer | None = None,
    ) -> memoryview:
        """Return the next rows in black and white.

        Args:
            gray: the rows, one byte a pixel, 0 black and 255 white.
            rows: how many there are; may differ from strip to strip.
            stride: bytes from row to row in ``gray``; the width if not given.
            out: where to put the result, at least ``rows * row_bytes`` bytes, in a new
                buffer if not given.  It may be ``gray`` itself.

        Returns:
            A view of the bytes written to ``out``, rows without gaps.  A pixel is a
            byte of 0 or 255 or, if packed, a bit, 1 for white, the leftmost the highest
            of its byte; the bits that fill up the last byte of a row are 0.

        Raises:
            ValueError: if ``rows`` is negative, ``stride`` less than the width,
                ``gray`` or ``out`` too short or not contiguous, or ``out`` read-only.
        """
        if stride is None:
            stride = self.width
        source = _gray(gray, self.width, rows, stride)
        size = rows * self.row_bytes
        target = _view("out", bytearray(size) if out is None else out, size)
        if target.readonly:
            raise ValueError("out is read-only")
        if rows:
            self._engine.diffuse(source, stride, rows, target)
        return target


def floyd_steinberg(
    gray: Buffer,
    width: int,
    height: int,
    *,
    packed: bool,
    stride: int | None = None,
    kernel: Kernel | None = None,
) -> bytearray:
    """Return a whole picture in black and white.

    The arguments, the format of the result and the errors are those of ``Diffuser``
    and its ``feed``; in addition a ``height`` that is not positive is a ValueError.
    """
    if height < 1:
        raise ValueError(f"height is {height}, not positive")
    kernel = _checked(width, kernel)
    if kernel == "pillow":
        stride = width if stride is None else stride
        source = _gray(gray, width, height, stride)
        return _by_pillow(source, width, height, stride, packed)
    diffuser = Diffuser(width, packed=packed, kernel=kernel)
    out = bytearray(height * diffuser.row_bytes)
    diffuser.feed(gray, height, stride=stride, out=out)
    return out


# -- Arguments -------------------------------------------------------------------------


def _checked(width: int, kernel: Kernel | None) -> Kernel:
    """Return the kernel to use for rows of that width."""
    if not 1 <= width <= _MAX_WIDTH:
        raise ValueError(f"width is {width}, not from 1 to {_MAX_WIDTH}")
    if kernel is None:
        return _DEFAULT
    if kernel not in KERNELS:
        raise ValueError(f"kernel is {kernel!r}, not one of {', '.join(KERNELS)}")
    return kernel


def _gray(gray: Buffer, width: int, rows: int, stride: int) -> memoryview:
    """Return the bytes from the first to the last pixel."""
    if rows < 0:
        raise ValueError(f"rows is {rows}, negative")
    if stride < width:
        raise ValueError(f"stride is {stride}, less than the width of {width}")
    return _view("gray", gray, (rows - 1) * stride + width if rows else 0)


def _view(name: str, buffer: Buffer, size: int) -> memoryview:
    """Return the first ``size`` bytes of a buffer."""
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise ValueError(f"{name} is not contiguous")
    if view.nbytes < size:
        raise ValueError(f"{name} has {view.nbytes} bytes, not the {size} needed")
    # An empty view cannot be cast, and need not be.
    return view.cast("B")[:size] if view.nbytes else view


def _row_bytes(width: int, packed: bool) -> int:
    return (width + 7) // 8 if packed else width


# -- Engines ---------------------------------------------------------------------------


class _Engine(Protocol):
    def diffuse(
        self, gray: memoryview, stride: int, rows: int, out: memoryview
    ) -> None:
        """Fill ``out`` with the next rows; the arguments have been checked."""


def _engine(width: int, packed: bool, kernel: Kernel, weights: Weights) -> _Engine:
    if kernel != "pillow":
        return _Compiled(width, packed, kernel, weights)
    if weights == "faithful":
        from bwpool.convert.faithful import Skewed  # only where there is no kernel

        return Skewed(width, packed=packed)
    return _Python(width, packed)


class _Compiled:
    """The kernels in C."""

    def __init__(
        self, width: int, packed: bool, kernel: Kernel, weights: Weights
    ) -> None:
        self._packed = packed
        lib = _dither.lib
        is_faithful = weights == "faithful"
        new = lib.diffuser_new_faithful if is_faithful else lib.diffuser_new
        state = new(width, kernel == "avx2")
        if state == _dither.ffi.NULL:
            raise MemoryError(f"no memory for rows of {width} pixels")
        self._state = _dither.ffi.gc(state, _dither.lib.diffuser_free)

    def diffuse(
        self, gray: memoryview, stride: int, rows: int, out: memoryview
    ) -> None:
        # These objects hold the buffers in place until the call is over.
        source = _dither.ffi.from_buffer("uint8_t[]", gray)
        target = _dither.ffi.from_buffer("uint8_t[]", out, require_writable=True)
        _dither.lib.diffuser_feed(
            self._state, source, stride, rows, target, self._packed
        )


class _Python:
    """The loop in Python.

    For strips without the extension, since Pillow cannot be given errors to begin with.
    It is some fifty times slower than Pillow.
    """

    def __init__(self, width: int, packed: bool) -> None:
        self._width = width
        self._packed = packed
        self._passed_down = [0] * width

    def diffuse(
        self, gray: memoryview, stride: int, rows: int, out: memoryview
    ) -> None:
        row_bytes = _row_bytes(self._width, self._packed)
        for y in range(rows):
            pixels = gray[y * stride : y * stride + self._width]
            row, self._passed_down = _diffuse_row(pixels, self._passed_down)
            out[y * row_bytes : (y + 1) * row_bytes] = (
                _pack(row, row_bytes) if self._packed else row
            )


# By gray plus error before clipping, which is from -126 to 383; the negative ones are
# at the end, where Python looks for them.
_CLIPPED: Final = [*range(256), *[255] * 128, *[0] * 126]
_BILEVEL: Final = [255 if value > 128 else 0 for value in _CLIPPED]
_ERROR: Final = [a - b for a, b in zip(_CLIPPED, _BILEVEL, strict=True)]


def _diffuse_row(
    gray: memoryview, passed_down: Sequence[int]
) -> tuple[bytearray, list[int]]:
    """Return a row in black and white, and what it passes to each pixel of the next.

    That is 3 e(x+1) + 5 e(x) + e(x-1), where e is the error.
    """
    row = bytearray(len(gray))
    sums = []
    right = 0  # e(x-1)
    below = 0  # 5 e(x-1) + e(x-2)
    for x, (pixel, above) in enumerate(zip(gray, passed_down, strict=True)):
        n = 7 * right + above
        value = pixel + (n >> 4 if n >= 0 else -(-n >> 4))
        row[x] = _BILEVEL[value]
        error = _ERROR[value]
        sums.append(below + 3 * error)
        below = 5 * error + right
        right = error
    sums.append(below)
    return row, sums[1:]  # the first is for the pixel left of the picture


def _pack(row: bytearray, row_bytes: int) -> bytes:
    """Pack bytes of 0 or 255 into bits."""
    digits = row.replace(b"\0", b"0").replace(b"\xff", b"1")
    return int(digits.ljust(8 * row_bytes, b"0"), 2).to_bytes(row_bytes, "big")


def _by_pillow(
    gray: memoryview, width: int, height: int, stride: int, packed: bool
) -> bytearray:
    from PIL import Image  # only here, since nobody who has a kernel needs it

    if stride != width:
        rows = (gray[y * stride : y * stride + width] for y in range(height))
        gray = memoryview(b"".join(rows))
    data: Any = gray  # any buffer will do, but the annotation says less
    image = Image.frombuffer("L", (width, height), data, "raw", "L", 0, 1)
    bilevel = image.convert("1")
    return bytearray((bilevel if packed else bilevel.convert("L")).tobytes())

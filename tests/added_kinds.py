"""bwpool with a method and a format added, each by one descriptor.

Run with the arguments of `bwpool`, by `test_kinds.py`.
"""

from __future__ import annotations

import numpy as np

from bwpool.formats import FORMATS, Format
from bwpool.methods import METHODS, Method


def negative(page, unit):
    """Make dark pixels white, the whole page at once."""
    (gray,) = page.strips()
    is_white = gray < 128
    yield np.packbits(is_white, axis=1) if unit == "bit" else is_white * np.uint8(255)


def encode(plan, pages):
    """Encode one page as a PBM, whose set bits are black."""
    from bwpool.convert.plan import Chunk

    page = next(pages)
    yield Chunk(b"P4 %d %d\n" % (page.width, page.height))
    for strip in page.strips():
        yield Chunk((~strip).tobytes())


METHODS["negative"] = Method(
    name="negative",
    summary="Black is white.",
    function="__main__:negative",
    is_whole=True,
    is_dithered=False,
)

FORMATS["pbm"] = Format(
    name="pbm",
    suffixes=(".pbm",),
    bits=1,
    pages=1,
    max_side=400,
    encoder="__main__:encode",
)

if __name__ == "__main__":
    from bwpool.__main__ import main

    main()

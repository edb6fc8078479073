"""Tells a file's format by its first bytes, whatever its name says.

Pure. Called while a source is inspected.
"""

from __future__ import annotations

HEAD_BYTES = 64
"""How much of a file it takes."""

OTHER = "other"
"""None of the formats told apart here; libvips may know it."""

_MAGIC = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"II*\0", "tiff"),
    (b"MM\0*", "tiff"),
    (b"II+\0", "tiff"),
    (b"MM\0+", "tiff"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
)
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")


def sniff(head: bytes) -> str:
    """Name the format that a file's first bytes announce."""
    for magic, content in _MAGIC:
        if head.startswith(magic):
            return content
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        return _heif(head[8 : min(int.from_bytes(head[:4]), HEAD_BYTES)])
    return OTHER


def _heif(brands: bytes) -> str:
    """Tell AVIF and HEIC apart, which share their generic brands."""
    if any(brand in brands for brand in _AVIF_BRANDS):
        return "avif"
    return "heic" if any(brand in brands for brand in _HEIF_BRANDS) else OTHER

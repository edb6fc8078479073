"""How one converts with Pillow: luma only, Floyd–Steinberg, JPEG."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

QUALITY = 75


def convert(source: Path, target: Path) -> None:
    """Convert one picture."""
    with Image.open(source) as image:
        # Lets libjpeg-turbo leave the colours out.
        image.draft("L", image.size)
        image.convert("L").convert("1").save(target, quality=QUALITY)

"""Which other programs and libraries are here to compare with, and where."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from benchmarks.host import version_of


def imagemagick() -> list[str]:
    """Return the command that begins a conversion by ImageMagick; empty if none."""
    # A mere `convert` may be anything.
    for name in ("convert-im6.q16", "convert-im6.q16hdri", "convert", "magick"):
        if (path := shutil.which(name)) and "ImageMagick" in version_of(
            path, "-version"
        ):
            return [path]
    return []


def graphicsmagick() -> list[str]:
    """Return the command that begins a conversion by GraphicsMagick; empty if none."""
    return [path, "convert"] if (path := shutil.which("gm")) else []


def has_modules(python: str, *names: str) -> bool:
    """Whether an interpreter can import all of these."""
    code = f"import {', '.join(names)}"
    run = subprocess.run([python, "-c", code], capture_output=True, check=False)
    return run.returncode == 0


def versions(python: str) -> dict[str, str]:
    """Name the versions of what is compared, as far as it is here."""
    return dict(_versions(python))


def _versions(python: str) -> Iterator[tuple[str, str]]:
    programs = {
        "imagemagick": [*(imagemagick() or ["convert-im6.q16"]), "-version"],
        "graphicsmagick": ["gm", "version"],
        "parallel": ["parallel", "--version"],
        "redis": ["redis-server", "--version"],
    }
    for name, command in programs.items():
        yield name, version_of(*command)
    for name in ("celery", "faststream", "pillow"):
        code = f"from importlib.metadata import version; print(version({name!r}))"
        yield f"{name} (peers)", version_of(python, "-c", code)

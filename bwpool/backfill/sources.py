"""What lies behind a backfill's sources: files, folders, globs and lists.

Reads folders and lists, and opens no picture. Called by `inputs`.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bwpool.backfill.names import Place
from bwpool.errors import ConfigError

PICTURE_SUFFIXES = frozenset(
    [
        ".avif",
        ".bmp",
        ".dib",
        ".gif",
        ".heic",
        ".heif",
        ".j2k",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".jpx",
        ".png",
        ".tif",
        ".tiff",
        ".webp",
    ]
)
"""What is taken from a folder or a glob; a file that is named itself always is."""


@dataclass(frozen=True, slots=True)
class Found:
    """One file behind a source."""

    path: Path
    place: Place
    """Where it is below the source."""
    base: Path
    """The folder that the source names, or that the named file is in."""


@dataclass(slots=True)
class Search:
    """One look behind all sources, and what it left alone."""

    out: Places
    """The output folder, which is not walked from above."""
    stdin: Iterable[str]
    """The lines that `-` stands for."""
    others: int = 0
    """Files that are no pictures, going by their names."""
    links: int = 0
    """Links to folders, which are not followed."""

    def expand(self, source: str, *, is_one_of_several: bool) -> Iterator[Found]:
        """Yield the files behind one source; raises ConfigError.

        With several sources, each one's name comes first in the places below it.
        """
        path = Path(source)
        if source == "-":
            yield from _listed(self.stdin, "standard input", ("-",) * is_one_of_several)
        elif _is_there(path, folder=True):
            prefix = (_name(path),) if is_one_of_several else ()
            for file in self._walk(path):
                yield Found(file, prefix + file.relative_to(path).parts, path)
        elif _is_there(path):
            yield Found(path, (path.name,), path.parent)
        elif source.startswith("@"):
            prefix = (path.name,) if is_one_of_several else ()
            yield from _list_file(Path(source[1:]), prefix)
        elif glob.has_magic(source):
            yield from self._match(source, is_one_of_several=is_one_of_several)
        else:
            raise ConfigError(f"there is no {source}")

    def _walk(self, folder: Path) -> Iterator[Path]:
        """Yield the pictures below `folder`, in order, hidden ones left out."""
        is_inside = self.out.holds(folder)
        for root, folders, files in os.walk(folder, onerror=_refuse):
            here = Path(root)
            visible = sorted(name for name in folders if not name.startswith("."))
            linked = {name for name in visible if (here / name).is_symlink()}
            self.links += len(linked)
            folders[:] = [
                name
                for name in visible
                if name not in linked and (is_inside or not self.out.holds(here / name))
            ]
            for name in sorted(files):
                if not name.startswith(".") and self._is_picture(name):
                    yield here / name

    def _match(self, pattern: str, *, is_one_of_several: bool) -> Iterator[Found]:
        """Yield what a glob matches; ids begin behind its last plain folder."""
        base = Path(pattern)
        while glob.has_magic(str(base)):
            base = base.parent
        prefix = (_name(base),) if is_one_of_several else ()
        # Not Path.glob: a pattern may be absolute.
        matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
        if not matches:
            raise ConfigError(f"nothing matches {pattern}")
        for match in map(Path, matches):
            if not _is_there(match, folder=True):
                files = iter([match] if self._is_picture(match.name) else [])
            elif "**" not in pattern:
                files = self._walk(match)
            else:
                continue  # what is in it matches itself, or is not meant
            for file in files:
                yield Found(file, prefix + file.relative_to(base).parts, base)

    def _is_picture(self, name: str) -> bool:
        if Path(name).suffix.lower() in PICTURE_SUFFIXES:
            return True
        self.others += 1
        return False


@dataclass(slots=True)
class Places:
    """What lies in one folder, whatever ways lead there."""

    folder: Path
    _resolved: dict[Path, Path] = field(default_factory=dict)
    _held: dict[Path, bool] = field(default_factory=dict)

    def holds(self, folder: Path) -> bool:
        """Whether `folder` is that folder, or in it."""
        if (known := self._held.get(folder)) is None:
            mine = self.resolve(self.folder)
            known = self._held[folder] = self.resolve(folder).is_relative_to(mine)
        return known

    def resolve(self, folder: Path) -> Path:
        """Return a folder's one true path."""
        if (known := self._resolved.get(folder)) is None:
            known = self._resolved[folder] = Path(os.path.realpath(folder))
        return known

    def resolve_file(self, path: Path) -> Path:
        """Return a file's path with its folder's true one; links to files are files."""
        return self.resolve(path.parent) / path.name


def _name(folder: Path) -> str:
    """Return the name that a folder has in ids, which `.` and `..` have not."""
    name = folder.name
    if name in ("", ".."):
        name = Path(os.path.realpath(folder)).name
    if not name:
        raise ConfigError(f"{folder} has no name to put into ids: convert it alone")
    return name


def _list_file(path: Path, prefix: Place) -> Iterator[Found]:
    encoding = sys.getfilesystemencoding()
    try:
        with path.open(encoding=encoding, errors="surrogateescape") as lines:
            yield from _listed(lines, str(path), prefix)
    except OSError as error:
        raise ConfigError(f"can't read the list {path}: {error.strerror}") from None


def _listed(lines: Iterable[str], name: str, prefix: Place) -> Iterator[Found]:
    """Yield the files a list names, a path a line; ids are the paths as written."""
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if not text:
            continue
        path = Path(text)
        parts = path.parts[1:] if path.is_absolute() else path.parts
        if ".." in parts or not parts or "\0" in text:
            raise ConfigError(f"{name}, line {number}: {text!r} can't be made an id")
        yield Found(path, prefix + parts, path.parent)


def _is_there(path: Path, *, folder: bool = False) -> bool:
    try:
        return path.is_dir() if folder else path.exists()
    except OSError as error:
        raise ConfigError(f"can't look at {path}: {error.strerror}") from None


def _refuse(error: OSError) -> None:
    raise ConfigError(f"can't read {error.filename}: {error.strerror}")

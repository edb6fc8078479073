"""Which pictures a backfill is about, and the id of each one's job.

Reads folders and lists, and nothing else. Called by the command line.
"""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bwpool.errors import ConfigError, InvalidJob
from bwpool.storage import output_name

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
"""What is taken from a folder; a file that is named itself is always taken."""

Place = tuple[str, ...]
"""The segments of an id, the file's name last and with its extension."""


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to convert."""

    source: Path
    """Absolute."""
    job_id: str
    output: Path


@dataclass(slots=True)
class Inputs:
    """What was found."""

    pictures: list[Input] = field(default_factory=list)
    unnameable: dict[Path, str] = field(default_factory=dict)
    """Pictures whose names can't be job ids, each with the reason."""
    others: int = 0
    """Files in the folders that are no pictures, going by their names."""


def is_up_to_date(picture: Input) -> bool:
    """Whether its output is there, and no older than the source."""
    try:
        return picture.output.stat().st_mtime >= picture.source.stat().st_mtime
    except OSError:
        return False


def find_inputs(
    sources: Sequence[str], out: Path, output_format: str, stdin: Iterable[str] = ()
) -> Inputs:
    """Find the pictures that `sources` name: files, folders, globs, `@list` or `-`.

    `stdin` are the lines that `-` stands for. Raises ConfigError for a source that is
    not there, two pictures with the same id, or an output that would replace a source.
    """
    inputs = Inputs()
    places: dict[Place, Path] = {}
    for source in sources:
        prefix = (Path(source).name,) if len(sources) > 1 else ()
        for path, place in _expand(source, out, stdin, inputs):
            if len(place) > 1 or path != Path(source):
                place = prefix + place  # noqa: PLW2901 - completed, not replaced
            if places.setdefault(place, path) != path:
                other = places[place]
                raise ConfigError(
                    f"{path} and {other} would have the same output: "
                    "convert the folder above both, or each on its own"
                )
    for place, path in _without_extensions(places):
        _add(inputs, path.absolute(), "/".join(place), out, output_format)
    return inputs


def _add(inputs: Inputs, path: Path, job_id: str, out: Path, to: str) -> None:
    try:
        output = out / output_name(job_id, path.name, to)
    except InvalidJob as error:
        inputs.unnameable[path] = error.reason
        return
    if output.exists() and output.samefile(path):
        raise ConfigError(
            f"the output would replace its own source, {path}: choose another --out"
        )
    inputs.pictures.append(Input(path, job_id, output))


def _without_extensions(places: dict[Place, Path]) -> Iterator[tuple[Place, Path]]:
    """Drop the extension where that leaves the name unique in its folder.

    Ignoring case, since the output's file system may.
    """
    stems = Counter(_stem(place) for place in places)
    for place, path in places.items():
        if stems[_stem(place)] == 1:
            yield (*place[:-1], Path(place[-1]).stem), path
        else:
            yield place, path


def _stem(place: Place) -> str:
    return "/".join((*place[:-1], Path(place[-1]).stem)).casefold()


def _expand(
    source: str, out: Path, stdin: Iterable[str], inputs: Inputs
) -> Iterator[tuple[Path, Place]]:
    """Yield the files behind one source, each with its place below it."""
    path = Path(source)
    if source == "-":
        yield from _listed(stdin, "standard input")
    elif path.is_dir():
        for file in _walk(path, out, inputs):
            yield file, file.relative_to(path).parts
    elif path.exists():
        yield path, (path.name,)
    elif source.startswith("@"):
        yield from _list_file(Path(source[1:]))
    elif glob.has_magic(source):
        yield from _matching(source, out, inputs)
    else:
        raise ConfigError(f"there is no {source}")


def _walk(folder: Path, out: Path, inputs: Inputs) -> Iterator[Path]:
    """Yield the pictures below `folder`, in order, hidden ones and `out` left out."""
    for root, folders, files in os.walk(folder, onerror=_refuse):
        here = Path(root)
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and not _is_same(here / name, out)
        )
        for name in sorted(files):
            if name.startswith("."):
                continue
            if Path(name).suffix.lower() in PICTURE_SUFFIXES:
                yield here / name
            else:
                inputs.others += 1


def _matching(pattern: str, out: Path, inputs: Inputs) -> Iterator[tuple[Path, Place]]:
    """Yield what a glob matches; ids begin behind its last plain folder."""
    base = Path(pattern)
    while glob.has_magic(str(base)):
        base = base.parent
    # Not Path.glob: a pattern may be absolute.
    matches = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    for match in map(Path, matches):
        if match.is_file():
            yield match, match.relative_to(base).parts
        elif "**" not in pattern:
            for file in _walk(match, out, inputs):
                yield file, file.relative_to(base).parts
    if not matches:
        raise ConfigError(f"nothing matches {pattern}")


def _list_file(path: Path) -> Iterator[tuple[Path, Place]]:
    try:
        with path.open(errors="surrogateescape") as lines:
            yield from _listed(lines, str(path))
    except OSError as error:
        raise ConfigError(f"can't read the list {path}: {error.strerror}") from None


def _listed(lines: Iterable[str], name: str) -> Iterator[tuple[Path, Place]]:
    """Yield the files a list names, a path a line; ids are the paths as written."""
    for number, line in enumerate(lines, 1):
        text = line.rstrip("\r\n")
        if not text:
            continue
        path = Path(text)
        parts = path.parts[1:] if path.is_absolute() else path.parts
        if ".." in parts:
            raise ConfigError(f"{name}, line {number}: write {text} without '..'")
        yield path, parts


def _is_same(path: Path, other: Path) -> bool:
    return other.exists() and path.samefile(other)


def _refuse(error: OSError) -> None:
    raise ConfigError(f"can't read {error.filename}: {error.strerror}")

"""Which pictures a backfill is about, and the id and output of each one's job.

Looks at files, and reads none. Called by the command line.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bwpool.backfill.names import Place, name_jobs
from bwpool.backfill.sources import Found, Places, Search
from bwpool.errors import ConfigError, InvalidJob, SourceMissing, SourceRefused
from bwpool.storage import output_name

LAST_TIME = (1 << 63) - 1
"""The latest time that SQLite can keep, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was when somebody looked: another one, or one changed, differs."""

    size: int
    mtime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Seen:
        """Read a file's status; times beyond the year 2262 are all the same."""
        return cls(status.st_size, min(status.st_mtime_ns, LAST_TIME))


@dataclass(frozen=True, slots=True)
class Input:
    """One picture to convert."""

    source: Path
    """Absolute."""
    job_id: str
    output: Path
    name: str
    """The output's path inside the output folder."""
    uri: str
    """The source's URI, the same whatever links lead to its folder."""
    seen: Seen
    """The source, when it was found."""

    @property
    def image(self) -> str:
        """The source's URI, as its job has it."""
        return self.source.as_uri()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a source that was found can't be made a job."""

    kind: str
    reason: str


@dataclass(slots=True)
class Inputs:
    """What was found."""

    sources: tuple[str, ...] = ()
    """Where it was looked for, as named."""
    bases: frozenset[Path] = frozenset()
    """The folders, absolute, that were named or that hold the files that were."""
    pictures: list[Input] = field(default_factory=list)
    refused: dict[Path, Refusal] = field(default_factory=dict)
    """Pictures that can't be made a job."""
    others: int = 0
    """Files that are no pictures, going by their names."""
    links: int = 0
    """Links to folders, which are not followed."""
    outputs: int = 0
    """Files that were left alone since they are outputs."""

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folders among the sources."""
        named = (Path(source).absolute() for source in self.sources)
        return tuple(path for path in named if path in self.bases)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all to convert."""
        return not self.pictures and not self.refused


def look_at(path: Path) -> Seen | None:
    """Look at a file, through links; None where there is none to be seen."""
    try:
        return Seen.of(path.stat())
    except OSError:
        return None


def find_inputs(
    sources: Sequence[str], out: Path, output_format: str, stdin: Iterable[str] = ()
) -> Inputs:
    """Find the pictures that `sources` name: files, folders, globs, `@list` or `-`.

    `stdin` are the lines that `-` stands for. A file that is named in several ways is
    one input, and what lies in `out` is none, unless all sources do. Raises ConfigError
    for a source that is not there, two pictures with the same id, or an output that
    would replace a source.
    """
    places = Places(out)
    search = Search(places, stdin)
    found: dict[Path, Found] = {}
    for source in sources:
        for file in search.expand(source, is_one_of_several=len(sources) > 1):
            found.setdefault(places.resolve_file(file.path), file)
    fed = _without_outputs(found, places, output_format)
    inputs = Inputs(
        tuple(sources),
        bases=frozenset(file.base.absolute() for file in fed.values()),
        others=search.others,
        links=search.links,
        outputs=len(found) - len(fed),
    )
    ids = _ids(fed, places, output_format)
    for real, file in fed.items():
        output = _add(inputs, file, real, ids[file.place], out, output_format)
        replaced = fed.get(places.resolve_file(output)) if output else None
        if replaced is not None:
            raise ConfigError(
                f"the output of {real} would replace {replaced.path}: "
                "choose another --out"
            )
    return inputs


def _without_outputs(
    found: dict[Path, Found], places: Places, to: str
) -> dict[Path, Found]:
    """Leave out what this backfill has made before, or is to make.

    That is what lies in the output folder while a source lies elsewhere. Where all
    sources are in the output folder, it is what has another one's name and something
    behind it, since there outputs keep their source's extension.
    """
    if not all(places.holds(file.base) for file in found.values()):
        return {
            real: file for real, file in found.items() if not places.holds(real.parent)
        }
    outputs: set[Path] = set()
    for real, file in sorted(found.items(), key=lambda item: len(item[0].name)):
        if real not in outputs and _is_beside(real, file, places):
            outputs |= _output_beside(real, to)
    return {real: file for real, file in found.items() if real not in outputs}


def _output_beside(real: Path, to: str) -> set[Path]:
    """Return the output of a source in its own folder; raises ConfigError."""
    try:
        is_itself = output_name(real.stem, real.name, to) == real.name
        name = output_name(real.name, real.name, to)
    except InvalidJob:
        return set()
    if is_itself:
        raise ConfigError(
            f"the output would replace its own source, {real}: choose another --out"
        )
    return {real.with_name(name)}


def _is_beside(real: Path, file: Found, places: Places) -> bool:
    """Whether the output goes to its source's folder."""
    return places.resolve(places.folder.joinpath(*file.place[:-1])) == real.parent


def _ids(fed: dict[Path, Found], places: Places, to: str) -> dict[Place, str]:
    taken: dict[Place, Path] = {}
    for file in fed.values():
        if (other := taken.setdefault(file.place, file.path)) != file.path:
            raise ConfigError(
                f"{file.path} and {other} would have the same output: "
                "convert the folder above both, or each on its own"
            )
    beside = (
        file.place for real, file in fed.items() if _is_beside(real, file, places)
    )
    return name_jobs(
        taken,
        to,
        long=frozenset(beside),
        ignores_case=_ignores_case(places.resolve(places.folder)),
    )


def _ignores_case(folder: Path) -> bool:
    """Whether names that differ in nothing but case are the same there."""
    for part in (folder, *folder.parents):
        other = part.with_name(part.name.swapcase()) if part.name else part
        if other != part:
            try:
                return other.samefile(part)
            except OSError:
                return False
    return False


def _add(
    inputs: Inputs, file: Found, real: Path, job_id: str, out: Path, to: str
) -> Path | None:
    """Add a picture, or why it can't be one; return its output."""
    path = file.path.absolute()
    try:
        status = path.stat()
        name = output_name(job_id, path.name, to)
    except InvalidJob as error:
        inputs.refused[path] = Refusal(error.kind, error.reason)
        return None
    except OSError as error:
        inputs.refused[path] = _refusal(error)
        return None
    if not stat.S_ISREG(status.st_mode):
        inputs.refused[path] = Refusal(SourceRefused.kind, "it is not a regular file")
        return None
    output = out / name
    if _is_file(output, status):
        raise ConfigError(
            f"the output would replace its own source, {path}: choose another --out"
        )
    seen = Seen.of(status)
    inputs.pictures.append(Input(path, job_id, output, name, real.as_uri(), seen))
    return output


def _refusal(error: OSError) -> Refusal:
    """Say what looking at a source came to, in the words of the converters."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return Refusal(SourceMissing.kind, "there is no such file")
    if error.errno == errno.ENAMETOOLONG:
        return Refusal(InvalidJob.kind, "its path is too long")
    return Refusal(SourceRefused.kind, f"it can't be looked at: {error.strerror}")


def _is_file(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except OSError:
        return False

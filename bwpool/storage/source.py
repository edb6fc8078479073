"""Opening a source: what its URI may say, and what may lie behind it.

Called by the converters. A source comes from whoever may publish a job, so the
*opened descriptor* is what the rules are checked against, and what is read from: a
name can mean something else a moment later. Paths are strings, since every thumbnail
waits for them.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote_to_bytes

from bwpool.errors import (
    ConversionFailed,
    InvalidJob,
    JobError,
    SourceMissing,
    SourceRefused,
    StorageUnavailable,
)
from bwpool.storage.mounts import is_below, mount_gone
from bwpool.storage.neighbours import AWAY, can_others_be_read

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=:)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOCTTY", 0)
_BLOCK_BYTES = 1 << 20
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True, slots=True)
class Source:
    """An opened regular file; whoever opened it closes it."""

    path: str
    descriptor: int
    status: os.stat_result
    """As it was when the file was opened."""
    roots: tuple[Path, ...] = ()
    """Folders whose sources tell, where this one can't be read, whether others can."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)

    @property
    def size(self) -> int:
        """Its bytes when it was opened."""
        return self.status.st_size

    def read(self, size: int, at: int = 0) -> bytes:
        """Return `size` bytes from the offset `at`; fewer where it ends before."""
        size = min(size, self.size - at)
        try:
            return os.pread(self.descriptor, size, at) if size > 0 else b""
        except OSError as error:
            raise self.explain(error) from error

    def explain(self, error: OSError) -> JobError:
        """Say what it means that this source could not be read."""
        return _source_error(self.path, error, self.roots)

    def read_through(self) -> None:
        """Read all of it, for nothing but the error that this may raise."""
        for at in range(0, self.size, _BLOCK_BYTES):
            self.read(_BLOCK_BYTES, at)

    @property
    def seen(self) -> tuple[int, int]:
        """Its size in bytes and its mtime in nanoseconds, when it was opened."""
        return self.status.st_size, self.status.st_mtime_ns

    def is_changed(self) -> bool:
        """Whether somebody wrote to the file since it was opened."""
        now = os.fstat(self.descriptor)
        before = self.status
        return (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)

    @property
    def name(self) -> str:
        """The last segment of its path."""
        return self.path.rpartition("/")[2]

    def is_file(self, path: str) -> bool:
        """Whether `path` leads to this very file."""
        try:
            return os.path.samestat(self.status, os.stat(path))  # noqa: PTH116
        except OSError:
            return False


def parse_uri(uri: str) -> str:
    """Return the path that a `file://` URI names.

    Raises InvalidJob for what is no such URI, SourceRefused for another scheme.
    """
    scheme = _SCHEME.match(uri)
    if scheme is None:
        raise InvalidJob(f"image {uri!r} is not a file:// URI")
    if scheme[0].lower() == "s3":
        raise SourceRefused("image is in object storage, which this version can't read")
    if scheme[0].lower() != "file":
        raise SourceRefused(f"image has the scheme {scheme[0]!r}; only file is allowed")
    return _local_path(uri, uri[scheme.end() + 1 :])


def _local_path(uri: str, rest: str) -> str:
    host, slash, path = rest.removeprefix("//").partition("/")
    if not rest.startswith("//") or not slash or host.lower() not in ("", "localhost"):
        raise InvalidJob(f"image {uri!r} is not of the form file:///absolute/path")
    if "?" in path or "#" in path or _BAD_ESCAPE.search(path):
        raise InvalidJob(f"image {uri!r} is not percent-encoded")
    try:
        decoded = unquote_to_bytes(path)
    except UnicodeEncodeError:
        raise InvalidJob("image is not valid Unicode") from None
    if b"\0" in decoded:
        raise InvalidJob(f"image {uri!r} contains a NUL")
    return os.fsdecode(b"/" + decoded)


def open_source(
    path: str,
    roots: Sequence[Path],
    also: Sequence[Path] = (),
    mounts: Sequence[str] = (),
) -> Source:
    """Open the regular file at `path`, which must lie under one of `roots`, if any.

    Never blocks on what is not a file. Raises SourceRefused, SourceMissing, InvalidJob,
    ConversionFailed, or StorageUnavailable when nothing can be read there: then one of
    `roots`, or of the folders `also`, has vanished, or one of `mounts` is none.
    """
    known = (*roots, *also)
    try:
        if roots:
            _check_inside(os.path.realpath(path), path, roots)
        # Looked at first, since merely opening some devices has effects.
        _check_regular(path, os.stat(path))  # noqa: PTH116
        descriptor = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        _check_storage(path, known, mounts)
        raise _source_error(path, error, known) from error
    try:
        status = os.fstat(descriptor)
        _check_regular(path, status)
        if roots:
            _check_inside(_real_path(descriptor, path), path, roots)
    except BaseException:
        os.close(descriptor)
        raise
    return Source(path, descriptor, status, known)


def check_root(root: Path, mounts: Sequence[str] = ()) -> None:
    """Raise StorageUnavailable unless the folder `root` is there and can be listed."""
    if (mount := mount_gone(root, mounts)) is not None:
        raise StorageUnavailable(f"the sources' storage is not mounted: {mount}")
    try:
        with os.scandir(root) as entries:
            next(entries, None)
    except PermissionError:
        return  # sources in it may be readable nevertheless
    except OSError as error:
        raise StorageUnavailable(f"the source folder is gone: {error}") from error


def _real_path(descriptor: int, path: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:  # no /proc: the best that a name can tell
        return os.path.realpath(path)


def _check_regular(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise SourceRefused(f"{path} is {kind}, not a regular file")


def _check_inside(real: str, path: str, roots: Sequence[Path]) -> None:
    if not any(Path(real).is_relative_to(os.path.realpath(root)) for root in roots):
        raise SourceRefused(f"{path} is outside the folders that sources may lie in")


def _check_storage(path: str, roots: Sequence[Path], mounts: Sequence[str]) -> None:
    """Raise StorageUnavailable if it is more than `path` that is gone."""
    if (mount := mount_gone(path, mounts)) is not None:
        raise StorageUnavailable(f"the sources' storage is not mounted: {mount}")
    for root in roots:
        if is_below(path, str(root.absolute())):
            check_root(root)


def _source_error(
    path: str, error: OSError | ValueError, roots: Sequence[Path]
) -> JobError:
    number = getattr(error, "errno", None)
    if number in AWAY and not can_others_be_read(path, number, roots):
        return StorageUnavailable(f"the sources' storage can't be read: {error}")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return SourceMissing(f"there is no file {path}")
    if number in (errno.EACCES, errno.EPERM):
        return SourceRefused(f"{path} may not be read by this user")
    if number in (errno.ELOOP, errno.ENXIO):
        return SourceRefused(f"{path} is not a regular file: {error}")
    if number == errno.ENAMETOOLONG or isinstance(error, ValueError):
        return InvalidJob(f"image is not a usable path: {error}")
    return ConversionFailed(f"{path} can't be read: {error}")

"""Writing an output so that it is there whole, and still there after a crash.

An output is written to a temporary file in its own folder, synced, renamed over its
name, and the folder synced. Called by the converters (`Place` and `Pending`) and by the
supervisor (`probe`, `remove_stale_temporaries`). Folders are walked by descriptor and
never through a symbolic link, so that no id leads out of the output folder.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bwpool.errors import (
    ConversionFailed,
    InvalidJob,
    JobError,
    StorageUnavailable,
)

TEMPORARY_PREFIX = ".bwpool-"
STALE_AGE = 3600.0
"""Seconds since a temporary file was last written to, after which its writer is taken
for dead. Other supervisors may share the folder, even from other hosts, so neither the
name nor a process id can tell; no conversion pauses for an hour."""

_PROBE_BYTES = 65536
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_JOBS_FAULT = (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG)


@dataclass(frozen=True, slots=True)
class Temporary:
    """A temporary file, by descriptors, and the name that it shall get."""

    path: str
    """Where it shall be."""
    name: str
    """Its own name, in the same folder."""
    file: int
    folder: int
    sync: bool

    @classmethod
    def create(cls, path: str, folder: int, *, sync: bool) -> Temporary:
        """Create it in `folder`, whose descriptor it takes over."""
        name = _temporary_name()
        try:
            file = os.open(name, _CREATE, 0o666, dir_fd=folder)
        except OSError as error:
            os.close(folder)
            raise _storage_error(error) from error
        return cls(path, name, file, folder, sync)

    def sync_file(self) -> None:
        """Have its content on the disk."""
        if self.sync:
            os.fsync(self.file)

    def rename(self) -> None:
        """Give it its name."""
        name = self.path.rpartition("/")[2]
        os.rename(self.name, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def sync_folder(self) -> None:
        """Have its name on the disk."""
        if self.sync:
            os.fsync(self.folder)

    def remove(self) -> None:
        """Remove it under its own name; what can't be removed is stale in an hour."""
        with suppress(OSError):
            os.unlink(self.name, dir_fd=self.folder)

    def close(self) -> None:
        """Let go of the descriptors."""
        os.close(self.file)
        os.close(self.folder)


class Place:
    """Where an output is written to, until it is complete."""

    def __init__(self, out: str, name: str, *, sync: bool) -> None:
        """Make the temporary file, and the folders of `name`, relative to `out`.

        Raises InvalidJob when `name` leads through something that is no folder,
        ConversionFailed when it leads into one that may not be written to,
        StorageUnavailable when the output folder can't be written to.
        """
        *folders, _ = name.split("/")
        self.size = 0
        try:
            folder = _open_folder(out, folders, sync=sync)
            self._temporary = Temporary.create(f"{out}/{name}", folder, sync=sync)
        except StorageUnavailable as error:
            if folders and _is_forbidden(error) and os.access(out, os.W_OK):
                # Else one id could halt everything by naming somebody's folder.
                raise ConversionFailed(error.reason) from error
            raise

    def write(self, data: bytes | memoryview, at: int | None = None) -> None:
        """Append `data`, or overwrite what is there at the offset `at`."""
        position = self.size if at is None else at
        rest = memoryview(data).cast("B")
        try:
            while rest:
                written = os.pwrite(self._temporary.file, rest, position)
                position += written
                rest = rest[written:]
        except OSError as error:
            raise _storage_error(error) from error
        self.size = max(self.size, position)

    def finish(self) -> Pending:
        """Hand over the complete file; the place is of no use afterwards."""
        return Pending(self._temporary, self.size)

    def discard(self) -> None:
        """Remove the file."""
        self.finish().discard()


class Pending:
    """A complete output that still has its temporary name.

    Exactly one of `commit`, `discard` or `commit_all` ends it, on any thread.
    """

    def __init__(self, temporary: Temporary, size: int) -> None:
        """Take over the temporary file, of `size` bytes."""
        self.temporary = temporary
        self.size = size

    @property
    def path(self) -> str:
        """Where the output will be."""
        return self.temporary.path

    def commit(self) -> None:
        """Give the output its name, durably.

        Raises StorageUnavailable, after removing the temporary file.
        """
        (error,) = commit_all([self])
        if error is not None:
            raise error

    def discard(self) -> None:
        """Remove the temporary file."""
        self.temporary.remove()
        self.temporary.close()


def commit_all(pendings: Sequence[Pending]) -> list[JobError | None]:
    """Commit several outputs, syncing each folder only once.

    Returns an error or None for each, in order; where there is an error, the output
    has not been stored and its temporary file is removed. A failed sync of a folder
    leaves its outputs in place and counts against each of them.
    """
    files = [pending.temporary for pending in pendings]
    errors = [_attempt(file.sync_file) or _attempt(file.rename) for file in files]
    folders: dict[str, JobError | None] = {}
    for i, file in enumerate(files):
        if errors[i] is not None:
            file.remove()
        else:
            folder = file.path.rpartition("/")[0]
            if folder not in folders:
                folders[folder] = _attempt(file.sync_folder)
            errors[i] = folders[folder]
        file.close()
    return errors


def probe(out: Path, roots: Sequence[Path] = ()) -> None:
    """Write, sync and remove a small file, or raise StorageUnavailable.

    So does one of `roots` that is gone, where sources lie.
    """
    for root in roots:
        if not root.is_dir():
            raise StorageUnavailable(f"the source folder {root} is gone")
    try:
        folder = os.open(out, _FOLDER)
    except OSError as error:
        raise _storage_error(error) from error
    file = Temporary.create(f"{out}/probe", folder, sync=True)
    try:
        rest = bytes(_PROBE_BYTES)
        while rest:  # a disk that is nearly full takes a part, without an error
            rest = rest[os.write(file.file, rest) :]
        file.sync_file()
    except OSError as error:
        raise _storage_error(error) from error
    finally:
        file.remove()
        file.close()


def remove_stale_temporaries(out: Path, *, age: float = STALE_AGE) -> int:
    """Remove what writers that died left under `out`; return how many files.

    Hidden folders are left alone: outputs never lie in them.
    """
    removed = 0
    oldest = time.time() - age
    for entry in _temporaries(out):
        with suppress(OSError):  # somebody else was faster, or may not
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                Path(entry.path).unlink()
                removed += 1
    return removed


def _temporaries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    yield from _temporaries(entry.path)
            elif entry.name.startswith(TEMPORARY_PREFIX):
                yield entry


def _temporary_name() -> str:
    return TEMPORARY_PREFIX + os.urandom(8).hex()


def _open_folder(out: str, folders: Sequence[str], *, sync: bool) -> int:
    """Open the folder `folders` under `out`, making what is missing."""
    try:
        current = os.open(out, _FOLDER)
    except OSError as error:
        raise _storage_error(error) from error
    for folder in folders:
        try:
            inner = _enter(current, folder, sync=sync)
        except OSError as error:
            if error.errno in _JOBS_FAULT:
                raise InvalidJob(
                    f"id leads through {folder!r}, which is no folder of {out}"
                ) from error
            raise _storage_error(error) from error
        finally:
            os.close(current)
        current = inner
    return current


def _enter(parent: int, folder: str, *, sync: bool) -> int:
    flags = _FOLDER | os.O_NOFOLLOW
    try:
        return os.open(folder, flags, dir_fd=parent)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another converter was faster
            os.mkdir(folder, dir_fd=parent)
        if sync:
            os.fsync(parent)
        return os.open(folder, flags, dir_fd=parent)


def _attempt(action: Callable[[], None]) -> JobError | None:
    try:
        action()
    except OSError as error:
        return _storage_error(error)
    return None


def _is_forbidden(error: StorageUnavailable) -> bool:
    number = getattr(error.__cause__, "errno", None)
    return number in (errno.EACCES, errno.EPERM)


def _storage_error(error: OSError) -> JobError:
    if error.errno == errno.EISDIR:
        return InvalidJob(f"the output's name is taken by a folder: {error}")
    return StorageUnavailable(f"the output folder can't be written to: {error}")

"""Writing an output so that it is there whole, and still there after a crash.

An output is written to a temporary file in its own folder, synced, renamed over its
name, and the folder synced. Called by the converters (`Place` and `Pending`) and by the
supervisor (`probe`, `remove_stale_temporaries`). Folders are walked by descriptor and
never through a symbolic link, so that no id leads out of the output folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bwpool.errors import JobError, StorageUnavailable
from bwpool.storage.mounts import mount_gone
from bwpool.storage.source import check_root
from bwpool.storage.trial import (
    CREATE,
    FOLDER,
    TEMPORARY_PREFIX,
    OutputFolder,
    blame,
    opened,
    temporary_name,
    try_storing,
)

STALE_AGE = 3600.0
"""Seconds since a temporary file was last written to, after which its writer is taken
for dead. Other supervisors may share the folder, even from other hosts, so neither the
name nor a process id can tell; no conversion pauses for an hour."""

_PROBE_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Temporary:
    """A temporary file, by descriptors, and the name that it shall get."""

    out: OutputFolder
    path: str
    """Where it shall be."""
    name: str
    """Its own name, in the same folder."""
    file: int
    folder: int

    @classmethod
    def create(cls, out: OutputFolder, path: str, folder: int) -> Temporary:
        """Create it in `folder`, whose descriptor it takes over."""
        name = temporary_name()
        try:
            file = os.open(name, CREATE, 0o666, dir_fd=folder)
        except OSError as error:
            try:
                raise blame("create it", error, out, folder, 0) from error
            finally:
                os.close(folder)
        return cls(out, path, name, file, folder)

    def sync_file(self) -> None:
        """Have its content on the disk."""
        if self.out.sync:
            os.fsync(self.file)

    def rename(self) -> None:
        """Give it its name."""
        name = self.path.rpartition("/")[2]
        os.rename(self.name, name, src_dir_fd=self.folder, dst_dir_fd=self.folder)

    def sync_folder(self) -> None:
        """Have its name on the disk."""
        if self.out.sync:
            os.fsync(self.folder)

    def blame(self, step: str, error: OSError, size: int) -> JobError:
        """Say whose fault it is that a step failed, once its own room is free again."""
        with suppress(OSError):
            os.ftruncate(self.file, 0)
        return blame(step, error, self.out, self.folder, size)

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

    def __init__(self, out: str, name: str, *, sync: bool, mount: str = "") -> None:
        """Make the temporary file, and the folders of `name`, relative to `out`.

        `mount` is the mount point that `out` lay on at the start, if any. Raises
        InvalidJob when `name` leads through something that is no folder,
        ConversionFailed when outputs can be stored, but not there, StorageUnavailable
        when they can't.
        """
        *folders, _ = name.split("/")
        self.size = 0
        place = OutputFolder(out, sync, mount)
        folder = _open_folder(place, folders)
        self._temporary = Temporary.create(place, f"{out}/{name}", folder)

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
            size = max(self.size, position + len(rest))
            raise self._temporary.blame("write it", error, size) from error
        self.size = max(self.size, position)

    def cut(self, size: int) -> None:
        """Drop what lies beyond the first `size` bytes."""
        try:
            os.ftruncate(self._temporary.file, size)
        except OSError as error:
            raise self._temporary.blame("cut it", error, self.size) from error
        self.size = size

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

        Raises InvalidJob, ConversionFailed or StorageUnavailable, after removing the
        temporary file.
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
    errors = [_put_in_place(pending) for pending in pendings]
    folders: dict[str, JobError | None] = {}
    for i, pending in enumerate(pendings):
        if errors[i] is None:
            folder = pending.path.rpartition("/")[0]
            if folder not in folders:
                folders[folder] = _attempt(pending, "sync its folder")
            errors[i] = folders[folder]
        pending.temporary.close()
    return errors


def _put_in_place(pending: Pending) -> JobError | None:
    error = _attempt(pending, "sync it") or _attempt(pending, "rename it")
    if error is not None:
        pending.temporary.remove()
    return error


def _attempt(pending: Pending, step: str) -> JobError | None:
    try:
        _COMMIT[step](pending.temporary)
    except OSError as error:
        if step == "sync its folder":  # the output is there, and has to stay whole
            file = pending.temporary
            return blame(step, error, file.out, file.folder, pending.size)
        return pending.temporary.blame(step, error, pending.size)
    return None


_COMMIT: dict[str, Callable[[Temporary], None]] = {
    "sync it": Temporary.sync_file,
    "rename it": Temporary.rename,
    "sync its folder": Temporary.sync_folder,
}
"""The steps of a commit, in order, as an error names them."""


def probe(out: Path, roots: Sequence[Path] = (), mounts: Sequence[str] = ()) -> None:
    """Store and remove a small file, or raise StorageUnavailable.

    So does one of `roots`, where sources lie, that is gone or can't be read, and one of
    `mounts` that `out` or a root lies on and that is no mount point any more.
    """
    for root in roots:
        check_root(root, mounts)
    if (mount := mount_gone(out, mounts)) is not None:
        raise StorageUnavailable(f"the output folder's storage is not mounted: {mount}")
    with opened(OutputFolder(str(out), sync=True)) as folder:
        try:
            try_storing(folder, _PROBE_BYTES, sync=True)
        except OSError as error:
            raise StorageUnavailable(
                f"the output folder can't be written to: {error}"
            ) from error


def remove_stale_temporaries(out: Path, *, age: float = STALE_AGE) -> int:
    """Remove what writers that died left under `out`; return how many files.

    Ages go by the clock of whoever keeps the files, not by ours. Hidden folders are
    left alone: outputs never lie in them.
    """
    removed = 0
    clocks: dict[int, float] = {}
    for entry in _temporaries(out):
        with suppress(OSError):  # somebody else was faster, or may not
            status = entry.stat(follow_symlinks=False)
            if status.st_dev not in clocks:
                clocks[status.st_dev] = _time_in(Path(entry.path).parent)
            if status.st_mtime < clocks[status.st_dev] - age:
                Path(entry.path).unlink()
                removed += 1
    return removed


def _time_in(folder: Path) -> float:
    """Ask a file system for its time: that of a file just written there."""
    path = folder / temporary_name()
    file = os.open(path, CREATE, 0o600)
    try:
        os.write(file, b"\0")
        return os.fstat(file).st_mtime
    finally:
        path.unlink()
        os.close(file)


def remove_temporaries(out: Path, mark: str) -> None:
    """Remove all temporary files with that mark under `out`, whatever their age.

    Only for who knows that nobody writes to them any more.
    """
    for entry in _temporaries(out):
        if entry.name.startswith(f"{TEMPORARY_PREFIX}{mark}-"):
            with suppress(OSError):  # as with stale ones
                Path(entry.path).unlink()


def _temporaries(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith("."):
                    yield from _temporaries(entry.path)
            elif entry.name.startswith(TEMPORARY_PREFIX):
                yield entry


def _open_folder(out: OutputFolder, folders: Sequence[str]) -> int:
    """Open the folder `folders` under `out`, making what is missing."""
    current = out.open()
    for folder in folders:
        try:
            inner = _enter(current, folder, sync=out.sync)
        except OSError as error:
            raise blame("make its folder", error, out, None, 0) from error
        finally:
            os.close(current)
        current = inner
    return current


def _enter(parent: int, folder: str, *, sync: bool) -> int:
    flags = FOLDER | os.O_NOFOLLOW
    try:
        return os.open(folder, flags, dir_fd=parent)
    except FileNotFoundError:
        with suppress(FileExistsError):  # another converter was faster
            os.mkdir(folder, dir_fd=parent)
        if sync:
            os.fsync(parent)
        return os.open(folder, flags, dir_fd=parent)

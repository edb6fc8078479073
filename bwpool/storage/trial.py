"""Whose fault it is that an output can't be stored: its own, or the storage's.

What failed is done again with a file of no particular name: in the same folder, of as
many bytes, the rename included. Where that works, it was this one output that could not
be stored, and its job is charged; where it doesn't, so may all the others. Called by
`output`; the supervisor's probe takes the same steps.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from bwpool.errors import ConversionFailed, InvalidJob, JobError, StorageUnavailable
from bwpool.storage.mounts import lies_on

TEMPORARY_PREFIX = ".bwpool-"
_marks: list[str] = []
"""What follows it in the names that this process gives: none, or one."""

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

_BLOCK_BYTES = 1 << 20
"""How much is written at once, of bytes that no file system can compress away."""

_NO_PLACE = {
    "make its folder": (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG),
    "rename it": (errno.EISDIR,),
}
"""By step, what says that the id leads where no output can be, now or later."""


@dataclass(frozen=True, slots=True)
class OutputFolder:
    """The folder that all outputs go to."""

    path: str
    sync: bool
    """Whether an output must be durable before it counts as stored."""
    mount: str = ""
    """The mount point that it lay on at the start, if any: it must still be one."""

    def open(self) -> int:
        """Return a descriptor; raises StorageUnavailable where the folder is gone."""
        try:
            folder = os.open(self.path, FOLDER)
        except OSError as error:
            raise StorageUnavailable(
                f"the output folder can't be opened: {error}"
            ) from error
        # The name may lead under the mount point; what was opened can't change.
        if self.mount and not lies_on(folder, self.mount):
            os.close(folder)
            raise StorageUnavailable(
                f"the output folder's storage is not mounted at {self.mount}"
            )
        return folder


def blame(
    step: str, error: OSError, out: OutputFolder, folder: int | None, size: int
) -> JobError:
    """Say whose fault it is that `step` of storing an output of `size` bytes failed.

    `folder` is the output's own, if it could be opened. A disk without room is nobody's
    fault, since less might fit.
    """
    reason = f"the output can't be stored: can't {step}: {error}"
    if error.errno in _NO_PLACE.get(step, ()):
        return InvalidJob(f"id names no place for an output: can't {step}: {error}")
    if error.errno != errno.ENOSPC and (
        (folder is not None and _passes(folder, size, sync=out.sync))
        or _passes_at(out, size)
    ):
        return ConversionFailed(f"{reason}; others can be stored")
    return StorageUnavailable(reason)


def try_storing(folder: int, size: int, *, sync: bool) -> None:
    """Take every step of storing an output in an open folder, and remove it.

    Raises OSError.
    """
    name, final = temporary_name(), temporary_name()
    file = os.open(name, CREATE, 0o666, dir_fd=folder)
    try:
        for block in _blocks(size):
            rest = block
            while rest:  # a disk that is nearly full takes a part, without an error
                rest = rest[os.write(file, rest) :]
        if sync:
            os.fsync(file)
        os.rename(name, final, src_dir_fd=folder, dst_dir_fd=folder)
        name = final
        if sync:
            os.fsync(folder)
    finally:
        with suppress(OSError):
            os.unlink(name, dir_fd=folder)
        os.close(file)


def mark_temporaries(mark: str) -> None:
    """Have the names of this process's temporary files tell whose they are."""
    _marks[:] = [mark]


def temporary_name() -> str:
    """Return a name that no other file has."""
    return TEMPORARY_PREFIX + "-".join([*_marks, os.urandom(8).hex()])


def _blocks(size: int) -> Iterator[memoryview]:
    block = memoryview(os.urandom(min(size, _BLOCK_BYTES)))
    for start in range(0, size, _BLOCK_BYTES):
        yield block[: size - start]


def _passes(folder: int, size: int, *, sync: bool) -> bool:
    try:
        try_storing(folder, size, sync=sync)
    except OSError:
        return False
    return True


def _passes_at(out: OutputFolder, size: int) -> bool:
    try:
        with opened(out) as folder:
            return _passes(folder, size, sync=out.sync)
    except StorageUnavailable:
        return False


@contextmanager
def opened(out: OutputFolder) -> Iterator[int]:
    """Open the output folder for a while; raises StorageUnavailable."""
    folder = out.open()
    try:
        yield folder
    finally:
        os.close(folder)

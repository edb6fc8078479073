"""Whether sources beside one that can't be read can be: a bad sector, or a dead disk.

Called by `source`, for errors that may mean either.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

from bwpool.storage.mounts import is_below

AWAY = frozenset(
    [
        *(errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV, errno.EREMOTEIO),
    ]
)
"""What reading fails with where a storage is out of reach."""

_PERHAPS_ONE_FILE = (errno.EIO, errno.ESTALE)
"""Of these, what a single damaged file fails with as well. All others would only keep
whoever asks again waiting, for as long as the first time."""

_MAX_ENTRIES = 64
"""How many names of a folder are looked at."""

_MAX_TRIES = 4
"""How many files are read, since each may keep a dying disk busy for seconds."""

_MAX_LEVELS = 3
"""How many folders up to go where no root ends the way."""

_READ_BYTES = 4096


def can_others_be_read(path: str, number: int | None, roots: Sequence[Path]) -> bool:
    """Whether another file under the same root can be read, or else another part of it.

    `number` is what reading `path` failed with. Looks at what lies nearest, and what
    the system remembers of a file's content does not count.
    """
    if number not in _PERHAPS_ONE_FILE:
        return False
    tries = islice(_near(path, _top(path, roots)), _MAX_TRIES)
    return any(_can_be_read(other) for other in tries) or _can_be_read(path)


def _top(path: str, roots: Sequence[Path]) -> Path:
    """Return the folder above which nothing tells about `path`."""
    for root in roots:
        if is_below(path, str(root.absolute())):
            return root.absolute()
    return [*Path(path).parents][:_MAX_LEVELS][-1]


def _near(path: str, top: Path) -> Iterator[str]:
    """Yield files near `path`: of its folder, of folders in that, and so on up."""
    seen = {path}
    for folder in Path(path).parents:
        names = _entries(folder)
        inner = (entry for entry in names if _is_folder(entry))
        deeper = (entry for each in inner for entry in _entries(each))
        for entry in chain(names, deeper):
            if entry.path not in seen and _is_file(entry):
                seen.add(entry.path)
                yield entry.path
        if folder == top:
            return


def _entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        return list(islice(entries, _MAX_ENTRIES))
    return []


def _is_file(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_file(follow_symlinks=False) and entry.stat().st_size > 0
    return False


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir(follow_symlinks=False)
    return False


def _can_be_read(path: str) -> bool:
    """Whether the beginning or the end of a file can be read from its storage."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if hasattr(os, "posix_fadvise"):  # read anew what is in memory
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        end = max(os.fstat(file).st_size - _READ_BYTES, 0)
        return any(_read(file, at) for at in dict.fromkeys((0, end)))
    finally:
        os.close(file)


def _read(file: int, at: int) -> bool:
    try:
        return bool(os.pread(file, _READ_BYTES, at))
    except OSError:
        return False

"""The folder in which a backfill, or a server of our own, keeps its state.

Owns who may look into it, how its files are opened, and its lock. Called by `embedded`
and `backfill`. Everything goes through the folder's descriptor and follows no link, so
nobody can lead us to another file. Knows nothing of what is kept there.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import structlog

from bwpool.errors import ConfigError

LOCK = "lock"
"""The entry that is locked while somebody uses the folder."""

_OTHERS = 0o077
"""The permission bits of everybody but the owner."""

log = structlog.get_logger()


class StateFolder:
    """An open folder that belongs to us and that nobody else may enter.

    It is made with mode 0700, or set to that; each entry is ours and no link. Whoever
    opens it closes it.
    """

    path: Path
    """Where it was found, for messages; the name may lead elsewhere by now."""
    descriptor: int
    """The open folder, for `dir_fd`."""
    is_private: bool
    """False where the file system keeps no owners or modes: keep secrets elsewhere."""

    def __init__(self, path: Path) -> None:
        """Open the folder, made if missing; ConfigError where that is not safe."""
        self.path = path
        self.is_private = False
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
            self.descriptor = os.open(path, flags)
        except OSError as error:
            if path.is_symlink():
                raise self._refusal("it is a link") from None
            raise self._unusable(error) from None
        try:
            self.is_private = self._shut_others_out()
            self._check_entries()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise self._unusable(error) from None
            raise
        if not self.is_private:
            log.warning(
                "state_folder.not_private",
                folder=str(path),
                reason="its file system does not keep owners or modes",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder; a lock and open files stay what they are."""
        os.close(self.descriptor)

    def open_file(self, name: str, mode: str = "rb") -> IO[bytes]:
        """Open an entry in a binary mode; one that is made has mode 0600 at once.

        Raises FileNotFoundError and FileExistsError as the built-in `open` does, and
        ConfigError for everything else that is wrong with it.
        """
        try:
            file = open(name, mode, opener=self._open)  # noqa: SIM115 - returned
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise self._unusable(error, name) from None
        return cast("IO[bytes]", file)

    def read(self, name: str) -> bytes | None:
        """Return what an entry holds, or None where there is none."""
        try:
            with self.open_file(name) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def replace(self, name: str, data: bytes) -> None:
        """Put a new file in an entry's place, whole or not at all."""
        new = f"{name}.new"
        self.remove(new)  # of somebody who was killed here
        with self.open_file(new, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def remove(self, name: str) -> None:
        """Remove an entry if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def names(self) -> list[str]:
        """List the entries."""
        with os.scandir(self.descriptor) as entries:
            return [entry.name for entry in entries]

    def provide(self, name: str) -> Path:
        """Return the path of an entry, made as an empty file if missing.

        For libraries that open files by name alone, as SQLite does.
        """
        self.open_file(name, "ab").close()
        return self.path / name

    async def lock(self, patience: float = 0.0, name: str = LOCK) -> IO[bytes]:
        """Take the folder's lock; it is held until the returned file is closed.

        Another `name` is another lock, for somebody who shares the folder.
        A process left behind by a holder that has ended is waited for, up to `patience`
        seconds. Raises ConfigError naming the holder.
        """
        lock = self.open_file(name, "a+b")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                holder = lock.read().decode(errors="replace").strip()
                is_over = _is_alive(holder) or loop.time() > deadline
                if not isinstance(error, BlockingIOError) or is_over:
                    lock.close()
                    raise self._not_locked(holder, error) from None
                await asyncio.sleep(0.05)  # nothing but the lock tells
            else:
                lock.truncate(0)
                lock.write(f"{os.getpid()}\n".encode())
                lock.flush()
                return lock

    def is_locked(self) -> bool:
        """Tell whether somebody holds the lock."""
        with self.open_file(LOCK, "a+b") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _open(self, name: str, flags: int) -> int:
        """Open an entry for the built-in `open`; empty it only once it is checked."""
        descriptor = os.open(
            name, flags & ~os.O_TRUNC | os.O_NOFOLLOW, 0o600, dir_fd=self.descriptor
        )
        try:
            self._check_names(name, os.fstat(descriptor))
            if flags & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check_names(self, name: str, status: os.stat_result) -> None:
        """Refuse a file that has another name, under which it may be precious."""
        if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
            raise self._refusal(f"{name} in it has a second name elsewhere")

    def _shut_others_out(self) -> bool:
        """See that nobody else can enter; return whether the file system has that."""
        status = os.fstat(self.descriptor)
        if status.st_uid != os.geteuid():
            if self._keeps_owners():
                raise self._refusal(f"it belongs to another user ({status.st_uid})")
            return False
        if status.st_mode & _OTHERS:
            # Made by an older version under a loose umask, or where modes are fixed.
            with contextlib.suppress(PermissionError):
                os.fchmod(self.descriptor, 0o700)
        return not os.fstat(self.descriptor).st_mode & _OTHERS

    def _keeps_owners(self) -> bool:
        """Tell whether a file that we make here belongs to us."""
        name = f"owner-{os.urandom(8).hex()}"
        with self.open_file(name, "xb") as file:
            self.remove(name)
            return os.fstat(file.fileno()).st_uid == os.geteuid()

    def _check_entries(self) -> None:
        """Refuse what somebody else may have put here before others were shut out."""
        for name in self.names():
            try:
                status = os.stat(name, dir_fd=self.descriptor, follow_symlinks=False)
            except FileNotFoundError:
                continue  # its user has removed it meanwhile
            if stat.S_ISLNK(status.st_mode):
                raise self._refusal(f"{name} in it is a link")
            if self.is_private and status.st_uid != os.geteuid():
                raise self._refusal(
                    f"{name} in it belongs to another user ({status.st_uid})"
                )

    def _refusal(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.path} is not safe to keep a store in: {reason}; "
            "move it away, or choose another folder"
        )

    def _unusable(self, error: OSError, name: str = "") -> ConfigError:
        if error.errno == errno.ELOOP:
            return self._refusal(f"{name} in it is a link")
        return ConfigError(
            f"can't keep a store in {self.path}: {name or 'it'}: {error.strerror}"
        )

    def _not_locked(self, holder: str, error: OSError) -> ConfigError:
        if not isinstance(error, BlockingIOError):
            return ConfigError(f"can't lock the store in {self.path}: {error.strerror}")
        return ConfigError(
            f"the store in {self.path} is in use by another bwpool (pid "
            f"{holder or '?'}): wait for it, stop it, or choose another folder"
        )


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True

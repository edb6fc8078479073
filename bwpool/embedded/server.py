"""The server's process, from its start to its end, in a folder that is ours alone.

Called by the command line; closed by whoever starts it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from bwpool import guard
from bwpool.embedded.access import (
    USER,
    Access,
    Configuration,
    endpoint_at,
    read_password,
)
from bwpool.embedded.binary import Binary
from bwpool.embedded.log import NAME as LOG_NAME
from bwpool.embedded.log import ServerLog
from bwpool.errors import QueueError
from bwpool.queue.contexts import Endpoint
from bwpool.state_folder import StateFolder

START_TIMEOUT = 60.0
"""Seconds that a server may take to recover its store."""
LOCK_TIMEOUT = guard.GRACE + 5.0
"""Seconds that the server of a bwpool which is gone may take to end."""

_FRESH = Access()


class EmbeddedServer:
    """A running nats-server with JetStream on a loopback port, behind a password.

    It runs in a session of its own and ends with this process, even if that is
    killed. Whoever starts it closes it, in the same event loop.
    """

    store: Path
    """The folder with the server's streams, log, password and lock."""
    endpoint: Endpoint
    """How clients connect, the password included."""
    password_file: Path
    """The file with the password."""
    pid: int
    """The server's process id."""
    port: int
    """Where it listens, on 127.0.0.1."""

    def __init__(
        self,
        store: Path,
        configuration: Configuration,
        process: asyncio.subprocess.Process,
    ) -> None:
        self.store = store
        self.password_file = configuration.password_file
        self._password = configuration.password
        self._process = process

    @classmethod
    async def start(
        cls, store: Path, *, access: Access = _FRESH, binary: str | None = None
    ) -> Self:
        """Start a server on `store`, made if missing; return once it is ready.

        Raises ConfigError where there is no nats-server, where its port is taken, or
        where the store is in use, damaged, not ours alone or no folder; QueueError
        where the server doesn't get ready.
        """
        program = await Binary.find(binary)
        with StateFolder(store) as folder:
            with await folder.lock(LOCK_TIMEOUT) as lock:
                log = ServerLog(folder)
                with log.file:
                    _clear(folder)
                    configuration = access.configure(folder, program.version)
                    # The lock's descriptor goes on to the server: so long as it runs,
                    # and no longer, the store is taken.
                    process = await asyncio.create_subprocess_exec(
                        *(sys.executable, "-I", "-S", guard.__file__),
                        *(str(folder.descriptor), program.path),
                        *("-c", str(configuration.file)),
                        stdin=asyncio.subprocess.PIPE,
                        stdout=log.file,
                        stderr=log.file,
                        pass_fds=(lock.fileno(), folder.descriptor),
                        start_new_session=True,
                    )
            server = cls(store, configuration, process)
            try:
                await server._get_ready(folder, log)
                access.keep(folder, server.port)
            except BaseException:
                await server.close()
                raise
        return server

    @property
    def url(self) -> str:
        """Where clients connect, without the password."""
        return str(self.endpoint)

    @property
    def url_with_password(self) -> str:
        """All that a client needs, in one word; not for logs."""
        return self.url.replace("//", f"//{USER}:{self._password}@")

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

    async def _get_ready(self, folder: StateFolder, log: ServerLog) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                self.pid, self.port = await self._wait_for_ports(folder)
                await _expect_jetstream(self.port)
        except TimeoutError:
            raise QueueError(
                f"the embedded server is not ready after {START_TIMEOUT:g} s: "
                f"{self.store / LOG_NAME} says what it does"
            ) from None
        except OSError as error:
            raise log.explain_end() from error
        log.check()
        self.endpoint = endpoint_at(self.port, self._password)

    async def _wait_for_ports(self, folder: StateFolder) -> tuple[int, int]:
        """Wait until the server tells its port; return process id and port."""
        while self._process.returncode is None:
            if (found := _read_ports(folder)) is not None:
                return found
            await asyncio.sleep(0.01)  # nothing but the file tells
        raise ProcessLookupError


def find_running(store: Path) -> Endpoint | None:
    """Return how to connect to the server that runs on `store`, if one does."""
    with StateFolder(store) as folder:
        if not folder.is_locked():
            return None
        ports, password = _read_ports(folder), read_password(folder)
        if ports is None or password is None:
            return None
        return endpoint_at(ports[1], password)


def _read_ports(folder: StateFolder) -> tuple[int, int] | None:
    """Read a server's process id and port from the file that it leaves for that."""
    for name in filter(_tells_ports, folder.names()):
        # Not yet all there: look again.
        with contextlib.suppress(ValueError, LookupError, TypeError):
            url: str = json.loads(folder.read(name) or b"")["nats"][0]
            pid = name.removesuffix(".ports").rpartition("_")[2]
            return int(pid), int(url.rpartition(":")[2])
    return None


def _tells_ports(name: str) -> bool:
    return name.endswith(".ports")


def _clear(folder: StateFolder) -> None:
    """Remove what a killed server left behind."""
    for stale in filter(_tells_ports, folder.names()):
        folder.remove(stale)


async def _expect_jetstream(port: int) -> None:
    """Read the server's greeting; raise OSError unless JetStream is in it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        greeting = await reader.readline()
    finally:
        writer.close()
    if b'"jetstream":true' not in greeting:
        raise ConnectionError(greeting)

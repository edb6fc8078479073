"""Where a server of our own listens, and the password without which nobody gets in.

Any user of the machine can reach a loopback port. So each server has a password, in a
file that only we can read, and in its configuration, which is another.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bwpool.errors import ConfigError
from bwpool.queue.contexts import Credentials, Endpoint
from bwpool.state_folder import StateFolder

USER = "bwpool"
"""The name that belongs to the password."""
PASSWORD = "password"  # noqa: S105 - the file's name
"""The file with the password, and nothing else."""
PORT = "port"
"""The file with the port to listen on again."""

_CONFIGURATION = "nats-server.conf"
_CONFIG = """\
# Written by bwpool at every start; a server's folder is its working folder.
listen: "127.0.0.1:%d"
ports_file_dir: "."
authorization: { user: "%s", password: "%s", timeout: 30 }
jetstream: { store_dir: ".", %s }
"""
_SYNC = 'sync_interval: "10s"'
"""A power cut costs ten seconds of confirmed messages at most, not two minutes."""
_ANY_PORT = -1


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a server is started with."""

    file: Path
    """For the server, from its folder."""
    password: str = field(repr=False)
    password_file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Which port and password a server gets."""

    port: int | None = None
    """The port to listen on; None: any that is free."""
    is_kept: bool = False
    """Whether the password, and the port unless one is given, are those of before."""

    def __post_init__(self) -> None:
        """Raise ConfigError for what is no port."""
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: a port is a number from 1 to 65535")

    def configure(self, folder: StateFolder, version: tuple[int, int]) -> Configuration:
        """Write password and configuration into files of their own."""
        port = self.port or (self.is_kept and _kept_port(folder)) or _ANY_PORT
        with _secrets_of(folder) as place:
            password = (self.is_kept and _password_in(place)) or _new_password()
            sync = _SYNC if version >= (2, 10) else ""
            text = _CONFIG % (port, USER, password, sync)
            place.replace(PASSWORD, password.encode())
            place.replace(_CONFIGURATION, text.encode())
        # In its own folder the server goes by a name that nobody can have changed.
        base = Path() if place is folder else place.path
        return Configuration(base / _CONFIGURATION, password, place.path / PASSWORD)

    def keep(self, folder: StateFolder, port: int) -> None:
        """Remember the port that the server listens on, if it is to be kept."""
        if self.is_kept:
            folder.replace(PORT, f"{port}\n".encode())


def read_password(folder: StateFolder) -> str | None:
    """Return the password of the server in this folder, if there was ever one."""
    with _secrets_of(folder) as place:
        return _password_in(place)


def endpoint_at(port: int, password: str) -> Endpoint:
    """Return what clients on this machine need to connect."""
    return Endpoint(
        urls=(f"nats://127.0.0.1:{port}",),
        credentials=Credentials(user=USER, password=password),
    )


def _password_in(place: StateFolder) -> str | None:
    found = (place.read(PASSWORD) or b"").strip().decode(errors="replace")
    # Anything else could mean something in the configuration.
    return found if re.fullmatch(r"[\w-]{16,}", found, re.ASCII) else None


def _new_password() -> str:
    return secrets.token_urlsafe(24)


def _kept_port(folder: StateFolder) -> int | None:
    found = (folder.read(PORT) or b"").strip()
    return int(found) if re.fullmatch(rb"[1-9]\d{0,4}", found) else None


@contextmanager
def _secrets_of(folder: StateFolder) -> Iterator[StateFolder]:
    """Open the folder for a state folder's secrets: itself, where it keeps others out.

    Raises ConfigError where no folder does.
    """
    if folder.is_private:
        yield folder
        return
    home = _private_home(os.environ)
    name = hashlib.sha256(os.fsencode(folder.path.resolve())).hexdigest()[:16]
    with StateFolder(home) as ours, StateFolder(home / name) as place:
        if not (ours.is_private and place.is_private):
            raise ConfigError(
                f"neither {folder.path} nor {home} keeps other users out: set "
                "XDG_RUNTIME_DIR to a folder that does"
            )
        yield place


def _private_home(environ: Mapping[str, str]) -> Path:
    """Return where a user's own small files go, by the XDG specification."""
    state = environ.get("XDG_STATE_HOME") or "~/.local/state"
    base = environ.get("XDG_RUNTIME_DIR") or state
    return Path(base).expanduser().absolute() / "bwpool"

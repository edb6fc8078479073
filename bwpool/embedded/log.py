"""What a server of our own says in its log, and what that means for its user."""

from __future__ import annotations

import re
import shlex
from typing import IO

from bwpool.errors import ConfigError
from bwpool.state_folder import StateFolder

NAME = "nats-server.log"
MAX_BYTES = 8_000_000

_DAMAGED = re.compile(
    r"(?i)metafile.*(checksum|missing|error)|missing.*metafile|stopping unsupported"
)
"""How the server says that it leaves out a stream it can't read."""
_CONSUMER_DAMAGED = re.compile(
    r"(?i)error adding consumer '\$G > (?P<stream>[^ ]+) > (?P<consumer>[^ ']+)'"
)
"""How it says so of a consumer."""
_TAKEN = re.compile(r":(\d+): bind: address already in use")


class ServerLog:
    """The log in a state folder, from one start of the server on."""

    file: IO[bytes]
    """Where the server writes; to be closed once it does."""

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder
        self.file = folder.open_file(NAME, "ab")
        if self.file.tell() > MAX_BYTES:
            self.file.truncate(0)
        self._start = self.file.seek(0, 2)

    def lines(self) -> list[str]:
        """Return what the server has said since."""
        with self._folder.open_file(NAME) as file:
            file.seek(self._start)
            return file.read().decode(errors="replace").splitlines()

    def check(self) -> None:
        """Raise ConfigError if the server says that it leaves something out."""
        store = self._folder.path
        for line in self.lines():
            if found := _CONSUMER_DAMAGED.search(line):
                stream, consumer = found["stream"], found["consumer"]
                state = store / "jetstream/$G/streams" / stream / "obs" / consumer
                raise ConfigError(
                    f"the store in {store} is damaged: move {shlex.quote(str(state))} "
                    "away and start again; every job still stored is then tried as if "
                    f"it were new: {_strip(line)}"
                )
            if _DAMAGED.search(line):
                raise ConfigError(
                    f"the store in {store} is damaged, move it away and start again: "
                    f"{_strip(line)}"
                )

    def explain_end(self) -> ConfigError:
        """Say why the server ended at once, in its own words."""
        lines = self.lines()
        reasons = [line for line in lines if "[FTL]" in line] or lines[-1:] or ["?"]
        if taken := _TAKEN.search(reasons[-1]):
            return ConfigError(
                f"port {taken[1]} is taken: stop what listens there, or choose another "
                "with bwpool dev --port N"
            )
        return ConfigError(
            f"the embedded server can't use {self._folder.path}: {_strip(reasons[-1])}"
        )


def _strip(line: str) -> str:
    """Cut process, time and level off a line."""
    return re.sub(r"^\[\d+\] [\d/]+ [\d:.]+ \[\w+\]\s*|^nats-server: ", "", line)

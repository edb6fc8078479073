"""The run's name, kept in the state folder until all is accounted for.

It marks what a run may leave behind: temporary files in OUT, and a queue of its own on
a shared server. Called by the command line, which holds the folder's lock.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Self

import orjson

from bwpool.errors import ConfigError
from bwpool.state_folder import StateFolder

NAME = "run"
"""The file's, in the state folder."""


@dataclass(slots=True)
class Mark:
    """The name of a run that goes on until its end, however often it is started."""

    folder: StateFolder
    run: str
    is_resumed: bool
    """Whether an earlier command has begun it."""
    queues: list[str] = field(default_factory=list)
    """The shared queues that it has one of its own beside."""

    @classmethod
    def read(cls, folder: StateFolder) -> Self:
        """Find the run that goes on, or begin one, durably; raises ConfigError."""
        data = folder.read(NAME)
        if data:
            try:
                kept = orjson.loads(data)
                return cls(folder, kept["run"], True, list(kept["queues"]))  # noqa: FBT003
            except (ValueError, LookupError, TypeError):
                raise ConfigError(
                    f"{folder.path / NAME} is damaged: remove it, and what it named "
                    "may stay behind"
                ) from None
        mark = cls(folder, uuid.uuid4().hex[:12], is_resumed=False)
        mark._keep()
        return mark

    def add_queue(self, queue: str) -> None:
        """Note a queue before it is made."""
        if queue not in self.queues:
            self.queues.append(queue)
            self._keep()

    def drop_queue(self, queue: str) -> None:
        """Forget a queue that is removed."""
        self.queues.remove(queue)
        self._keep()

    def end(self) -> None:
        """Forget the run, unless it has left a queue on another server."""
        if not self.queues:
            self.folder.remove(NAME)

    def _keep(self) -> None:
        kept = {"run": self.run, "queues": self.queues}
        self.folder.replace(NAME, orjson.dumps(kept))

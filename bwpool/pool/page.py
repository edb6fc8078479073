"""The status page: a few shared bytes in which a converter says what it is doing.

The converter writes it at the beginning and the end of each stage; the supervisor
reads it to enforce the timeout and, after a death, to learn which job was under way
and where. Reading costs no message, so a short job pays nothing for its timeout.
"""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass

from bwpool.pool.wear import peak_memory

_STARTED, _MEMORY, _TAG, _REVOKED, _BEGUN = 0, 1, 2, 3, 4
"""Where the numbers are, of eight bytes each."""

_STAGE_BYTES = 24
_STAGE = slice(40, 40 + _STAGE_BYTES)

PAGE_BYTES = 64
"""The size of the file behind a page."""


@dataclass(frozen=True, slots=True)
class Doing:
    """What a converter was doing when its page was read."""

    tag: int
    """The order under way; 0 between orders."""
    begun: int
    """The last order that was begun, though it may be answered later."""
    started: float
    """When it began, by `time.monotonic`, which all processes share."""
    max_rss_bytes: int
    stage: str


class Page:
    """One converter's status page, over an open file of `PAGE_BYTES`.

    The other side may look at any moment. So each number is stored whole, by a single
    assignment; `struct.pack_into` would show a zero in between.
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._bytes = memoryview(self._map)
        self._numbers = self._bytes.cast("Q")
        self._times = self._bytes.cast("d")

    def begin(self, tag: int) -> None:
        """Say that the order `tag` is under way."""
        # The tag is written last: whoever sees it sees its own starting time.
        self._times[_STARTED] = time.monotonic()
        self._numbers[_BEGUN] = tag
        self.enter("")
        self._numbers[_TAG] = tag

    def enter(self, stage: str) -> None:
        """Say which stage the order under way has reached."""
        self._numbers[_MEMORY] = peak_memory()
        self._bytes[_STAGE] = stage.encode()[:_STAGE_BYTES].ljust(_STAGE_BYTES, b"\0")

    def end(self) -> None:
        """Say that no order is under way."""
        self._numbers[_TAG] = 0

    def read(self) -> Doing:
        """Read what the converter is doing."""
        return Doing(
            tag=self._numbers[_TAG],
            begun=self._numbers[_BEGUN],
            started=self._times[_STARTED],
            max_rss_bytes=self._numbers[_MEMORY],
            stage=bytes(self._bytes[_STAGE]).rstrip(b"\0").decode(errors="replace"),
        )

    def revoke(self, tag: int) -> None:
        """Tell the converter not to begin any order up to `tag`."""
        self._numbers[_REVOKED] = tag

    def is_revoked(self, tag: int) -> bool:
        """Whether the supervisor wants the order `tag` back.

        To be asked after `begin`, as the supervisor reads after `revoke`: so one of
        the two sees what the other wrote.
        """
        return tag <= self._numbers[_REVOKED]

    def close(self) -> None:
        """Let go of the shared memory."""
        for view in (self._times, self._numbers, self._bytes):
            view.release()
        self._map.close()

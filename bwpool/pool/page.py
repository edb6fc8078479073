"""The status page: a few shared bytes in which a converter says what it is doing.

The converter writes it at the beginning and the end of each stage; the supervisor
reads it to enforce the timeout and, after a death, to learn which job was under way
and where. Reading costs no message, so a short job pays nothing for its timeout.
"""

from __future__ import annotations

import mmap
import struct
import time
from dataclasses import dataclass

from bwpool.pool.wear import peak_memory

_DOING = struct.Struct("<dQ24s")  # started, peak memory, stage
_TAG = struct.Struct("<Q")
_DOING_AT, _TAG_AT, _REVOKED_AT, _BEGUN_AT = 0, 40, 48, 56

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
    """One converter's status page, over an open file of `PAGE_BYTES`."""

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, PAGE_BYTES)
        self._started = 0.0

    def begin(self, tag: int) -> None:
        """Say that the order `tag` is under way."""
        # The tag is written last: whoever sees it sees its own starting time.
        self._started = time.monotonic()
        _TAG.pack_into(self._map, _BEGUN_AT, tag)
        _DOING.pack_into(self._map, _DOING_AT, self._started, peak_memory(), b"")
        _TAG.pack_into(self._map, _TAG_AT, tag)

    def enter(self, stage: str) -> None:
        """Say which stage the order under way has reached."""
        name = stage.encode()
        _DOING.pack_into(self._map, _DOING_AT, self._started, peak_memory(), name)

    def end(self) -> None:
        """Say that no order is under way."""
        _TAG.pack_into(self._map, _TAG_AT, 0)

    def read(self) -> Doing:
        """Read what the converter is doing."""
        (tag,) = _TAG.unpack_from(self._map, _TAG_AT)
        (begun,) = _TAG.unpack_from(self._map, _BEGUN_AT)
        started, max_rss_bytes, stage = _DOING.unpack_from(self._map, _DOING_AT)
        name = stage.rstrip(b"\0").decode(errors="replace")
        return Doing(tag, begun, started, max_rss_bytes, name)

    def revoke(self, tag: int) -> None:
        """Tell the converter not to begin any order up to `tag`."""
        _TAG.pack_into(self._map, _REVOKED_AT, tag)

    def is_revoked(self, tag: int) -> bool:
        """Whether the supervisor wants the order `tag` back.

        To be asked after `begin`, as the supervisor reads after `revoke`: so one of
        the two sees what the other wrote.
        """
        (revoked,) = _TAG.unpack_from(self._map, _REVOKED_AT)
        return tag <= int(revoked)

    def close(self) -> None:
        """Let go of the shared memory."""
        self._map.close()

"""A lease: a message that the consumer delivered to us and that is ours to settle."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

MSG_ID = "Nats-Msg-Id"
COPY_OF = "rq:"
"""Begins the id of a message that was put back; see `requeue`."""

RESCUED = "Bwpool-Rescued"
"""The header of a job that was put back once because its deliveries ran out without
a failure of its own."""


Key = tuple[int, int]
"""A message's sequence in the stream and when it was stored, in nanoseconds."""


@dataclass(slots=True)
class Lease:
    """One delivery of a message."""

    seq: int
    """The message's sequence in the stream."""
    stored: int
    """When the stream stored it, in nanoseconds since 1970; with `seq` it names the
    message, even if the stream was made anew meanwhile."""
    attempt: int
    """The delivery's number, from 1."""
    reply: str
    """Where acknowledgements go."""
    subject: str
    payload: bytes
    headers: Mapping[str, str]
    extended: float = field(default_factory=time.monotonic)
    """When its ack wait last began, by our own clock."""

    @property
    def key(self) -> Key:
        """What identifies the message."""
        return self.seq, self.stored

    @property
    def digest(self) -> bytes:
        """What tells the payload from another one under the same key."""
        return hashlib.blake2b(self.payload, digest_size=16).digest()

    @property
    def is_rescued(self) -> bool:
        """Whether this job was put back once already."""
        return RESCUED in self.headers

    @property
    def is_copy(self) -> bool:
        """Whether this message was put back once, in place of an older one."""
        return self.headers.get(MSG_ID, "").startswith(COPY_OF)


def read_lease(
    subject: str, payload: bytes, headers: Mapping[str, str] | None, reply: str
) -> Lease:
    """Make a lease of a delivered message's parts.

    The reply subject is `$JS.ACK.<stream>.<consumer>.<delivered>.<stream sequence>.
    <consumer sequence>.<timestamp>.<pending>`, with a domain and an account's hash
    after `$JS.ACK` in newer servers' long form (NATS ADR-15). Raises ValueError if it
    is none.
    """
    tokens = reply.split(".")
    if tokens[:2] != ["$JS", "ACK"] or len(tokens) < 9:
        raise ValueError(f"{reply!r} is not a JetStream reply subject")
    first = 4 if len(tokens) == 9 else 6
    return Lease(
        seq=int(tokens[first + 1]),
        stored=int(tokens[first + 3]),
        attempt=int(tokens[first]),
        reply=reply,
        subject=subject,
        payload=payload,
        headers=headers or {},
    )

"""JetStream's own word on what became of a message, as it is said and as it is read.

Owns the advisories' subjects and fields. Called by `dead` and the command line; pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from bwpool.queue.shapes import Shape, check, read_time
from bwpool.settings import QueueSettings

_SUBJECT = "$JS.EVENT.ADVISORY.CONSUMER"
_TYPE = "io.nats.jetstream.advisory.v1."
_SHAPE: Shape = {
    "type": str,
    "id": str,
    "timestamp": str,
    "stream": str,
    "consumer": str,
    "stream_seq": int,
    "deliveries": int,
}


@dataclass(frozen=True, slots=True)
class Advisory:
    """A message left a consumer without being done."""

    id: str
    time: datetime
    stream: str
    consumer: str
    seq: int
    deliveries: int
    is_terminated: bool
    """Removed on request; else its deliveries ran out, and it is still stored."""
    fields: dict[str, Any]
    """All that the server said."""


def advisory_subjects(names: QueueSettings) -> tuple[str, ...]:
    """Return the subjects of the advisories about a consumer's lost messages."""
    place = f"{names.stream}.{names.consumer}"
    return tuple(
        f"{_SUBJECT}.{kind}.{place}" for kind in ("MAX_DELIVERIES", "MSG_TERMINATED")
    )


def read_advisory(payload: bytes) -> Advisory:
    """Read one of these advisories; ValueError for anything else."""
    fields = orjson.loads(payload)
    check(fields, _SHAPE)
    kind = fields["type"].removeprefix(_TYPE)
    if kind not in ("max_deliver", "terminated") or fields["stream_seq"] < 1:
        raise ValueError("not an advisory of a lost message")
    return Advisory(
        id=fields["id"],
        time=read_time(fields["timestamp"]),
        stream=fields["stream"],
        consumer=fields["consumer"],
        seq=fields["stream_seq"],
        deliveries=fields["deliveries"],
        is_terminated=kind == "terminated",
        fields=fields,
    )

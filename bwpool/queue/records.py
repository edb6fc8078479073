"""A failed attempt, as value and as JSON.

Owns the form of what the failures stream keeps. Called by `failures`, and by whoever
makes a record; pure.
"""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

import orjson

from bwpool.queue.shapes import Shape, check, read_time

_TAIL_CHARACTERS = 1000
"""What is kept of long texts in a record that has no room for them."""

_LEAST_CHARACTERS = 100
"""The same in one that has hardly any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConverterEnd:
    """What is known of the converter in which a job failed."""

    pid: int
    exitcode: int | None = None
    signal: int | None = None
    max_rss_bytes: int = 0
    stderr: str = ""

    def __post_init__(self) -> None:
        """See that it can be written."""
        _escape_texts(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """A failed attempt, as the failures stream keeps it."""

    stream: str
    consumer: str
    seq: int
    attempt: int
    max_deliver: int
    final: bool
    """Whether no attempt follows."""
    kind: str
    reason: str
    id: str | None = None
    """The job's, where it could be read."""
    image: str | None = None
    subject: str
    payload: bytes | None
    """The message's; None only where it was too long to keep twice."""
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    host: str = field(default_factory=socket.gethostname)
    elapsed: float = 0.0
    """Seconds that the attempt took."""
    converter: ConverterEnd | None = None

    def __post_init__(self) -> None:
        """See that it can be written."""
        _escape_texts(self)

    def to_json(self) -> bytes:
        """Write the record as it is stored."""
        values: dict[str, Any] = {"v": 1}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "payload":
                values |= _write_payload(value)
            else:
                values[each.name] = value
        return orjson.dumps(values, option=orjson.OPT_UTC_Z)

    @classmethod
    def from_json(cls, data: bytes) -> FailureRecord:
        """Read a stored record; raises ValueError for anything else.

        Whoever may publish may store one: every field is looked at. Fields that a
        later version may have added are left out.
        """
        values = orjson.loads(data)
        check(values, _SHAPE)
        if values["v"] != 1 or values["seq"] < 1:
            raise ValueError("not a failure record of version 1")
        end = values.get("converter")
        known = {name: values.get(name) for name in _PLAIN}
        return cls(
            **known,
            time=read_time(values["time"]),
            payload=_read_payload(values),
            converter=end
            and ConverterEnd(**{n: end[n] for n in _END if end.get(n) is not None}),
        )


def write_ever_shorter(record: FailureRecord) -> Iterator[bytes]:
    """Write a record whole, then with less and less, for a server with less room.

    Long texts go first, then the payload, of which the stream has the original, and
    last what the payload says as well.
    """
    yield record.to_json()
    record = _clip(record, _TAIL_CHARACTERS)
    yield record.to_json()
    record = replace(record, payload=None)
    yield record.to_json()
    yield replace(_clip(record, _LEAST_CHARACTERS), id=None, image=None).to_json()


def _clip(record: FailureRecord, characters: int) -> FailureRecord:
    """Keep the beginning of the reason and the end of what the converter said."""
    converter = record.converter
    if converter is not None:
        converter = replace(converter, stderr=converter.stderr[-characters:])
    return replace(record, converter=converter, reason=record.reason[:characters])


def _escape_texts(instance: FailureRecord | ConverterEnd) -> None:
    """Escape lone surrogates, of names that are no UTF-8: JSON can't hold them."""
    for each in fields(instance):
        value = getattr(instance, each.name)
        if isinstance(value, str):
            escaped = value.encode(errors="backslashreplace").decode()
            object.__setattr__(instance, each.name, escaped)


_SHAPE: Shape = {
    "v": int,
    "stream": str,
    "consumer": str,
    "seq": int,
    "attempt": int,
    "max_deliver": int,
    "final": bool,
    "kind": str,
    "reason": str,
    "id?": str,
    "image?": str,
    "subject": str,
    "payload?": str,
    "payload_b64?": str,
    "time": str,
    "host": str,
    "elapsed": float,
    "converter?": {
        "pid": int,
        "exitcode?": int,
        "signal?": int,
        "max_rss_bytes?": int,
        "stderr?": str,
    },
}
_END = [each.name for each in fields(ConverterEnd)]
_OWN_WAY = ("time", "payload", "converter")
_PLAIN = [each.name for each in fields(FailureRecord) if each.name not in _OWN_WAY]
"""The fields that are as they are written."""


def _read_payload(values: dict[str, Any]) -> bytes | None:
    payload, encoded = values.get("payload"), values.get("payload_b64")
    if encoded is not None:
        return base64.b64decode(encoded)
    return None if payload is None else payload.encode()


def _write_payload(payload: bytes | None) -> dict[str, str | None]:
    if payload is None:
        return {"payload": None}
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        return {"payload_b64": base64.b64encode(payload).decode()}

"""What passes between the supervisor and a converter: one JSON array a line.

References cross the border, never pixels. Both sides import this module, so it
imports nothing heavy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from bwpool.errors import JOB_ERRORS, ConversionFailed, CutShort, JobError
from bwpool.job import Converted, Job


@dataclass(slots=True)
class Order:
    """Convert `job`, and answer under `tag`."""

    tag: int
    job: Job


@dataclass(slots=True)
class Ready:
    """The converter has loaded its libraries and waits for orders."""


@dataclass(slots=True)
class Answer:
    """What became of the order `tag`, after `elapsed` seconds of converting."""

    tag: int
    elapsed: float
    outcome: Converted | JobError


@dataclass(slots=True)
class Unstarted:
    """The order `tag` was revoked before the converter began it."""

    tag: int


@dataclass(slots=True)
class Tired:
    """The converter works on, but should be replaced: it has done or grown enough."""


Message = Ready | Answer | Unstarted | Tired


def encode_order(order: Order) -> bytes:
    """Write an order as a line."""
    job = order.job
    fields = (order.tag, job.id, job.image, job.method, job.format, job.quality)
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def decode_order(line: bytes) -> Order:
    """Read a line that `encode_order` wrote; the advisory stays at home."""
    tag, job_id, image, method, format_, quality = orjson.loads(line)
    return Order(tag, Job(job_id, image, None, method, format_, quality))


def encode_message(message: Message) -> bytes:
    """Write a converter's message as a line."""
    match message:
        case Answer(tag, elapsed, Converted() as done):
            fields: tuple[Any, ...] = (
                "converted",
                tag,
                elapsed,
                done.output,
                done.bytes_in,
                done.bytes_out,
                done.pixels,
                done.stages,
                done.warnings,
            )
        case Answer(tag, elapsed, JobError() as error):
            reason = error.reason.encode(errors="replace").decode()
            seen = error.seen if isinstance(error, CutShort) else None
            fields = ("failed", tag, elapsed, error.kind, reason, error.stage, seen)
        case Unstarted(tag):
            fields = ("unstarted", tag)
        case Ready():
            fields = ("ready",)
        case Tired():
            fields = ("tired",)
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def decode_message(line: bytes) -> Message:
    """Read a line that `encode_message` wrote; ValueError if it is none."""
    match orjson.loads(line):
        case ["converted", tag, elapsed, output, size, stored, pixels, stages, notes]:
            done = Converted(output, size, stored, pixels, stages, tuple(notes))
            return Answer(tag, elapsed, done)
        case ["failed", tag, elapsed, _, reason, stage, [size, mtime]]:
            return Answer(tag, elapsed, CutShort(reason, (size, mtime), stage=stage))
        case ["failed", tag, elapsed, kind, reason, stage, None]:
            error = JOB_ERRORS.get(kind, ConversionFailed)
            return Answer(tag, elapsed, error(reason, stage=stage))
        case ["unstarted", tag]:
            return Unstarted(tag)
        case ["ready"]:
            return Ready()
        case ["tired"]:
            return Tired()
        case other:
            raise ValueError(f"a converter said {other!r:.100}")

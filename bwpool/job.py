"""A job, as it arrives in a message, and what becomes of one conversion.

Pure: bytes in, values out. Called by the supervisor (to read a message) and by
`pool` and `convert` (to speak about it).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from bwpool.errors import InvalidJob
from bwpool.formats import format_choices
from bwpool.methods import METHODS

MAX_ID_CHARACTERS = 200
MAX_SUBJECT_BYTES = 255
MAX_SHOWN = 100
"""Characters of a wrong value that a reason repeats."""

_RESERVED = ("bwpool", "_R_", "_GR_")
"""First tokens of subjects that no advisory may have: ours, and those on which servers
hand replies on, between accounts and between clusters (nats-server's accounts.go and
gateway.go)."""


@dataclass(frozen=True, slots=True)
class Job:
    """One picture to convert."""

    id: str
    """Names the output, `/` for folders; checked by `parse_job`."""
    image: str
    """The source's URI, unchecked: the converter that opens it knows the rules."""
    advisory: str | None = None
    """The subject to tell when the output is stored."""
    method: str | None = None
    """A key of `METHODS`; None leaves it to the settings."""
    format: str | None = None
    """One of `format_choices()`; None leaves it to the settings."""
    quality: int | None = None
    """JPEG and WebP quality, 1 to 100; None leaves it to the settings."""


@dataclass(frozen=True, slots=True)
class Converted:
    """A conversion that went well."""

    output: str
    """Where it is stored: a path, or a URI."""
    bytes_in: int
    bytes_out: int
    pixels: int
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds spent in each stage, in order."""
    warnings: tuple[str, ...] = ()
    """What the decoder complained about, though it went on."""


def parse_job(
    payload: bytes, stored: Sequence[str] = (), prefixes: Sequence[str] = ()
) -> Job:
    """Read a message's payload as a job.

    `stored` are the subjects that the stream stores: an advisory to one of them would
    become a job again. With `prefixes` given, advisories go to these subjects and those
    below them, and nowhere else. Raises InvalidJob, which says what is wrong with which
    field.
    """
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        raise InvalidJob(f"the payload is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise InvalidJob("the payload is not a JSON object")
    job = Job(
        id=_text(fields, "id"),
        image=_text(fields, "image"),
        advisory=fields.get("advisory") or None,
        method=_choice(fields, "method", tuple(METHODS)),
        format=_choice(fields, "format", format_choices()),
        quality=_quality(fields),
    )
    check_id(job.id)
    if job.advisory is not None:
        check_advisory(job.advisory, stored, prefixes)
    return job


def names_of(payload: bytes) -> tuple[str | None, str | None]:
    """Return the id and the image that a payload names, which may be no job at all.

    None for each that is missing or no string.
    """
    try:
        fields = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None, None
    if not isinstance(fields, dict):
        return None, None
    job_id, image = fields.get("id"), fields.get("image")
    return (
        job_id if isinstance(job_id, str) else None,
        image if isinstance(image, str) else None,
    )


def converted_id(payload: bytes) -> str | None:
    """Return the id of the job that an advisory says is converted; None if it is none.

    Whoever may publish may say so: the subject has to be one that others don't know.
    """
    return names_of(payload)[0]


def check_id(job_id: str) -> None:
    """Raise InvalidJob unless `job_id` names a place inside the output folder."""
    if len(job_id) > MAX_ID_CHARACTERS:
        raise InvalidJob(f"id has {len(job_id)} characters, at most 200 are allowed")
    if not job_id.isprintable() or "\\" in job_id:
        raise InvalidJob("id has characters that are not printable, or a backslash")
    for segment in job_id.split("/"):
        if not segment or segment.startswith("."):
            raise InvalidJob(
                f"id {job_id!r} has a segment that is empty or starts with a dot"
            )


def check_advisory(
    subject: Any, stored: Sequence[str], prefixes: Sequence[str] = ()
) -> None:
    """Raise InvalidJob unless an advisory may be published to `subject`."""
    if not isinstance(subject, str):
        raise InvalidJob("advisory is not a string")
    try:
        size = len(subject.encode())
    except UnicodeEncodeError:
        raise InvalidJob("advisory is not valid Unicode") from None
    tokens = subject.split(".")
    if size > MAX_SUBJECT_BYTES:
        raise InvalidJob(f"advisory has {size} bytes, at most 255 are allowed")
    if not subject.isprintable() or any(
        word in ("", "*", ">") or " " in word for word in tokens
    ):
        raise InvalidJob(f"advisory {subject!r} is not a subject one can publish to")
    if subject.startswith("$") or tokens[0] in _RESERVED:
        raise InvalidJob(f"advisory {subject!r} is reserved")
    if prefixes and not any(f"{subject}.".startswith(f"{each}.") for each in prefixes):
        raise InvalidJob(
            f"advisory {subject!r} is below none of the subjects that are allowed here"
        )
    if any(subject_matches(pattern, subject) for pattern in stored):
        raise InvalidJob(f"advisory {subject!r} would be stored as a job itself")


def subject_matches(pattern: str, subject: str) -> bool:
    """Whether `subject` falls under `pattern`, NATS wildcards included."""
    wanted, tokens = pattern.split("."), subject.split(".")
    for i, want in enumerate(wanted):
        if want == ">":
            return len(tokens) > i
        if i >= len(tokens) or (want not in ("*", tokens[i])):
            return False
    return len(tokens) == len(wanted)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None or value == "":
        raise InvalidJob(f"the job has no {name}")
    if not isinstance(value, str):
        raise InvalidJob(f"{name} is not a string")
    return value


def _choice(fields: dict[str, Any], name: str, choices: tuple[str, ...]) -> str | None:
    value = fields.get(name)
    if value is not None and value not in choices:
        raise InvalidJob(f"{name} {_shown(value)} is not one of {', '.join(choices)}")
    return value


def _quality(fields: dict[str, Any]) -> int | None:
    value = fields.get("quality")
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= 100:
        raise InvalidJob(f"quality {_shown(value)} is not a whole number from 1 to 100")
    return value


def _shown(value: Any) -> str:
    """Write a field's value briefly; `repr` of what is nested deep would recurse."""
    if isinstance(value, list):
        return "(an array)"
    if isinstance(value, dict):
        return "(an object)"
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"

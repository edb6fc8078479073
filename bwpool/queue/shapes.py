"""What a value that came from outside is made of, checked before anybody believes it.

Called by whatever reads records, advisories and JetStream's answers; pure.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

Shape = Any
"""A type; a list of one shape; `{str: shape}` for any names; or a dict of names with
their shapes, those with a `?` at the end absent or null at will. Names that a shape
doesn't mention may have any value."""

_WORDS = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
}
_YEARS = range(1971, 9999)
"""Those that every time zone can show."""


def check(value: Any, shape: Shape, name: str = "it") -> None:
    """Raise ValueError, naming the part, unless `value` has this shape."""
    if isinstance(shape, type):
        _check_type(value, shape, name)
    elif isinstance(shape, list):
        _check_type(value, list, name)
        for each in value:
            check(each, shape[0], f"one of {name}")
    elif str in shape:
        _check_type(value, dict, name)
        for each in value.values():
            check(each, shape[str], f"one of {name}")
    else:
        _check_type(value, dict, name)
        _check_fields(value, shape, name)


def _check_type(value: Any, wanted: type, name: str) -> None:
    # Neither is true a number here, nor 1.0 a whole one.
    if type(value) is wanted or (wanted is float and type(value) is int):
        return
    raise ValueError(f"{name} is not {_WORDS[wanted]}")


def _check_fields(value: dict[str, Any], shape: dict[str, Shape], name: str) -> None:
    for field, wanted in shape.items():
        known = field.removesuffix("?")
        if known != field and value.get(known) is None:
            continue
        inner = known if name == "it" else f"{name}.{known}"
        if known not in value:
            raise ValueError(f"{inner} is missing")
        check(value[known], wanted, inner)


def read_time(text: str) -> datetime:
    """Read a point in time, as UTC; ValueError for one without a zone or too far."""
    time = datetime.fromisoformat(text)
    if time.tzinfo is None or time.year not in _YEARS:
        raise ValueError("it has no time that can be")
    return time.astimezone(UTC)

"""What strangers make of values, to find out who believes them."""

from __future__ import annotations

from typing import Any

ODD: list[Any] = [None, "\x1b[2J", "", [], {}, [[]], -1, 1.5, True, 2**63]
"""Values that few fields may have."""


def damaged(value: Any) -> list[Any]:
    """Make copies of a JSON value, in each of which one part is another or missing."""
    made = [odd for odd in ODD if odd != value]
    if isinstance(value, dict):
        for name, part in value.items():
            rest = {other: value[other] for other in value if other != name}
            made += [rest, *(rest | {name: odd} for odd in damaged(part))]
    if isinstance(value, list) and value:
        made += [[odd, *value[1:]] for odd in damaged(value[0])]
    return made


EVIL = "\x1b]0;owned\x07\x9b2J\u202e"
"""What steers a terminal."""

"""What was done before, going by the ledger and a look at the outputs.

Equality decides, no clock: an input is done if its size, its time, the settings and the
output's size are those in the ledger. Called by the command line; pure but for `stat`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import orjson

from bwpool.backfill.inputs import Input, Seen, look_at
from bwpool.backfill.ledger_file import Entry
from bwpool.settings import ConvertSettings

FORCED = "as --force says"
SOURCE_CHANGED = "their sources have changed"
OTHER_SOURCE = "their outputs were made of other sources"
OUTPUT_CHANGED = "their outputs are gone or have changed"


@dataclass(slots=True)
class Past:
    """The inputs of a backfill, told apart by what is to be done with each."""

    to_do: list[tuple[Input, Seen | None]] = field(default_factory=list)
    """What is to be converted, with what its output's place holds now."""
    done: int = 0
    adopted: list[tuple[Input, Seen]] = field(default_factory=list)
    """Done, by the rule of versions without a ledger, with their outputs."""
    finished: list[tuple[Input, Seen]] = field(default_factory=list)
    """Done by a run that ended before it could enter that, with their outputs."""
    again: Counter[str] = field(default_factory=Counter)
    """Why what was done before is to be converted again, and how many for that."""


def look_back(
    pictures: Iterable[Input], entries: Iterable[Entry], now: ConvertSettings
) -> Past:
    """Look at each picture's output, and into the ledger."""
    known = {entry.output: entry for entry in entries}
    made = {e.source: e.settings for e in known.values() if e.state == "converted"}
    changes = _Changes(now)
    past = Past()
    for picture in pictures:
        seen = look_at(picture.output)
        entry = known.get(picture.name)
        if entry is None:
            if seen is not None and seen.mtime_ns >= picture.seen.mtime_ns:
                past.adopted.append((picture, seen))
                continue
            # Another format has another output.
            earlier = made.get(picture.uri)
            why = changes.since(earlier) if earlier is not None else ""
        elif entry.state == "failed":
            why = ""
        else:
            why = _why_again(picture, entry, seen, changes)
            if not why and entry.state == "converted":
                past.done += 1
                continue
            if not why and seen not in (None, _seen_before(entry)):
                assert seen is not None
                past.finished.append((picture, seen))
                continue
            if entry.state == "waiting":
                why = ""  # it is only late
        if why:
            past.again[why] += 1
        past.to_do.append((picture, seen))
    return past


def force(pictures: Iterable[Input]) -> Past:
    """Have everything converted, whatever was done before."""
    return Past(to_do=[(picture, look_at(picture.output)) for picture in pictures])


def _why_again(
    picture: Input, entry: Entry, seen: Seen | None, changes: _Changes
) -> str:
    """Say what an entry has that is different now; nothing if all is the same."""
    if entry.source != picture.uri:
        return OTHER_SOURCE
    if Seen(entry.size, entry.mtime_ns) != picture.seen:
        return SOURCE_CHANGED
    if changed := changes.since(entry.settings):
        return changed
    if entry.state == "converted" and (seen and seen.size) != entry.output_bytes:
        return OUTPUT_CHANGED
    return ""


def _seen_before(entry: Entry) -> Seen | None:
    """Return what was in the output's place when its job was made."""
    if entry.output_bytes is None or entry.output_mtime_ns is None:
        return None
    return Seen(entry.output_bytes, entry.output_mtime_ns)


class _Changes:
    """Compares settings with those of now; there are few, for many rows."""

    def __init__(self, now: ConvertSettings) -> None:
        self._now = now.recipe
        # What an older version did not know was what is the default today.
        self._unsaid = ConvertSettings().recipe
        self._known: dict[str, str] = {}

    def since(self, settings: str) -> str:
        """Say what has changed since `settings`; nothing if nothing has."""
        if (known := self._known.get(settings)) is None:
            known = self._known[settings] = ", ".join(self._compare(settings))
        return known

    def _compare(self, settings: str) -> Iterator[str]:
        before = self._unsaid | orjson.loads(settings)
        for name, value in self._now.items():
            if before[name] != value:
                yield f"--{name} is {value} now, was {before[name]}"

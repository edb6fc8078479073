"""What a queue's configuration should be against what it is; pure.

Owns the comparison, its rules, and how differences are shown. Called by `topology`;
does no I/O and imports nothing that does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from bwpool.settings import QueueSettings

Config = dict[str, Any]
"""A stream's or a consumer's configuration, in JetStream's own words."""

FAILURES_STREAM = "BWPOOL_FAILURES"

SECOND = 1_000_000_000
"""JetStream counts nanoseconds."""
ADVISORIES = (
    "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
    "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
)
"""Sent once and kept nowhere, unless the failures stream captures them."""

Kind = Literal["stream", "consumer", "failures"]
Action = Literal["create", "update", "blocked"]

COMPARED: dict[Kind, tuple[str, ...]] = {
    "stream": (
        "subjects",
        "retention",
        "storage",
        "discard",
        "max_msgs",
        "max_bytes",
        "max_age",
        "max_msg_size",
        "duplicate_window",
    ),
    "consumer": (
        "deliver_subject",
        "ack_policy",
        "ack_wait",
        "max_deliver",
        "replay_policy",
        "deliver_policy",
        "filter_subject",
    ),
    "failures": ("subjects", "retention"),
}
"""What the seed's flags name; all else is the operator's."""
_IMMUTABLE: dict[Kind, frozenset[str]] = {
    "stream": frozenset({"retention", "storage"}),
    "consumer": frozenset(
        {"deliver_subject", "ack_policy", "replay_policy", "deliver_policy"}
    ),
    "failures": frozenset({"retention"}),
}
_DEFAULTS: Config = {
    "discard": "old",
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msg_size": -1,
    "max_deliver": -1,
    "duplicate_window": 0,
}
"""What an absent or zero value means."""
_CANT = "can't be changed in place; bwpool never re-creates what holds jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The configurations of a queue, as wanted or as found; None where missing."""

    names: QueueSettings
    stream: Config | None = None
    consumer: Config | None = None
    failures: Config | None = None
    dead: int = 0
    """Found: how many messages have used up their deliveries."""
    capturing: tuple[str, ...] = ()
    """Found: other streams that capture advisories we would capture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One step from what is found to what is wanted."""

    kind: Kind
    name: str
    """The stream's or the consumer's."""
    action: Action
    field: str = ""
    """Empty for a creation."""
    old: Any = None
    new: Any = None
    """For a creation: the whole configuration."""
    reason: str = ""
    """Why it is blocked, and what to do."""

    def __str__(self) -> str:
        what = f"{'consumer' if self.kind == 'consumer' else 'stream'} {self.name}"
        if self.action == "create":
            values = ", ".join(
                f"{name} {shown(name, self.new.get(name))}"
                for name in COMPARED[self.kind]
                if self.new.get(name) is not None
            )
            return f"+ {what}  {values}"
        values = f"{shown(self.field, self.old)} → {shown(self.field, self.new)}"
        if self.action == "blocked":
            return f"! {what}  {self.field} {values}: {self.reason}"
        return f"~ {what}  {self.field} {values}"


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes from what is found to what is wanted."""

    desired: Topology
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    """What is left out, and why."""

    @property
    def is_empty(self) -> bool:
        """Whether everything is as wanted."""
        return not self.changes

    @property
    def is_blocked(self) -> bool:
        """Whether something can't be brought in line."""
        return any(change.action == "blocked" for change in self.changes)

    def creations(self) -> Plan:
        """Return the part of the plan that only creates what is missing."""
        new = tuple(change for change in self.changes if change.action == "create")
        return replace(self, changes=new)

    def __str__(self) -> str:
        """Show one change a line, notes last."""
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([*map(str, self.changes), *notes])


def plan(current: Topology, desired: Topology) -> Plan:
    """Compare what exists with what is wanted; pure."""
    desired, notes = _fitted(current, desired)
    changes = [
        *_changes("stream", current.stream, desired.stream),
        *_changes("consumer", current.consumer, desired.consumer),
        *_changes("failures", current.failures, desired.failures),
    ]
    return Plan(
        desired,
        tuple(_spare_the_dead(change, current.dead) for change in changes),
        notes,
    )


def filters(config: Config) -> tuple[str, ...]:
    """Return a consumer's filter subjects, however they are written; empty for all."""
    single = config.get("filter_subject")
    return (single,) if single else tuple(config.get("filter_subjects") or ())


def _fitted(current: Topology, desired: Topology) -> tuple[Topology, tuple[str, ...]]:
    """Fit the failures stream to what is found: its neighbours and its account."""
    failures = desired.failures
    if failures is None:
        return desired, ()
    notes = []
    subjects = list(failures["subjects"])
    found = (current.failures or {}).get("subjects") or []
    if current.capturing and not set(ADVISORIES) <= set(found):
        subjects = [subject for subject in subjects if subject not in ADVISORIES]
        notes.append(
            f"{FAILURES_STREAM} leaves the server's advisories out, since "
            f"{', '.join(current.capturing)} captures them: jobs that die while no "
            "supervisor runs are listed without a reason"
        )
    # What somebody added is theirs.
    subjects += [subject for subject in found if subject not in subjects]
    # As durable as the jobs themselves.
    replicas = (current.stream or failures).get("num_replicas", 1)
    fitted = failures | {"subjects": subjects, "num_replicas": replicas}
    return replace(desired, failures=fitted), tuple(notes)


def _changes(
    kind: Kind, current: Config | None, desired: Config | None
) -> Iterator[Change]:
    if desired is None:
        return
    name = desired["name"]
    if current is None:
        yield Change(kind=kind, name=name, action="create", new=desired)
        return
    for field in COMPARED[kind]:
        old, new = value_of(current, field), value_of(desired, field)
        if old == new:
            continue
        blocked = field in _IMMUTABLE[kind]
        yield Change(
            kind=kind,
            name=name,
            action="blocked" if blocked else "update",
            field=field,
            old=old,
            new=new,
            reason=_CANT if blocked else "",
        )


def value_of(config: Config, field: str) -> Any:
    """Read a field so that different spellings of the same are equal."""
    if field == "subjects":
        return tuple(sorted(config.get(field) or ()))
    if field == "filter_subject":
        return ", ".join(sorted(filters(config))) or None
    return config.get(field, _DEFAULTS.get(field)) or _DEFAULTS.get(field)


def _spare_the_dead(change: Change, dead: int) -> Change:
    """Block a raised max_deliver while something is dead.

    Whether that revives the dead, and which, differs from server to server.
    """
    if change.field != "max_deliver" or not dead or change.action != "update":
        return change
    if change.new != -1 and (change.old == -1 or change.new < change.old):
        return change
    reason = f"{dead} failed jobs might come back: requeue or drop them before"
    return replace(change, action="blocked", reason=reason)


def shown(field: str, value: Any) -> str:
    """Write a value as people would."""
    if field in ("ack_wait", "max_age", "duplicate_window"):
        return _duration(value)
    if field == "deliver_subject":
        return f"push to {value}" if value else "pull"
    if isinstance(value, tuple | list):
        return ", ".join(value)
    if value == -1:
        return "unlimited"
    return "none" if value is None else str(value)


def _duration(nanoseconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if nanoseconds and nanoseconds % (size * SECOND) == 0:
            return f"{nanoseconds // (size * SECOND)} {unit}"
    return f"{nanoseconds / SECOND:g} s" if nanoseconds else "unlimited"

"""The streams and the consumer as they should be, and how to get there.

Owns the wanted configurations, the look at what exists, and the changes made in place;
`drift` compares. Called by `setup` on the command line and wherever a missing topology
is created; knows nothing of jobs. Never deletes or re-creates anything: a re-created
consumer would deliver everything again.
"""

from __future__ import annotations

import re

from bwpool.errors import ConfigError, QueueError
from bwpool.job import subject_matches
from bwpool.queue.connection import ApiError, Connection
from bwpool.queue.drift import (
    ADVISORIES,
    COMPARED,
    FAILURES_STREAM,
    SECOND,
    Change,
    Config,
    Kind,
    Plan,
    Topology,
    plan,
    shown,
    value_of,
)
from bwpool.queue.facts import (
    ConsumerFacts,
    consumer_info,
    count_dead,
    read_facts,
    stream_info,
)
from bwpool.settings import QueueSettings

__all__ = [
    "ADVISORIES",
    "FAILURES_STREAM",
    "Change",
    "ConsumerFacts",
    "Plan",
    "Topology",
    "apply",
    "inspect",
    "plan",
    "read_facts",
    "wanted",
]

_RACED = frozenset({10058, 10013, 10148})
"""Somebody else created it, differently, between our look and our request."""
_NAME = re.compile(r"[^\s.*>/\\]+")


def wanted(names: QueueSettings, *, max_msg_bytes: int = 512) -> Topology:
    """Return what the seed's two `nats` commands create, and the failures stream.

    `max_msg_bytes` limits a job's headers and payload. Raises ConfigError for names
    that JetStream can't have.
    """
    for option, name in (("stream", names.stream), ("consumer", names.consumer)):
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f"--{option} {name!r}: a name has no spaces, dots, slashes or wildcards"
            )
    subjects = f"{names.stream}.>"
    if not subject_matches(subjects, names.subject):
        raise ConfigError(
            f"--subject {names.subject} is not one that the stream stores: it has to "
            f"start with {names.stream}."
        )
    common = {
        "max_consumers": -1,
        "max_msgs_per_subject": -1,
        "max_msgs": -1,
        "max_bytes": -1,
        "storage": "file",
        "discard": "old",
        "num_replicas": 1,
        "compression": "none",
        "sealed": False,
        "deny_delete": False,
        "deny_purge": False,
        "allow_rollup_hdrs": False,
        "allow_direct": True,
        "mirror_direct": False,
        "consumer_limits": {},
    }
    stream = common | {
        "name": names.stream,
        "subjects": [subjects],
        "retention": "workqueue",
        "max_age": 0,
        "max_msg_size": max_msg_bytes,
        "duplicate_window": 3600 * SECOND,
    }
    consumer = {
        "ack_policy": "explicit",
        "ack_wait": 30 * SECOND,
        "deliver_policy": "all",
        "durable_name": names.consumer,
        "name": names.consumer,
        "filter_subject": names.subject,
        "max_deliver": 5,
        "replay_policy": "instant",
        "num_replicas": 0,
    }
    failures = common | {
        "name": FAILURES_STREAM,
        "subjects": ["bwpool.failures.>", *ADVISORIES],
        "retention": "limits",
        "max_age": 30 * 86400 * SECOND,
        "max_msg_size": -1,
        "duplicate_window": 120 * SECOND,
    }
    return Topology(names=names, stream=stream, consumer=consumer, failures=failures)


async def inspect(connection: Connection, names: QueueSettings) -> Topology:
    """Look at what exists."""
    stream = await stream_info(connection, names.stream)
    consumer = await consumer_info(connection, names) if stream else None
    failures = await stream_info(connection, FAILURES_STREAM)
    capturing = [await _capturing(connection, subject) for subject in ADVISORIES]
    return Topology(
        names=names,
        stream=stream and stream["config"],
        consumer=consumer and consumer["config"],
        failures=failures and failures["config"],
        dead=await count_dead(connection, names) if consumer else 0,
        capturing=tuple(sorted(set().union(*capturing))),
    )


async def apply(connection: Connection, todo: Plan) -> None:
    """Make the changes that are not blocked; harmless when repeated or raced.

    Raises QueueError where the server refuses, or doesn't do what it accepted.
    """
    for _ in range(5):
        try:
            for kind in COMPARED:
                await _apply(connection, todo, kind)
        except ApiError as error:
            if error.err_code not in _RACED:
                raise
        else:
            return
        current = await inspect(connection, todo.desired.names)
        todo = plan(current, todo.desired)
    raise QueueError("somebody else keeps changing the topology: try again")


async def _capturing(connection: Connection, subject: str) -> list[str]:
    """List the streams of others that overlap with `subject`."""
    answer = await connection.api("STREAM.NAMES", {"subject": subject})
    return [name for name in answer.get("streams") or () if name != FAILURES_STREAM]


async def _apply(connection: Connection, todo: Plan, kind: Kind) -> None:
    """Make what `todo` has for one stream or consumer, and check what came of it."""
    changes = [c for c in todo.changes if c.kind == kind and c.action != "blocked"]
    if not changes:
        return
    names, first = todo.desired.names, changes[0]
    if first.action == "create":
        config = first.new
        expected = {field: value_of(config, field) for field in COMPARED[kind]}
    else:
        # Fields left out of an update are reset: what is there goes back as it is.
        config = await _current(connection, names, first)
        expected = {change.field: change.new for change in changes}
        for change in changes:
            _set(config, change)
    made = await _send(connection, names, first, config)
    for field, value in expected.items():
        if (echo := value_of(made, field)) != value:
            version = ".".join(map(str, connection.server_version))
            raise QueueError(
                f"the server (version {version}) made {first.name} with {field} "
                f"{shown(field, echo)} instead of {shown(field, value)}"
            )


async def _send(
    connection: Connection, names: QueueSettings, change: Change, config: Config
) -> Config:
    """Send a whole configuration; return what the server made of it."""
    if change.kind != "consumer":
        suffix = f"STREAM.{change.action.upper()}.{change.name}"
        answer = await connection.api(suffix, config)
    else:
        suffix = f"CONSUMER.CREATE.{names.stream}.{change.name}"
        # The server wants a single filter in the subject, too.
        if config.get("filter_subject"):
            suffix += f".{config['filter_subject']}"
        body = {"stream_name": names.stream, "config": config, "action": change.action}
        answer = await connection.api(suffix, body)
    made: Config = answer["config"]
    return made


async def _current(
    connection: Connection, names: QueueSettings, change: Change
) -> Config:
    """Read a configuration anew, without what only the server may set."""
    if change.kind == "consumer":
        info = await consumer_info(connection, names)
    else:
        info = await stream_info(connection, change.name)
    if info is None:
        raise QueueError(f"{change.name} has just been deleted: try again")
    config: Config = info["config"]
    metadata = config.get("metadata") or {}
    mine = {key: metadata[key] for key in metadata if not key.startswith("_nats.")}
    return {key: value for key, value in config.items() if key != "metadata"} | (
        {"metadata": mine} if mine else {}
    )


def _set(config: Config, change: Change) -> None:
    config[change.field] = change.new
    if change.field == "subjects":
        config["subjects"] = list(change.new)
    if change.field == "filter_subject":
        config.pop("filter_subjects", None)

"""`bwpool setup`: create the streams and the consumer, or bring them in line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from bwpool.cli.common import (
    DONE,
    DRIFTED,
    Common,
    CommonSettings,
    Queue,
    Server,
    as_json_line,
    complain,
    endpoint_of,
    execute,
    flat,
    printable_lines,
)
from bwpool.queue import topology
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.drift import Plan, Topology, plan
from bwpool.queue.topology import wanted
from bwpool.settings import QueueSettings, ServerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SetupSettings:
    """How to go about it."""

    dry_run: bool = False
    """Only show what would change; exit code 3 if anything would."""
    json: bool = False
    """Report as one JSON object on stdout."""


def setup(
    *,
    settings: Annotated[SetupSettings, flat("Options")] = SetupSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Create the stream, the consumer and the failures stream, or bring them in line.

    Example: `bwpool setup --server localhost:4222`

    Shows what differs, changes what can be changed in place, and never deletes or
    re-creates anything. Exit code 3: something differs that can't be changed.
    """

    async def command() -> int:
        async with await Connection.open(endpoint_of(server, common)) as connection:
            desired = wanted(queue)
            current = await topology.inspect(connection, queue)
            todo = plan(current, desired)
            _report(todo, as_json=settings.json)
            if settings.dry_run:
                return DONE if todo.is_empty else DRIFTED
            await topology.apply(connection, todo)
            if todo.is_blocked:
                complain("what is marked with ! was left as it is")
                return DRIFTED
            return DONE

    return execute(common, command)


async def provide(endpoint: Endpoint, desired: Topology) -> None:
    """Create what is missing, and leave alone what is there."""
    async with await Connection.open(endpoint) as connection:
        current = await topology.inspect(connection, desired.names)
        await topology.apply(connection, plan(current, desired).creations())


def _report(todo: Plan, *, as_json: bool) -> None:
    if as_json:
        changes = [
            {
                "what": change.kind,
                "name": change.name,
                "action": change.action,
                "field": change.field,
                "old": change.old,
                "new": change.new,
                "reason": change.reason,
            }
            for change in todo.changes
        ]
        print(as_json_line({"changes": changes, "notes": todo.notes}))
        return
    if todo.is_empty:
        told = "\n".join([*todo.notes, "everything is as it should be"])
    else:
        told = str(todo)
    print(printable_lines(told))

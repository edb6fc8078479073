"""`bwpool events`: what goes wrong, as it happens."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import orjson
import structlog

from bwpool.cli.common import (
    DONE,
    Common,
    CommonSettings,
    Queue,
    Server,
    as_json_line,
    endpoint_of,
    execute,
    flat,
    printable,
)
from bwpool.errors import QueueError
from bwpool.queue import failures
from bwpool.queue.advisories import Advisory, advisory_subjects, read_advisory
from bwpool.queue.connection import Connection
from bwpool.queue.facts import read_facts, records_subject
from bwpool.queue.records import FailureRecord
from bwpool.queue.watch import watching
from bwpool.settings import QueueSettings, ServerSettings

log = structlog.get_logger()

Event = FailureRecord | Advisory


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsSettings:
    """How to report."""

    json: bool = False
    """Print one JSON object a line."""


def events(
    *,
    settings: Annotated[EventsSettings, flat("Options")] = EventsSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Print failed attempts and JetStream's advisories as they happen, until Ctrl-C.

    Example: `bwpool events --json >> events.log`
    """

    async def command() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop.set)
        async with await Connection.open(endpoint_of(server, common)) as connection:
            printing = asyncio.ensure_future(
                _print_events(connection, queue, as_json=settings.json)
            )
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({printing, stopping}, return_when="FIRST_COMPLETED")
            stopping.cancel()
            printing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await printing
        return DONE

    return execute(common, command, log_level="warning")


async def _print_events(
    connection: Connection, queue: QueueSettings, *, as_json: bool
) -> None:
    """Print each event in the order of its arrival; returns only by an error."""
    facts = await read_facts(connection, queue)
    arrived: asyncio.Queue[Event] = asyncio.Queue()
    readers: dict[str, Callable[[bytes], Event]] = dict.fromkeys(
        advisory_subjects(queue), read_advisory
    )
    readers[records_subject(facts)] = FailureRecord.from_json
    async with contextlib.AsyncExitStack() as stack:
        for subject, read in readers.items():
            tell = partial(_take, arrived, read, queue)
            await stack.enter_async_context(watching(connection, subject, tell))
        await connection.flush()
        log.info("events.listening", subjects=list(readers))
        if not as_json:
            listening = f"Listening for Advisories on {', '.join(readers)}"
            print(printable(listening), flush=True)
        while True:
            event = await arrived.get()
            cause = await _cause(connection, event)
            text = _as_json(event, cause) if as_json else _as_text(event, cause)
            print(text, flush=True)


def _take(
    arrived: asyncio.Queue[Event],
    read: Callable[[bytes], Event],
    names: QueueSettings,
    payload: bytes,
) -> None:
    # Whoever may publish there may publish nonsense.
    with contextlib.suppress(ValueError):
        event = read(payload)
        if (event.stream, event.consumer) == (names.stream, names.consumer):
            arrived.put_nowait(event)


async def _cause(connection: Connection, event: Event) -> FailureRecord | None:
    """Look up what the message of an advisory failed by, where that was recorded."""
    if isinstance(event, FailureRecord):
        return event
    try:
        return await failures.latest_record(
            connection, event.stream, event.consumer, event.seq
        )
    except QueueError as error:
        # Worth telling all the same.
        log.warning("events.unexplained", seq=event.seq, error=str(error))
        return None


def _as_json(event: Event, cause: FailureRecord | None) -> str:
    if isinstance(event, FailureRecord):
        fields = {"type": "bwpool.failure", **orjson.loads(event.to_json())}
    else:
        named = ("kind", "reason", "id", "image")
        known = {name: getattr(cause, name, None) for name in named}
        # The advisory has an id of its own.
        fields = known | event.fields | {"job_id": known["id"]}
    return as_json_line(fields)


def _as_text(event: Event, cause: FailureRecord | None) -> str:
    """Write an event as the `nats` command line does, and the reason as well."""
    rows = {
        "Consumer": f"{event.stream} > {event.consumer}",
        "Stream Sequence": str(event.seq),
    }
    if isinstance(event, FailureRecord):
        name = f"{event.stream}.{event.consumer}.{event.seq}.{event.attempt}"
        title = "Attempt Failed"
        rows["Attempt"] = f"{event.attempt} of {event.max_deliver}"
    else:
        name = event.id
        title = "Delivery Attempts Exceeded"
        if event.is_terminated:
            title = "Delivery Terminated"
        rows["Deliveries"] = str(event.deliveries)
    if cause is not None:
        rows["Job"] = cause.id or "(unreadable)"
        rows["Reason"] = f"{cause.kind}: {cause.reason}"
    at = event.time.astimezone().strftime("%H:%M:%S")
    lines = [f"{label:>18}: {printable(value)}" for label, value in rows.items()]
    return "\n".join([f"[{at}] [{printable(name)}] {title}", "", *lines, ""])

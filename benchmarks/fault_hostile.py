"""Messages of strangers among good jobs: what they cost the others, and what is left.

They are written to the socket by hand, since no client sends most of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from benchmarks.fault_mixed import pictures
from benchmarks.fault_rig import NAMES, Rig, Supervisor, insistently, resident, rigged
from benchmarks.fault_supervisor import LOG
from benchmarks.hostility import ALLOWED, INBOX, SERVERS, strangers_message
from benchmarks.raw import Raw, RawPublisher
from bwpool.queue.connection import Connection
from bwpool.queue.dead import UNKNOWN
from bwpool.queue.drift import FAILURES_STREAM

Found = dict[str, Any]

CHUNK = 100
"""Messages that are sent at once."""

MOST_WAITING = 300
"""Undelivered messages at which no more are sent: what waits was not delivered, and
is nobody's fault."""

GOOD_WITHIN = 5.0
"""Seconds for a good job, from before it is sent until its output is there."""

MOST_GROWTH = 0.25
"""Of the supervisor's memory from the second tenth of the messages to the last: the
first fills what is remembered and allocated once."""

RECORD_BYTES = 4096
"""What the failures stream takes: less than some jobs have."""

BURST_WITHIN = 120.0
LISTED_WITHIN = 900.0
"""Seconds to list tens of thousands of dead, one by one."""


async def hostile(folder: Path, *, seed: int, quick: bool) -> Found:
    """Send what strangers send among good jobs, to a supervisor and then to a burst."""
    count, good = (800, 40) if quick else (50_000, 1000)
    rng = random.Random(seed)  # noqa: S311 - a schedule, no secret
    pictures(folder)
    consumer = {"max_deliver": 3, "filter_subject": f"{NAMES.stream}.>"}
    async with rigged(folder, max_msg_bytes=-1, **consumer) as rig:
        await _limit_records(rig)
        before = snapshot(folder, rig.out)
        async with (
            RawPublisher(rig.server.port) as publisher,
            _events(rig) as events,
            Sending(rig, publisher, rng) as sending,
        ):
            supervisor = await rig.supervisor(log_level="info").start()
            async with Listener(rig.connection) as listener:
                memory = await sending.send(count, good, supervisor)
                await rig.wait_until_empty(600)
            # Who hears everything has the server deliver to pulls that have ended.
            is_alive = supervisor.is_alive
            drained = await _timed(supervisor.drain())
            await sending.send(count // 25, good // 25, None)
            burst = await _burst(rig)
            events_live = events.returncode is None
        late = sending.late()
        outside = snapshot(folder, rig.out) - before
        found = await _account(rig)
    growth = memory[-1] / memory[1] - 1
    return {
        "hostile": sending.hostile,
        "good": len(sending.sent),
        "good_not_done": len(sending.missing()),
        "slowest_good_seconds": round(max(sending.took()), 2),
        "supervisor_lives": is_alive,
        "events_lives": events_live,
        "drain_seconds": drained,
        "burst_seconds": burst,
        "supervisor_mb": [round(each / 1e6, 1) for each in memory],
        "growth": round(growth, 3),
        **found,
        "written_outside": sorted(outside),
        "forbidden_subjects": sorted(listener.forbidden),
        "printed_raw": _printed_raw(folder),
        "ok": not (late or outside or listener.forbidden or _printed_raw(folder))
        and not (found["unaccounted"] or found["unexplained"] or found["gone_undone"])
        and is_alive
        and events_live
        and burst < BURST_WITHIN
        # So few messages as in the quick size fill no memory.
        and (quick or growth < MOST_GROWTH),
    }


async def _timed(ending: Any) -> float:
    started = time.monotonic()
    await ending
    return round(time.monotonic() - started, 2)


async def _limit_records(rig: Rig) -> None:
    """Have the failures stream refuse what is long."""
    info = await rig.connection.api(f"STREAM.INFO.{FAILURES_STREAM}")
    config = info["config"] | {"max_msg_size": RECORD_BYTES}
    await rig.connection.api(f"STREAM.UPDATE.{FAILURES_STREAM}", config)


async def _burst(rig: Rig) -> float:
    """Have a burst deal with what is left; return the seconds that it took."""
    supervisor = rig.supervisor(burst=True, log_level="info")
    await supervisor.launch()
    started = time.monotonic()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(BURST_WITHIN):
            await supervisor.process.wait()
    await supervisor.kill()
    return round(time.monotonic() - started, 2)


async def _account(rig: Rig) -> Found:
    """Compare what the stream holds with the dead and with what was converted."""
    info = await rig.connection.api(f"STREAM.INFO.{NAMES.stream}")
    state = info["state"]
    failed = await insistently(rig.failed, LISTED_WITHIN)
    converted = (rig.folder / LOG).read_bytes().count(b"\n")
    rescued = (rig.folder / "supervisor.log").read_bytes().count(b'"job.rescued"')
    gone = state["last_seq"] - state["messages"]
    return {
        "stored": state["last_seq"],
        "converted": converted,
        "rescued": rescued,
        "failed": len(failed),
        "unaccounted": state["messages"] - len(failed),
        "unexplained": sum(job.kind == UNKNOWN for job in failed),
        "gone_undone": max(0, gone - converted - rescued),
    }


EVENTS = "events.log"


@contextlib.asynccontextmanager
async def _events(rig: Rig) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `bwpool events` all the while, its output in a file."""
    with (rig.folder / EVENTS).open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bwpool", "events"),
            env=os.environ | {"NATS_URL": rig.server.url},
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _printed_raw(folder: Path) -> bool:
    """Whether `events` has printed anything that could steer a terminal."""
    lines = (folder / EVENTS).read_text(errors="surrogateescape").split("\n")
    return not all(map(str.isprintable, lines))


class Sending:
    """Sends messages of strangers and good jobs, and times the good ones."""

    def __init__(self, rig: Rig, publisher: RawPublisher, rng: random.Random) -> None:
        self.hostile = 0
        self.sent: dict[str, float] = {}
        """When each good job was sent."""
        self._done: dict[str, float] = {}
        self._rig = rig
        self._publisher = publisher
        self._rng = rng
        self._image = (rig.folder / "whole.jpg").as_uri()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.sleep(0.1)  # the last look
        self._task.cancel()

    async def send(
        self, hostile: int, good: int, watched: Supervisor | None
    ) -> list[int]:
        """Send so many of both; return a supervisor's memory after each tenth."""
        chunks = max(10, hostile // CHUNK)
        memory: list[int] = []
        for number in range(chunks):
            each = hostile // chunks + (number < hostile % chunks)
            messages = [
                strangers_message(self._rig.folder, self._rng) for _ in range(each)
            ]
            self.hostile += each
            for _ in range(good * number // chunks, good * (number + 1) // chunks):
                messages.insert(self._rng.randrange(len(messages)), self._good(watched))
            await self._publisher.publish(messages)
            if watched is not None:
                while (await self._rig.depth()).waiting > MOST_WAITING:
                    await asyncio.sleep(0.02)
                if (number + 1) * 10 // chunks > number * 10 // chunks:
                    memory.append(resident(watched.process.pid))
        return memory

    def missing(self) -> set[str]:
        """Return the good jobs that were never done."""
        return self.sent.keys() - self._done.keys()

    def took(self) -> list[float]:
        """Return the seconds of each good job that was sent to a supervisor at work."""
        return [
            self._done[job_id] - sent
            for job_id, sent in self.sent.items()
            if job_id.startswith("good") and job_id in self._done
        ]

    def late(self) -> bool:
        """Whether a good job was not done, or not in time."""
        return bool(self.missing()) or max(self.took()) > GOOD_WITHIN

    def _good(self, watched: Supervisor | None) -> Raw:
        """Make a job; one that has to wait for a supervisor is not timed."""
        job_id = f"{'good' if watched else 'later'}-{len(self.sent)}"
        self.sent[job_id] = time.monotonic()
        payload = orjson.dumps({"id": job_id, "image": self._image})
        return Raw(NAMES.subject.encode(), payload)

    async def _watch(self) -> None:
        log = self._rig.folder / LOG
        log.touch()
        with log.open() as lines:
            while True:
                now = time.monotonic()
                for line in lines:
                    self._done.setdefault(line.rstrip("\n"), now)
                await asyncio.sleep(0.02)


def snapshot(folder: Path, out: Path) -> set[str]:
    """Return the files around the output folder, and near where ids might lead."""
    inner = (path for path in folder.iterdir() if path not in (out, folder / "server"))
    near = [*folder.parent.rglob("*.jpg"), *Path("/etc").rglob("up*")]
    return {
        str(path)
        for path in [*inner, *near]
        if out not in path.parents and path.suffix != ".log"
    }


class Listener:
    """Hears every message, and keeps the subjects that no job may reach."""

    def __init__(self, connection: Connection) -> None:
        self.forbidden: set[str] = set()
        self._connection = connection
        self._subscription: Subscription

    async def __aenter__(self) -> Self:
        self._subscription = await self._connection.client.subscribe(">", cb=self._hear)
        await self._connection.flush()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.flush()
        await self._subscription.unsubscribe()

    async def _hear(self, msg: Msg) -> None:
        is_fine = msg.subject.startswith((ALLOWED, INBOX))
        if not is_fine and not _is_advisory(msg.data):
            is_fine = msg.subject.startswith(SERVERS)
        if not is_fine:
            self.forbidden.add(msg.subject)


def _is_advisory(data: bytes) -> bool:
    """Whether it is what is told of a job that was done."""
    try:
        return set(orjson.loads(data)) == {"id"}
    except (ValueError, TypeError):
        return False

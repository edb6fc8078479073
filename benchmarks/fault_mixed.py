"""One run in which everything happens: poison, dying converters, supervisors, servers.

What is counted: good jobs without one valid output, poison that is not in the list of
failures with its right kind, still stored and with JetStream's own advisory, and
conversions done twice beyond what was in flight when something was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from PIL import Image

from benchmarks.fault_rig import NAMES, Rig, Supervisor, insistently, rigged
from bwpool.queue.dead import describe
from bwpool.queue.facts import read_depth

POISON = {
    "invalid": "invalid-job",
    "crash": "converter-crashed",
    "hang": "conversion-timeout",
    "missing": "source-missing",
    "truncated": "bad-image",
}
"""The kinds that the words in the jobs' ids have to lead to."""

CONVERTER_KILL_EVERY = 100
"""Jobs done between two kills of a converter."""


@dataclass(slots=True)
class Toll:
    """What was killed, and what that may cost."""

    converters: int = 0
    supervisors: int = 0
    servers: int = 0
    in_flight: int = 0
    """Deliveries under way at the kills, all together."""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from each kill of a supervisor or server to the next job done."""
    victims: set[int] = field(default_factory=set)
    """The converters killed."""


def pictures(folder: Path) -> Path:
    """Make a photograph-like picture, and the same cut short."""
    rows, columns = np.mgrid[0:450, 0:600]
    waves = [np.sin(rows / (9 + i)) * np.cos(columns / (13 - i)) for i in range(3)]
    pixels = (127 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)
    whole = folder / "whole.jpg"
    Image.fromarray(pixels).save(whole, quality=90)
    data = whole.read_bytes()
    (folder / "truncated.jpg").write_bytes(data[: len(data) // 2])
    # One that was just written might still be on its way.
    os.utime(folder / "truncated.jpg", (0, 0))
    return whole


def payloads(count: int, folder: Path, rng: random.Random) -> list[bytes]:
    """Make jobs, one in fifty poison of each kind in turn, in a random order."""
    jobs = [_job("good", i, folder) for i in range(count - count // 50)]
    words = list(POISON)
    jobs += [_job(words[i % len(words)], i, folder) for i in range(count // 50)]
    rng.shuffle(jobs)
    return jobs


def _job(word: str, number: int, folder: Path) -> bytes:
    names = {"missing": "nowhere.jpg", "truncated": "truncated.jpg"}
    image = (folder / names.get(word, "whole.jpg")).as_uri()
    job = orjson.dumps({"id": f"{word}-{number}", "image": image})
    return job[:-1] if word == "invalid" else job


def name_of(payload: bytes) -> str:
    """Return a job's id, even from a payload that is no JSON."""
    return payload.split(b'"')[3].decode()


class Mixed:
    """One run under a schedule of kills, drawn from a seed."""

    def __init__(self, rig: Rig, jobs: list[bytes], rng: random.Random) -> None:
        self.toll = Toll()
        self._rig = rig
        self._jobs = jobs
        self._rng = rng
        self._supervisor: Supervisor = rig.supervisor()
        self._done = 0

    async def run(self) -> float:
        """Go through the queue; return the seconds that it took."""
        await self._rig.publish(self._jobs)
        await self._supervisor.start()
        started = time.monotonic()
        following = asyncio.ensure_future(self._follow())
        try:
            await self._converters_die()
            await self._rig.wait_until_empty(600)
        finally:
            following.cancel()
        elapsed = time.monotonic() - started
        await self._supervisor.drain()
        return elapsed

    async def _follow(self) -> None:
        """Keep count of what is done."""
        while True:
            self._done = self._rig.conversions().total()
            await asyncio.sleep(0.05)

    def _schedule(self) -> Iterator[tuple[int, str]]:
        """Yield after how many jobs done what is killed besides converters."""
        count = len(self._jobs)
        events = ["supervisor", "stop", "supervisor", "kill", "supervisor"]
        for i, event in enumerate(events, 1):
            yield int(count * i / 6 * self._rng.uniform(0.9, 1.05)), event

    async def _converters_die(self) -> None:
        """Kill a converter each hundred jobs, and the rest at their times."""
        schedule = list(self._schedule())
        good = sum(b'"good-' in job for job in self._jobs)
        for goal in range(CONVERTER_KILL_EVERY, good, CONVERTER_KILL_EVERY):
            await self._reach(goal)
            if schedule and goal >= schedule[0][0]:
                await self._strike(schedule.pop(0)[1])
            else:
                await self._kill_a_converter()

    async def _reach(self, goal: int) -> None:
        async with asyncio.timeout(180):
            while self._done < goal:
                await asyncio.sleep(0.02)

    async def _kill_a_converter(self) -> None:
        pids = self._supervisor.converters()
        if not pids:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid := self._rng.choice(pids), signal.SIGKILL)
            self.toll.victims.add(pid)
            self.toll.converters += 1
            # The one under way, and one whose output was just being stored.
            self.toll.in_flight += 2

    async def _strike(self, event: str) -> None:
        """Kill a supervisor or a server, and time the next job done."""
        rig = self._rig
        depth = await insistently(lambda: read_depth(rig.connection, rig.facts))
        self.toll.in_flight += depth.in_flight
        started = time.monotonic()
        if event == "supervisor":
            await self._supervisor.kill()
            self.toll.supervisors += 1
            before = self._rig.conversions().total()
            self._supervisor = rig.supervisor()
            await self._supervisor.start()
        else:
            how = signal.SIGKILL if event == "kill" else signal.SIGTERM
            await rig.server.end(how)
            self.toll.servers += 1
            before = self._rig.conversions().total()
            await rig.server.start()
        await self._reach(before + 1)
        self.toll.recoveries.append(time.monotonic() - started)


async def mixed(folder: Path, *, seed: int, quick: bool) -> dict[str, Any]:
    """Run it, and count what is not as it has to be."""
    rng = random.Random(seed)  # noqa: S311 - a schedule, no secret
    pictures(folder)
    jobs = payloads(600 if quick else 5000, folder, rng)
    async with rigged(folder) as rig:
        run = Mixed(rig, jobs, rng)
        elapsed = await run.run()
        return await _account(rig, jobs, run.toll) | {"seconds": round(elapsed, 1)}


async def _account(rig: Rig, jobs: list[bytes], toll: Toll) -> dict[str, Any]:
    names = [name_of(job) for job in jobs]
    good = [name for name in names if name.startswith("good-")]
    poison = set(names) - set(good)
    invalid = rig.invalid_outputs(good)
    stored = await rig.messages()
    kept = {name_of(message.payload): message.seq for message in stored}
    kinds = {job.seq: job.kind for job in await rig.failed()}
    deaths = await rig.deaths()
    wrong = {
        name: kinds.get(kept.get(name, 0), "not listed")
        for name in poison
        if kinds.get(kept.get(name, 0)) != POISON[name.partition("-")[0]]
    }
    ours = {
        name
        for name in wrong
        if name in kept and await _is_ours(rig, kept[name], toll.victims)
    }
    silent = [name for name in poison if kept.get(name) not in deaths]
    twice = sum(n - 1 for name, n in rig.conversions().items() if n > 1)
    lost = len(invalid) + len(poison - kept.keys())
    return {
        "jobs": len(jobs),
        "lost": lost,
        "wrong_kind": {name: wrong[name] for name in wrong.keys() - ours},
        "last_attempt_killed_by_us": len(ours),
        "still_queued": len(kept.keys() - poison),
        "without_advisory": len(silent),
        "done_twice": twice,
        "in_flight_at_kills": toll.in_flight,
        "killed": f"{toll.converters} converters, {toll.supervisors} supervisors, "
        f"{toll.servers} servers",
        "recovery_seconds": [round(each, 1) for each in toll.recoveries],
        "ok": not (lost or wrong.keys() - ours or kept.keys() - poison)
        and twice <= toll.in_flight
        and len(silent) <= 2 * toll.servers,
    }


async def _is_ours(rig: Rig, seq: int, victims: set[int]) -> bool:
    """Whether we killed the converter in which a job's last attempt failed."""
    case = await describe(rig.connection, NAMES, seq)
    last = case.records[-1].converter if case.records else None
    return last is not None and last.pid in victims

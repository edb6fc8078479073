"""The smaller runs of `faults`: each breaks one thing, and counts what it cost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.fault_mixed import pictures
from benchmarks.fault_rig import (
    LOOK_EVERY,
    NAMES,
    Rig,
    Server,
    free_port,
    resident,
    rigged,
)
from bwpool.queue.dead import describe
from bwpool.queue.drift import SECOND

Found = dict[str, Any]

NAPS = 250
"""Jobs that three slots do in about two seconds."""


def plain(word: str, count: int, image: str = "file:///x") -> list[bytes]:
    """Make jobs that do what their first word says."""
    return [orjson.dumps({"id": f"{word}-{i}", "image": image}) for i in range(count)]


HANG = 3.0
"""Seconds after which a hang is killed."""


async def hang(folder: Path, *, seed: int, quick: bool) -> Found:
    """Compare three slots beside one that hangs with three slots undisturbed."""
    del seed
    rounds = 1 if quick else 5
    alone: list[float] = []
    beside: list[float] = []
    deaths: list[float] = []
    for place, slots in ("alone", 3), ("beside", 4):
        (folder / place).mkdir()
        async with rigged(folder / place, ack_wait=30 * SECOND, max_deliver=1) as rig:
            supervisor = await rig.supervisor(procs=slots, timeout=HANG).start()
            for number in range(rounds):
                if place == "alone":
                    alone.append(await _naps(rig, number))
                else:
                    rate, took = await _naps_beside_a_hang(rig, number)
                    beside.append(rate)
                    deaths.append(took)
            await supervisor.drain()
    share = median(beside) / median(alone)
    return {
        "undisturbed_per_s": [round(rate, 1) for rate in alone],
        "beside_a_hang_per_s": [round(rate, 1) for rate in beside],
        "share": round(share, 3),
        "killed_after_seconds": [round(took, 2) for took in deaths],
        "ok": share >= 0.9 and all(HANG <= took <= HANG + 0.5 for took in deaths),
    }


async def _naps_beside_a_hang(rig: Rig, number: int) -> tuple[float, float]:
    """Return the naps a second during a hang, and the seconds until it was killed."""
    begun = rig.folder / "begun.log"
    await rig.publish([orjson.dumps({"id": f"hang-{number}", "image": "file:///x"})])
    while not begun.exists() or f"hang-{number}" not in begun.read_text():
        await asyncio.sleep(LOOK_EVERY)
    rate = await _naps(rig, number)
    while len(dead := await rig.failed()) <= number:
        await asyncio.sleep(LOOK_EVERY)
    case = await describe(rig.connection, NAMES, dead[-1].seq)
    return rate, case.records[-1].elapsed


async def _naps(rig: Rig, number: int) -> float:
    """Return how many jobs that only sleep are done in a second."""
    before = rig.conversions().total()
    image = pictures(rig.folder).as_uri()
    jobs = ({"id": f"nap-{number}-{i}", "image": image} for i in range(NAPS))
    started = time.monotonic()
    await rig.publish(map(orjson.dumps, jobs))
    while rig.conversions().total() < before + NAPS:
        await asyncio.sleep(LOOK_EVERY)
    return NAPS / (time.monotonic() - started)


async def blocked(folder: Path, *, seed: int, quick: bool) -> Found:
    """Name sources that block whoever opens them."""
    del seed, quick
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to(folder / "loop")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "socket"))
    names = ["/dev/zero", "/dev/random", "/dev/tty", str(folder)]
    names += [str(folder / name) for name in ("fifo", "loop", "socket")]
    jobs = [
        orjson.dumps({"id": f"blocked-{i}", "image": f"file://{name}"})
        for i, name in enumerate(names)
    ]
    async with rigged(folder) as rig:
        supervisor = await rig.supervisor().start()
        started = time.monotonic()
        await rig.publish(jobs)
        await rig.wait_until_empty(30)
        elapsed = time.monotonic() - started
        await supervisor.drain()
        kinds = {names[job.seq - 1]: job.kind for job in await rig.failed()}
    listening.close()
    refused = [kind == "source-refused" for kind in kinds.values()]
    return {
        "sources": kinds,
        "seconds": round(elapsed, 2),
        "ok": len(refused) == len(names) and all(refused) and elapsed < 3,
    }


async def cluster(folder: Path, *, seed: int, quick: bool) -> Found:
    """Kill the stream leader's node and a supervisor of three."""
    del seed
    count = 400 if quick else 2000
    image = pictures(folder).as_uri()
    servers = _cluster(folder)
    async with rigged(folder, servers) as rig:
        urls = ",".join(server.url for server in servers)
        rig.server.cluster = ""
        supervisors = [rig.supervisor(procs=2) for _ in servers]
        for supervisor in supervisors:
            supervisor._url = urls
            await supervisor.start()
        jobs = plain("nap", count, image)
        publishing = asyncio.ensure_future(rig.publish(jobs))
        while rig.conversions().total() < count // 4:
            await asyncio.sleep(LOOK_EVERY)
        info = await rig.connection.api(f"STREAM.INFO.{NAMES.stream}")
        leader = info["cluster"]["leader"]
        node = next(server for server in servers if server.folder.name == leader)
        started = time.monotonic()
        in_flight = (await rig.depth()).in_flight
        await asyncio.gather(node.end(signal.SIGKILL), supervisors[0].kill())
        # What was delivered before tells nothing of the cluster.
        goal = min(count, rig.conversions().total() + in_flight + 1)
        while rig.conversions().total() < goal:
            await asyncio.sleep(LOOK_EVERY)
        recovery = time.monotonic() - started
        await publishing
        await rig.wait_until_empty(180)
        for supervisor in supervisors[1:]:
            await supervisor.drain()
        names = [f"nap-{i}" for i in range(count)]
        lost = rig.invalid_outputs(names)
        dead = await rig.failed()
        twice = sum(n - 1 for n in rig.conversions().values())
    return {
        "jobs": count,
        "lost": len(lost),
        "dead": len(dead),
        "done_twice": twice,
        "in_flight_at_kill": in_flight,
        "recovery_seconds": round(recovery, 1),
        "ok": not lost and not dead,
    }


def _cluster(folder: Path) -> list[Server]:
    """Describe three servers that know of each other."""
    ports = [free_port() for _ in range(3)]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        Server(
            folder / f"node-{i}",
            f'cluster {{ name: "c", listen: "127.0.0.1:{port}", routes: [{routes}] }}',
        )
        for i, port in enumerate(ports)
    ]


async def requeue(folder: Path, *, seed: int, quick: bool) -> Found:
    """Interrupt `failed requeue --all` by SIGKILL half way, and run it again."""
    del seed
    count = 200 if quick else 1000
    async with rigged(folder, max_deliver=2) as rig:
        supervisor = await rig.supervisor().start()
        await rig.publish(orjson.dumps({"id": f"bad-{i}"}) for i in range(count))
        await rig.wait_until_empty(120)
        await supervisor.drain()
        dead = len(await rig.failed())
        killed = await _requeue(rig, kill_after=count // 2)
        between = len({m.seq for m in await rig.messages()})
        started = time.monotonic()
        await _requeue(rig)
        elapsed = time.monotonic() - started
        ids = [orjson.loads(m.payload)["id"] for m in await rig.messages()]
        waiting = (await rig.depth()).waiting
        left = len(await rig.failed())
    return {
        "dead": dead,
        "moved_before_the_kill": killed,
        "stored_after_the_kill": between,
        "queued": waiting,
        "lost": count - len(set(ids)),
        "doubled": len(ids) - len(set(ids)),
        "still_dead": left,
        "second_run_seconds": round(elapsed, 2),
        "ok": len(ids) == len(set(ids)) == waiting == count and left == 0,
    }


async def _requeue(rig: Rig, kill_after: int | None = None) -> int:
    """Requeue everything; killed after so many lines, return how many there were."""
    command = ("-m", "bwpool", "failed", "requeue", "--all", "--json")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env=os.environ | {"NATS_URL": rig.server.url},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines = 0
    async for _ in process.stdout:
        lines += 1
        if lines == kill_after:
            process.kill()
    await process.wait()
    return lines


async def crashes(folder: Path, *, seed: int, quick: bool) -> Found:
    """Kill the supervisor at each delivery of the same jobs until none is left."""
    del seed
    count, rounds = (40, 6) if quick else (200, 6)
    async with rigged(folder, ack_wait=SECOND) as rig:
        await rig.publish(plain("slow", count, pictures(folder).as_uri()))
        for _ in range(rounds):
            supervisor = rig.supervisor(procs=16, timeout=30.0)
            await supervisor.start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(4):
                    while not await _all_delivered(rig, count):
                        await asyncio.sleep(LOOK_EVERY)
            await supervisor.kill()
        supervisor = await rig.supervisor(procs=16, timeout=30.0).start()
        await rig.wait_until_empty(300)
        await supervisor.drain()
        lost = rig.invalid_outputs(f"slow-{i}" for i in range(count))
        dead = len(await rig.failed())
    return {
        "jobs": count,
        "kills": rounds,
        "lost": len(lost),
        "dead": dead,
        "ok": not lost and not dead,
    }


async def _all_delivered(rig: Rig, count: int) -> bool:
    return (await rig.depth()).in_flight >= count


async def killer(folder: Path, *, seed: int, quick: bool) -> Found:
    """Have one job kill its supervisor each time, until nobody gets it any more."""
    del seed, quick
    async with rigged(folder, ack_wait=SECOND) as rig:
        await rig.publish(plain("killsupervisor", 1))
        kills = 0
        while not (await rig.depth()).is_empty:
            supervisor = rig.supervisor(procs=1)
            await supervisor.launch()
            while supervisor.is_alive and not (await rig.depth()).is_empty:
                await asyncio.sleep(0.2)
            kills += not supervisor.is_alive
            await supervisor.kill()
        dead = await rig.failed()
        stored = len(await rig.messages())
        begun = len((folder / "begun.log").read_text().split())
    return {
        "supervisors_killed": kills,
        "conversions_begun": begun,
        "kinds": [job.kind for job in dead],
        # The job, and its copy where a rescuer died before its last word.
        "still_stored": stored,
        "ok": 1 <= len(dead) == stored <= 2 and kills <= 10,
    }


async def memory(folder: Path, *, seed: int, quick: bool) -> Found:
    """Watch the memory of a supervisor and its converters over many jobs."""
    del seed
    count = 2000 if quick else 20_000
    image = pictures(folder).as_uri()
    async with rigged(folder) as rig:
        supervisor = await rig.supervisor(procs=2).start()
        samples = []
        for part in range(1, 11):
            jobs = (
                orjson.dumps({"id": f"good-{i}", "image": image})
                for i in range(count * (part - 1) // 10, count * part // 10)
            )
            await rig.publish(jobs)
            while rig.conversions().total() < count * part // 10:
                await asyncio.sleep(0.1)
            converters = max(map(resident, supervisor.converters()))
            samples.append((resident(supervisor.process.pid), converters))
        shared = len(list(Path("/dev/shm").glob("sem.mp-*")))  # noqa: S108
        await supervisor.drain()
        left = len(list(Path("/dev/shm").glob("sem.mp-*")))  # noqa: S108
    own, theirs = zip(*samples, strict=True)
    # The first tenth fills what is remembered and allocated once.
    growth = [series[-1] / series[1] - 1 for series in (own, theirs)]
    return {
        "jobs": count,
        "supervisor_mb": [round(each / 1e6, 1) for each in own],
        "largest_converter_mb": [round(each / 1e6, 1) for each in theirs],
        "growth": [round(each, 3) for each in growth],
        "semaphores_given_back": shared - left,
        "ok": max(growth) < 0.25,
    }

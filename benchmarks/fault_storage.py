"""Trouble with storage: of one output, of one supervisor, of all sources or outputs.

Where mounts and immutable files are allowed, the trouble is real; elsewhere system
calls fail in the converters, and what is found says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any, Self

import orjson

from benchmarks.fault_mixed import pictures
from benchmarks.fault_rig import LOOK_EVERY, Rig, Supervisor, rigged
from benchmarks.fault_supervisor import LOG, TROUBLES
from bwpool.pool.pace import MAX_DEPTH
from bwpool.queue.drift import SECOND

Found = dict[str, Any]
Mount = tuple[str | Path, ...]

TMPFS: Mount = ("-t", "tmpfs", "tmpfs")

BATCH = 500
"""Jobs that wait at least, while paces are compared."""

BAD = "unplaced"
"""The job whose output can't replace what is there."""


def _run(*command: str | Path) -> bool:
    """Run a command of the system; say whether it was allowed."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True)
    return done.returncode == 0


class Disk:
    """Something mounted at a folder, or failing calls where nothing may be mounted."""

    def __init__(self, folder: Path, trouble: Path, *mounts: Mount) -> None:
        self.is_real = False
        self._folder = folder
        self._trouble = trouble
        """The file that has calls fail while it is there."""
        self._mounts = cycle(mounts)
        """What to mount, one after the other."""
        folder.mkdir(exist_ok=True)

    def attach(self) -> None:
        """Mount it, each time the next one."""
        self.is_real = _run("mount", *next(self._mounts), self._folder)
        self._trouble.unlink(missing_ok=True)

    def detach(self) -> None:
        """Take it away, whoever uses it."""
        if self.is_real:
            _run("umount", "-l", self._folder)
        else:
            self._trouble.touch()


@contextlib.contextmanager
def attached(disk: Disk) -> Iterator[Disk]:
    """Have a disk there for a while."""
    disk.attach()
    try:
        yield disk
    finally:
        disk.detach()


def _jobs(word: str, start: int, end: int, image: Path) -> list[bytes]:
    uri = image.as_uri()
    numbers = range(start, end)
    return [orjson.dumps({"id": f"{word}-{i}", "image": uri}) for i in numbers]


# ── One output that can't be stored ──────────────────────────────────────────────


async def unplaced(folder: Path, *, seed: int, quick: bool) -> Found:
    """Time thumbnails alone, and beside one whose target can't be replaced."""
    del seed
    count, rounds = (300, 1) if quick else (1500, 5)
    image = pictures(folder)
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    async with rigged(folder, max_deliver=2) as rig:
        target = rig.out / f"{BAD}.jpg"
        target.touch()
        is_real = _run("chattr", "+i", target)
        if not is_real:
            Path(f"{rig.out}{TROUBLES['rename']}").touch()
        supervisor = await rig.supervisor(procs=2).start()
        try:
            for number in range(-1, rounds):  # the first one warms up
                for name, bad in ("without", []), ("with", [BAD]):
                    word = f"good-{name}-{number}"
                    jobs = _jobs(word, 0, count, image)
                    jobs[count // 3 : count // 3] = [
                        orjson.dumps({"id": each, "image": image.as_uri()})
                        for each in bad
                    ]
                    took = await _time(rig, jobs, count)
                    if number >= 0:
                        seconds[name].append(took)
            await rig.wait_until_empty(60)
            await supervisor.drain()
            failed = await rig.failed()
        finally:
            _run("chattr", "-i", target)
    # By pairs, since the machine's own pace drifts.
    pairs = zip(seconds["without"], seconds["with"], strict=True)
    share = median(without / beside for without, beside in pairs)
    kinds = sorted({job.kind or "" for job in failed})
    return {
        "immutable_file": is_real,
        "jobs": count,
        "seconds_without": [round(each, 2) for each in seconds["without"]],
        "seconds_with": [round(each, 2) for each in seconds["with"]],
        "share_of_the_pace": round(share, 3),
        "failed_as": kinds,
        "ok": share >= 0.9 - 0.2 * quick and kinds == ["conversion-failed"],
    }


async def _time(rig: Rig, jobs: list[bytes], count: int) -> float:
    """Return the seconds until so many more outputs have got their names."""
    goal = rig.conversions().total() + count
    started = time.monotonic()
    await rig.publish(jobs)
    async with asyncio.timeout(120):
        while rig.conversions().total() < goal:
            await asyncio.sleep(LOOK_EVERY)
    return time.monotonic() - started


# ── One supervisor whose outputs can't be stored ─────────────────────────────────


async def sick(folder: Path, *, seed: int, quick: bool) -> Found:
    """Compare a healthy supervisor's pace alone and beside sick ones of two kinds."""
    del seed
    seconds = 6.0 if quick else 60.0
    found: Found = {}
    for kind in ("no room", "no sync"):
        place = folder / kind.replace(" ", "-")
        place.mkdir()
        found |= await _beside(place, kind, seconds)
    shares = [value for name, value in found.items() if name.endswith("share")]
    held = [value for name, value in found.items() if name.endswith("most held")]
    lost = [value for name, value in found.items() if name.endswith(("lost", "dead"))]
    return found | {
        "depth": MAX_DEPTH,
        "ok": min(shares) >= 0.9 - 0.2 * quick
        and max(held) <= MAX_DEPTH
        and not any(lost),
    }


async def _beside(folder: Path, kind: str, seconds: float) -> Found:
    """Count what the healthy one does before, beside and after the sick one."""
    image = pictures(folder)
    ill, well = folder / "ill", folder / "well"
    for each in (ill, well):
        (each / "out").mkdir(parents=True)
    trouble = Path(f"{ill / 'out'}{TROUBLES['pwrite']}")
    disk = Disk(ill / "out", trouble, ("-o", "size=400k", *TMPFS))
    async with rigged(folder, ack_wait=30 * SECOND) as rig:
        url = rig.server.url
        async with _Feed(rig, image) as feed:
            healthy = await Supervisor(url, well / "out", procs=1).start()
            await asyncio.sleep(2)
            alone = [await _rate(well / LOG, seconds / 2)]
            with attached(disk):
                _break(ill / "out", kind, disk)
                log = ill / "held.log"
                sicken = Supervisor(url, ill / "out", procs=1, held=str(log))
                await sicken.start()
                beside = await _rate(well / LOG, seconds)
                held = [int(line) for line in log.read_text().split()]
                await sicken.drain()
                alone.append(await _rate(well / LOG, seconds / 2))
        await rig.wait_until_empty(600)
        await healthy.drain()
        stored = _names(well / LOG) | _names(ill / LOG)
        dead = len(await rig.failed())
    return {
        f"{kind}: real disk": disk.is_real,
        f"{kind}: alone_per_s": [round(each, 1) for each in alone],
        f"{kind}: beside_per_s": round(beside, 1),
        f"{kind}: share": round(beside / (sum(alone) / len(alone)), 3),
        f"{kind}: most held": max(held, default=0),
        f"{kind}: held at the end": held[-1] if held else 0,
        f"{kind}: lost": feed.count - len(stored),
        f"{kind}: dead": dead,
    }


def _break(out: Path, kind: str, disk: Disk) -> None:
    """Have small outputs stored at `out` alone, or no folder synced."""
    if kind == "no sync":
        Path(f"{out}{TROUBLES['fsync']}").touch()
    elif not disk.is_real:
        Path(f"{out}{TROUBLES['pwrite']}").touch()


class _Feed:
    """Keeps jobs waiting for as long as it is entered, and counts them."""

    def __init__(self, rig: Rig, image: Path) -> None:
        self.count = 0
        self._is_over = False
        self._rig = rig
        self._image = image

    async def __aenter__(self) -> Self:
        self._feeding = asyncio.ensure_future(self._feed())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await self._feeding

    async def _feed(self) -> None:
        while not self._is_over:
            if (await self._rig.depth()).waiting < BATCH:
                await self._add()
            await asyncio.sleep(0.2)

    async def _add(self) -> None:
        start, self.count = self.count, self.count + BATCH
        await self._rig.publish(_jobs("good", start, self.count, self._image))


async def _rate(log: Path, seconds: float) -> float:
    before, started = _lines(log), time.monotonic()
    await asyncio.sleep(seconds)
    return (_lines(log) - before) / (time.monotonic() - started)


def _lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _names(log: Path) -> set[str]:
    return set(log.read_text().split()) if log.exists() else set()


# ── Sources or outputs that are away for a while ─────────────────────────────────


async def away(folder: Path, *, seed: int, quick: bool) -> Found:
    """Take the sources' storage away in the middle, then that of the outputs."""
    del seed
    count, seconds = (400, 4.0) if quick else (2000, 60.0)
    found: Found = {"jobs": count, "seconds_away": seconds}
    for what in ("sources", "errors", "outputs"):
        place = folder / what
        place.mkdir()
        found |= await _away(place, what, count, seconds)
    bad = [v for name, v in found.items() if name.endswith(("lost", "dead", "astray"))]
    return found | {"ok": not any(bad)}


async def _away(folder: Path, what: str, count: int, seconds: float) -> Found:
    """Convert pictures, with `what` away from a third of them on."""
    image = pictures(folder)
    async with rigged(folder, max_deliver=1) as rig:
        with _disks(folder, image, rig.out) as disks:
            broken = disks[what]
            sources = folder / "sources"
            options = {"source_root": [str(sources)], "procs": 2}
            supervisor = await rig.supervisor(**options).start()
            await rig.publish(_jobs("good", 0, count, sources / image.name))
            await _reach(rig, count // 3)
            broken.detach()
            await asyncio.sleep(seconds)
            astray = _outputs(rig.out) if what == "outputs" and broken.is_real else 0
            done = rig.conversions().total()
            broken.attach()
            started = time.monotonic()
            await rig.wait_until_empty(300)
            took = time.monotonic() - started
            await supervisor.drain()
            lost = rig.invalid_outputs(f"good-{i}" for i in range(count))
            dead = len(await rig.failed())
    return {
        f"{what}: real disk": broken.is_real,
        f"{what}: done_before": done,
        f"{what}: lost": len(lost),
        f"{what}: dead": dead,
        f"{what}: astray": astray,
        f"{what}: done_after_seconds": round(took, 1),
    }


@contextlib.contextmanager
def _disks(folder: Path, image: Path, out: Path) -> Iterator[dict[str, Disk]]:
    """Have sources and outputs on disks; after a while sources are on another one."""
    unreadable = Path(f"{out}{TROUBLES['pread']}")
    with contextlib.ExitStack() as stack:
        copies = [folder / "first", folder / "second"]
        for copy in copies:
            stack.enter_context(attached(Disk(copy, folder / "unused", TMPFS)))
            shutil.copy(image, copy)
        kept = folder / "kept"
        kept.mkdir()
        unwritable = Path(f"{out}{TROUBLES['pwrite']}")
        binds = [("--bind", copy) for copy in copies]
        sources = Disk(folder / "sources", unreadable, *binds)
        outputs = Disk(out, unwritable, ("--bind", kept))
        stack.enter_context(attached(sources))
        stack.enter_context(attached(outputs))
        if not sources.is_real:
            shutil.copy(image, folder / "sources")
        yield {
            "sources": sources,
            "outputs": outputs,
            "errors": _Errors(folder, unreadable),
        }


def _outputs(folder: Path) -> int:
    return sum(1 for path in folder.iterdir() if not path.name.startswith("."))


class _Errors(Disk):
    """No disk that is gone, but one whose sources can't be read."""

    def attach(self) -> None:
        """Let sources be read."""
        self._trouble.unlink(missing_ok=True)


async def _reach(rig: Rig, goal: int) -> None:
    async with asyncio.timeout(120):
        while rig.conversions().total() < goal:
            await asyncio.sleep(LOOK_EVERY)

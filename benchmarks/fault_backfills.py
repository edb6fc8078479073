"""Backfills beside supervisors on one server: the same ids, other folders and methods.

What is counted: outputs that are missing, or not made as they were asked for, and what
is left of the backfills on the server and on the disk. One of them is killed on its way
and started again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks import leash
from benchmarks.fault_mixed import pictures
from benchmarks.fault_rig import LOOK_EVERY, NAMES, Rig, rigged

METHODS = ("threshold", "gray")
"""What the two backfills ask for; the supervisors dither."""

SUPERVISORS = 3


@dataclass(slots=True)
class Backfill:
    """One backfill, as a process that can be killed and started again."""

    source: Path
    out: Path
    method: str
    url: str | None = None

    @asynccontextmanager
    async def started(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run it; it ends with us."""
        argv = [sys.executable, "-m", "bwpool", "backfill", str(self.source)]
        argv += ["--out", str(self.out), "--method", self.method, "--procs", "1"]
        argv += ["--json", *(["--server", self.url] if self.url else [])]
        with self.out.with_suffix(".log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", leash.__file__, *argv),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def finish(self) -> dict[str, Any]:
        """Run it to its end; return what it reports, and its exit code."""
        async with self.started() as process:
            said, _ = await process.communicate()
        report: dict[str, Any] = json.loads(said or b"{}")
        return report | {"code": process.returncode}

    async def die_after(self, count: int) -> None:
        """Run it until so many outputs are there, then kill it."""
        async with self.started() as process, asyncio.timeout(120):
            while process.returncode is None and len(outputs(self.out)) < count:
                await asyncio.sleep(LOOK_EVERY)


def outputs(folder: Path) -> dict[str, Path]:
    """Return the outputs in a folder by name, temporaries left out."""
    return {path.name: path for path in folder.glob("[!.]*")} if folder.exists() else {}


async def backfills(folder: Path, *, seed: int, quick: bool) -> dict[str, Any]:
    """Run two of them beside three supervisors, all on the same ids."""
    del seed  # nothing is drawn here
    count = 40 if quick else 1000
    source = folder / "source"
    source.mkdir()
    whole = pictures(folder)
    for i in range(count):
        os.link(whole, source / f"{i}.jpg")
    wanted = [await _reference(folder, method) for method in (None, *METHODS)]
    async with rigged(folder) as rig:
        both = [Backfill(source, folder / m, m, rig.server.url) for m in METHODS]
        supervisors = [
            rig.supervisor(procs=1, timeout=30.0) for _ in range(SUPERVISORS)
        ]
        for supervisor in supervisors:
            await supervisor.start()
        jobs = [
            orjson.dumps({"id": str(i), "image": (source / f"{i}.jpg").as_uri()})
            for i in range(count)
        ]
        _, _, steady = await asyncio.gather(
            rig.publish(jobs), both[0].die_after(count // 4), both[1].finish()
        )
        reports = [await both[0].finish(), steady]
        await rig.wait_until_empty(120)
        for supervisor in supervisors:
            await supervisor.drain()
        left = await _left(rig)
    outs = (rig.out, *(each.out for each in both))
    wrong = {
        out.name: _wrong(out, data, count)
        for out, data in zip(outs, wanted, strict=True)
    }
    temporaries = [str(path) for out in outs for path in out.rglob(".bwpool-*")]
    done = [report.get("converted", 0) + report.get("skipped", 0) for report in reports]
    codes = [report["code"] for report in reports]
    return {
        "pictures": count,
        "missing_or_not_as_asked": wrong,
        "accounted_for": done,
        "skipped_after_kill": reports[0].get("skipped"),
        "exit_codes": codes,
        "left_on_server": left,
        "left_temporaries": temporaries,
        "ok": not (any(wrong.values()) or any(codes) or left or temporaries)
        and done == [count, count],
    }


async def _reference(folder: Path, method: str | None) -> bytes:
    """Return what a method makes of the picture, on a server of its own."""
    one = folder / "one"
    one.mkdir(exist_ok=True)
    picture = one / "one.jpg"
    if not picture.exists():
        os.link(folder / "whole.jpg", picture)
    method = method or "floyd-steinberg"
    out = folder / f"reference-{method}"
    await Backfill(one, out, method).finish()
    return (out / "one.jpg").read_bytes()


def _wrong(out: Path, data: bytes, count: int) -> int:
    """Count outputs that are not there, not as they should be, or nobody's."""
    there = outputs(out)
    names = {f"{i}.jpg" for i in range(count)}
    good = [name for name in names & there.keys() if there[name].read_bytes() == data]
    return count - len(good) + len(there.keys() - names)


async def _left(rig: Rig) -> list[str]:
    """List the messages and consumers in the stream that should be gone."""
    answer = await rig.connection.api(f"CONSUMER.NAMES.{NAMES.stream}")
    consumers = [name for name in answer["consumers"] if name != NAMES.consumer]
    info = await rig.connection.api(
        f"STREAM.INFO.{NAMES.stream}", {"subjects_filter": ">"}
    )
    return [*consumers, *(info["state"].get("subjects") or {})]

"""Measure what it costs a supervisor that its server is far away.

    python -m benchmarks.distance [--quick] [--json] [--work FOLDER]

Thumbnails, through the same proxy near and far, taking turns; and how far apart two
supervisors finish that share short jobs which turn into long ones, near and far.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import corpus
from benchmarks.command import (
    Found,
    parser_in_rounds,
    run,
    show_host,
    sizes_of,
    spelled,
)
from benchmarks.contenders import SETTLE, Batch, Contender, Turn, take_turn
from benchmarks.corpus import Sample
from benchmarks.far import far_away
from benchmarks.host import host
from benchmarks.lineup import bwpool
from benchmarks.processes import held_still
from benchmarks.queues import Queue, job, queueing
from benchmarks.supervise import Work
from benchmarks.supervised import Supervised, supervised
from benchmarks.turns import ROUNDS, ratios, summary, take_turns
from bwpool.settings import usable_cpus

PICTURES = ("thumbnail-baseline.jpg", "thumbnail-progressive.jpg")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to measure."""

    rounds: int = ROUNDS
    seconds: float = 5.0
    """How long a round of thumbnails takes, roughly."""
    trips: tuple[float, ...] = (0.0, 0.05, 0.2)
    """Seconds of a round trip to the server, the nearest first."""
    settle: float = SETTLE
    short: int = 2_000
    """Jobs that do nothing, before those that are long."""
    long: int = 200
    nap: float = 4.0
    """Seconds that a long one takes."""
    procs: int = 16
    """In each of two supervisors."""


QUICK = Sizes(1, 0.02, (0.0, 0.02), 0.1, 40, 12, 0.3, 2)


async def measure_thumbnails(
    queue: Queue, samples: list[Sample], folder: Path, sizes: Sizes
) -> list[Found]:
    """Compare the same supervisor at different distances."""
    turns: dict[str, Callable[[], Awaitable[Turn]]] = {}
    for trip in sizes.trips:
        turns[f"{trip}"] = partial(convert_from, trip, queue, samples, folder, sizes)
    taken = await take_turns(turns, sizes.rounds)
    rates = {name: [one.images_per_s for one in taken[name]] for name in taken}
    nearest = rates[f"{sizes.trips[0]}"]
    return [
        {
            "round_trip": trip,
            "images_per_s": summary(rates[f"{trip}"]),
            "of_nearest": ratios(rates[f"{trip}"], nearest),
        }
        for trip in sizes.trips
    ]


async def convert_from(
    trip: float, queue: Queue, samples: list[Sample], folder: Path, sizes: Sizes
) -> Turn:
    """Let bwpool convert a round of thumbnails, so far away from its server."""
    procs = usable_cpus()
    async with far_away(queue.url, trip) as url:
        near: Contender = bwpool(queue)
        command = tuple(word.replace("{url}", url) for word in near.command)  # type: ignore[attr-defined]
        count = near.count_for(sizes.seconds, samples, procs)
        batch = Batch(tuple(samples), count, folder / "out", procs, sizes.settle)
        return await take_turn(replace(near, command=command), batch)  # type: ignore[call-arg]


async def measure_turning(queue: Queue, trip: float, sizes: Sizes) -> Found:
    """Let two supervisors share short jobs that turn into long ones."""
    work = Work(sizes.procs, sizes.nap, every=1, short="short-")
    async with (
        far_away(queue.url, trip) as url,
        supervised(url, work) as one,
        supervised(url, work) as other,
    ):
        # Until both know how short jobs are, and hold many.
        await queue.fill(numbered("short-", sizes.short))
        await queue.wait_until_empty()
        with held_still(one.process, other.process):
            await queue.fill(numbered("short-again-", sizes.short))
            await queue.fill(numbered("long-", sizes.long))
        following = [asyncio.create_task(follow(each)) for each in (one, other)]
        await queue.wait_until_empty()
        await asyncio.sleep(0.5 + trip)  # the last stamps are on their way
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    apart = abs(one.stamps[-1].time - other.stamps[-1].time)
    return {
        "round_trip": trip,
        "short": 2 * sizes.short,
        "long": sizes.long,
        "seconds": sizes.nap,
        "settled": [one.stamps[-1].settled, other.stamps[-1].settled],
        "apart_seconds": apart,
        "apart_jobs": apart / sizes.nap,
    }


def numbered(prefix: str, count: int) -> list[bytes]:
    """Make jobs for converters that do nothing, or sleep."""
    return [job(f"{prefix}{number}", f"file:///{number}") for number in range(count)]


async def follow(supervisor: Supervised) -> None:
    """Take down a supervisor's stamps for as long as it makes some."""
    while True:
        await supervisor.until(supervisor.stamps[-1].settled + 1)


async def measure(sizes: Sizes, quick: bool, folder: Path) -> Found:
    """Take all the measurements."""
    samples = {one.name: one for one in corpus.render(folder, quick=quick)}
    thumbnails = [samples[name] for name in PICTURES]
    found: dict[str, Any] = {
        "benchmark": "distance",
        "host": host(folder),
        "corpus": corpus.digest(thumbnails),
    }
    async with queueing(folder / "queue") as queue:
        found["at"] = await measure_thumbnails(queue, thumbnails, folder, sizes)
        found["turning"] = [
            await measure_turning(queue, trip, sizes)
            for trip in (sizes.trips[0], sizes.trips[-1])
        ]
    return found


def show(found: Found) -> None:
    """Print the measurements."""
    show_host(found)
    print("\nthumbnails: ms to the server and back, images/s, of those at the nearest")
    for one in found["at"]:
        print(
            f"  {one['round_trip'] * 1e3:5.0f} {spelled(one['images_per_s']):>13}"
            f" {one['of_nearest']['median']:6.2f}"
        )
    for one in found["turning"]:
        print(
            f"\ntwo supervisors, {one['round_trip'] * 1e3:.0f} ms away, {one['short']} "
            f"short jobs, then {one['long']} of {one['seconds']:g} s: {one['settled']}"
            f" done, {one['apart_seconds']:.2f} s apart"
        )


def main() -> None:
    """Run the benchmark."""
    given = parser_in_rounds(__doc__).parse_args()
    run(given, partial(measure, sizes_of(given, QUICK, Sizes()), given.quick), show)


if __name__ == "__main__":
    main()

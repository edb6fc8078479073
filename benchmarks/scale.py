"""Measure what more converters bring: on more cores, in more slots, in two supervisors.

    python -m benchmarks.scale [--quick] [--json] [--work FOLDER]

1…N converters on photographs, beside the bare pool without a queue; slots that only
sleep, as if other machines converted, beside the same sleepers alone; a consumer that
allows fewer deliveries under way than there are slots; and how far apart two
supervisors finish that share a queue of long jobs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
from benchmarks.host import host
from benchmarks.lineup import bare_pool, bwpool
from benchmarks.processes import held_still
from benchmarks.queues import Queue, empty_jobs, queueing
from benchmarks.rounds import Round, compared, drain, sleep_alone
from benchmarks.supervise import Work
from benchmarks.supervised import Supervised, supervised
from benchmarks.turns import ratios, summary, take_turns
from bwpool.settings import usable_cpus

PICTURES = ("photo-444.jpg", "photo-420.jpg")
NAP = 0.02
"""Seconds: a photograph's conversion."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to measure."""

    rounds: int = 5
    seconds: float = 3.0
    """How long a contender takes for a round of photographs, roughly."""
    slots: tuple[int, ...] = (16, 64, 256)
    nap: float = NAP
    capped: tuple[int, int] = (64, 32)
    """Slots, and the consumer's max_ack_pending."""
    slept: float = 2.0
    """How long sleepers sleep for a round, roughly."""
    shared_jobs: int = 200
    shared_procs: int = 16
    """In each of two supervisors."""
    shared_nap: float = 4.0
    settle: float = SETTLE


QUICK = Sizes(1, 0.02, (4, 8), NAP, (8, 4), 0.2, 12, 2, 0.2, 0.1)


async def measure_procs(
    queue: Queue, samples: list[Sample], folder: Path, sizes: Sizes
) -> Found:
    """Compare how bwpool and the bare pool grow with the number of converters."""
    every = steps(usable_cpus())
    turns: dict[str, Callable[[], Awaitable[Turn]]] = {}
    for procs in every:
        for contender in (bwpool(queue), bare_pool()):
            batch = batch_for(contender, samples, folder, procs, sizes)
            turns[f"{contender.name} {procs}"] = partial(take_turn, contender, batch)
    taken = await take_turns(turns, sizes.rounds)
    rates = {name: [one.images_per_s for one in taken[name]] for name in taken}
    found = []
    for procs in every:
        ours, pools = rates[f"bwpool {procs}"], rates[f"bare pool {procs}"]
        growth = ratios(ours, rates["bwpool 1"])
        pools_growth = ratios(pools, rates["bare pool 1"])
        found.append(
            {
                "procs": procs,
                "bwpool": summary(ours),
                "bare_pool": summary(pools),
                "growth": growth,
                "pools_growth": pools_growth,
                "share_of_growth": ratios(growth["rounds"], pools_growth["rounds"]),
            }
        )
    return {"samples": [sample.name for sample in samples], "at": found}


def batch_for(
    contender: Contender, samples: list[Sample], folder: Path, procs: int, sizes: Sizes
) -> Batch:
    """Choose as many pictures as take about as long with any number of converters."""
    count = contender.count_for(sizes.seconds, samples, procs)
    return Batch(tuple(samples), count, folder / "out", procs, sizes.settle)


def steps(cpus: int) -> list[int]:
    """Return the numbers of converters to try: 1, 2, 4, … and all cores."""
    powers = [1 << power for power in range(cpus.bit_length()) if 1 << power < cpus]
    return [*powers, cpus]


async def measure_sleepers(queue: Queue, sizes: Sizes) -> list[Found]:
    """Compare sleeping slots with the same sleepers alone."""
    turns: dict[str, Callable[[], Awaitable[Any]]] = {}
    for slots in sizes.slots:
        jobs = jobs_for(slots, sizes)
        work = Work(slots, sizes.nap, every=jobs)
        turns[f"sleep {slots}"] = partial(drain, queue, work, jobs)
        alone = max(0.2, sizes.slept / 2)
        turns[f"alone {slots}"] = partial(sleep_alone, slots, sizes.nap, alone)
    rounds: dict[str, list[Any]] = await take_turns(turns, sizes.rounds)
    return [
        {
            "slots": slots,
            "seconds": sizes.nap,
            **compared(rounds[f"sleep {slots}"], rounds[f"alone {slots}"]),
        }
        for slots in sizes.slots
    ]


def jobs_for(slots: int, sizes: Sizes) -> int:
    """Return how many jobs keep so many slots asleep for a round."""
    return slots * max(1, round(sizes.slept / sizes.nap))


async def measure_capped(folder: Path, sizes: Sizes) -> Found:
    """Let slots sleep whose consumer allows fewer deliveries than there are slots."""
    slots, cap = sizes.capped
    jobs = jobs_for(cap, sizes)
    async with queueing(folder, max_ack_pending=cap) as queue:
        work = Work(slots, sizes.nap, every=jobs)
        rounds: list[Round] = [
            await drain(queue, work, jobs) for _ in range(sizes.rounds)
        ]
    return {
        "slots": slots,
        "seconds": sizes.nap,
        "max_ack_pending": cap,
        "jobs_per_s": summary([one.jobs_per_s for one in rounds]),
    }


async def measure_sharing(queue: Queue, sizes: Sizes) -> Found:
    """Let two supervisors share a queue of long jobs, and see when each one ends."""
    work = Work(sizes.shared_procs, sizes.shared_nap, every=1)
    async with (
        supervised(queue.url, work) as one,
        supervised(queue.url, work) as other,
    ):
        with held_still(one.process, other.process):
            await queue.fill(empty_jobs(sizes.shared_jobs))
        following = [asyncio.create_task(follow(each)) for each in (one, other)]
        await queue.wait_until_empty()
        await asyncio.sleep(0.5)  # the last stamps are on their way
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)
    apart = abs(one.stamps[-1].time - other.stamps[-1].time)
    return {
        "jobs": sizes.shared_jobs,
        "procs": sizes.shared_procs,
        "seconds": sizes.shared_nap,
        "settled": [one.stamps[-1].settled, other.stamps[-1].settled],
        "apart_seconds": apart,
        "apart_jobs": apart / sizes.shared_nap,
        "took_seconds": max(
            each.stamps[-1].time - each.stamps[0].time for each in (one, other)
        ),
    }


async def follow(supervisor: Supervised) -> None:
    """Take down a supervisor's stamps for as long as it makes some."""
    while True:
        await supervisor.until(supervisor.stamps[-1].settled + 1)


async def measure(sizes: Sizes, quick: bool, folder: Path) -> Found:
    """Take all the measurements."""
    samples = {one.name: one for one in corpus.render(folder, quick=quick)}
    photographs = [samples[name] for name in PICTURES]
    found: Found = {
        "benchmark": "scale",
        "host": host(folder),
        "corpus": corpus.digest(photographs),
    }
    async with queueing(folder / "queue") as queue:
        found["procs"] = await measure_procs(queue, photographs, folder, sizes)
        found["sleeping"] = await measure_sleepers(queue, sizes)
        found["sharing"] = await measure_sharing(queue, sizes)
    found["capped"] = await measure_capped(folder / "capped", sizes)
    return found


def show(found: Found) -> None:
    """Print the measurements."""
    show_host(found)
    print("\nphotographs: converters, images/s, bare pool, growth, of the pool's")
    for one in found["procs"]["at"]:
        print(
            f"  {one['procs']:4} {spelled(one['bwpool'], ',.1f'):>13}"
            f" {spelled(one['bare_pool'], ',.1f'):>13}"
            f" {one['growth']['median']:7.3f} {one['share_of_growth']['median']:7.3f}"
        )
    print("\nsleepers: slots, jobs/s, alone, share, supervisor's µs a job")
    for one in found["sleeping"]:
        print(
            f"  {one['slots']:4} {spelled(one['jobs_per_s']):>13}"
            f" {spelled(one['alone_per_s']):>13}"
            f" {one['share_of_alone']['median']:7.3f}"
            f" {one['cpu_us_per_job']['median']:7.1f}"
        )
    capped = found["capped"]
    print(
        f"\n{capped['slots']} sleepers, max_ack_pending {capped['max_ack_pending']}: "
        f"{spelled(capped['jobs_per_s'])} jobs/s"
    )
    shared = found["sharing"]
    print(
        f"\ntwo supervisors, {shared['jobs']} jobs of {shared['seconds']:g} s: "
        f"{shared['settled']} done, {shared['apart_seconds']:.2f} s apart"
    )


def main() -> None:
    """Run the benchmark."""
    given = parser_in_rounds(__doc__).parse_args()
    run(given, partial(measure, sizes_of(given, QUICK, Sizes()), given.quick), show)


if __name__ == "__main__":
    main()

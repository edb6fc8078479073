"""Measure what the queue costs a job: converters that do nothing, or only sleep.

Through a real JetStream that stores in files, on the same cores, with an advisory and
a confirmed ack for every job:

    python -m benchmarks.dispatch [--quick] [--json] [--work FOLDER]

Jobs are published before the clock starts; it stops when the server has confirmed the
last ack. CPU is the supervisor process's own, all its threads. The sleepers are
compared with the same sleepers alone, in the same round.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.command import (
    Found,
    parser_in_rounds,
    run,
    show_host,
    sizes_of,
    spelled,
)
from benchmarks.host import host
from benchmarks.processes import held_still
from benchmarks.queues import Queue, empty_jobs, queueing
from benchmarks.rounds import (
    Round,
    check_empty,
    compared,
    cost,
    describe,
    drain,
    sleep_alone,
)
from benchmarks.supervise import Work
from benchmarks.supervised import supervised
from benchmarks.turns import ROUNDS, summary, take_turns

SLOTS = 2
NAP = 0.003
"""Seconds: a thumbnail's conversion."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to measure."""

    rounds: int = ROUNDS
    jobs: int = 40_000
    """No-op jobs a round."""
    sleepers: tuple[tuple[int, int], ...] = ((16, 8_000), (64, 24_000))
    """Slots that sleep, and jobs a round."""
    alone: float = 1.5
    """Seconds that the sleepers alone are counted."""
    shallow: int = 1_000
    deep: int = 200_000
    """Messages in the stream."""
    windows: int = 20
    """How often `shallow` jobs are done, in a stream that holds no more, or `deep`."""


QUICK = Sizes(2, 2_000, ((4, 400), (8, 800)), 0.3, 100, 2_000, 3)


async def warm_up(queue: Queue, jobs: int) -> None:
    """Do a round that isn't counted, but whose advisories are."""
    heard = set()

    async def hear(message) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
        heard.add(message.data)

    listening = await queue.connection.client.subscribe("advisory.>", cb=hear)
    await drain(queue, Work(SLOTS, every=jobs), jobs)
    await queue.connection.flush()
    await listening.unsubscribe()
    if len(heard) != jobs:
        sys.exit(f"{jobs} jobs, but {len(heard)} advisories")


async def measure_rounds(queue: Queue, sizes: Sizes) -> Found:
    """Let no-op converters, sleepers, and the same sleepers alone take turns."""
    drains: dict[str, Callable[[], Awaitable[Round]]] = {
        "idle": partial(drain, queue, Work(SLOTS, every=sizes.jobs), sizes.jobs)
    }
    naps: dict[str, Callable[[], Awaitable[float]]] = {}
    for slots, jobs in sizes.sleepers:
        work = Work(slots, NAP, every=jobs)
        drains[f"sleep {slots}"] = partial(drain, queue, work, jobs)
        naps[f"alone {slots}"] = partial(sleep_alone, slots, NAP, sizes.alone)
    rounds: dict[str, list[Any]] = await take_turns({**drains, **naps}, sizes.rounds)
    idle = describe(rounds["idle"])
    return {
        "jobs_per_s": idle["jobs_per_s"]["median"],
        "cpu_us_per_job": idle["cpu_us_per_job"]["median"],
        "idle": {"slots": SLOTS, "jobs": sizes.jobs, **idle},
        "sleeping": [
            {
                "slots": slots,
                "seconds": NAP,
                "jobs": jobs,
                **compared(rounds[f"sleep {slots}"], rounds[f"alone {slots}"]),
            }
            for slots, jobs in sizes.sleepers
        ],
    }


async def measure_depth(queue: Queue, sizes: Sizes) -> Found:
    """Compare the cost of a job in a short queue with that in a long one."""
    shallow = await costs_in_short_queue(queue, sizes)
    server, written = queue.cpu_seconds, queue.written_bytes
    await queue.fill(empty_jobs(sizes.deep))
    server, written = queue.cpu_seconds - server, queue.written_bytes - written
    stored = await queue.stored_bytes()
    costs = await costs_in_long_queue(queue, sizes)
    # As far into a supervisor's life; the first window contains its start.
    deep = costs[1 : sizes.windows + 1]
    tenths = falling(costs, sizes)
    return {
        "at": [
            {"messages": sizes.shallow, "cpu_us_per_job": summary(shallow)},
            {"messages": sizes.deep, "cpu_us_per_job": summary(deep)},
        ],
        "deep_to_shallow": median(deep) / median(shallow),
        "falling": tenths,
        "last_to_first": tenths[-1]["cpu_us_per_job"] / tenths[0]["cpu_us_per_job"],
        "publishing": {
            "server_us_per_job": server / sizes.deep * 1e6,
            "written_bytes_per_job": written / sizes.deep,
            "stored_bytes_per_job": stored / sizes.deep,
        },
    }


async def costs_in_short_queue(queue: Queue, sizes: Sizes) -> list[float]:
    """Let a supervisor empty the same short queue again and again."""
    async with supervised(queue.url, Work(SLOTS, every=sizes.shallow)) as supervisor:
        for number in range(1, sizes.windows + 2):
            with held_still(supervisor.process):
                await queue.fill(empty_jobs(sizes.shallow))
            await supervisor.until(number * sizes.shallow)
        await check_empty(queue)
    return [cost(*pair) for pair in pairwise(supervisor.stamps)][1:]


async def costs_in_long_queue(queue: Queue, sizes: Sizes) -> list[float]:
    """Let a supervisor empty a queue that is long at first."""
    async with supervised(queue.url, Work(SLOTS, every=sizes.shallow)) as supervisor:
        await supervisor.until(sizes.deep)
        await check_empty(queue)
    return [cost(*pair) for pair in pairwise(supervisor.stamps)]


def falling(costs: list[float], sizes: Sizes) -> list[Found]:
    """Tell the cost of a job while a long queue is emptied, a tenth at a time."""
    step = max(1, len(costs) // 10)
    return [
        {
            "messages": sizes.deep - start * sizes.shallow,
            "cpu_us_per_job": median(costs[start : start + step]),
        }
        for start in range(0, len(costs), step)
    ]


async def measure(sizes: Sizes, folder: Path) -> Found:
    """Take all the measurements."""
    found: Found = {"benchmark": "dispatch", "host": host(folder)}
    async with queueing(folder) as queue:
        await warm_up(queue, sizes.jobs)
        found.update(await measure_rounds(queue, sizes))
        found["depth"] = await measure_depth(queue, sizes)
    return found


def show(found: Found) -> None:
    """Print the measurements."""
    show_host(found)
    idle = found["idle"]
    print(f"\n{idle['slots']} converters that do nothing")
    print(f"  jobs a second        {spelled(idle['jobs_per_s'])}")
    print(f"  supervisor, µs a job {spelled(idle['cpu_us_per_job'], '.1f')}")
    print(f"  server, µs a job     {spelled(idle['server_us_per_job'], '.1f')}")
    for one in found["sleeping"]:
        print(f"\n{one['slots']} converters that sleep {one['seconds'] * 1e3:g} ms")
        print(f"  jobs a second        {spelled(one['jobs_per_s'])}")
        print(f"  the same alone       {spelled(one['alone_per_s'])}")
        print(f"  share of that        {spelled(one['share_of_alone'], '.3f')}")
        print(f"  supervisor, µs a job {spelled(one['cpu_us_per_job'], '.1f')}")
    print("\nsupervisor, µs a job, by messages in the stream")
    for one in found["depth"]["at"]:
        print(f"  {one['messages']:>9,} {spelled(one['cpu_us_per_job'], '.1f')}")
    print(f"  ratio {found['depth']['deep_to_shallow']:.3f}")
    ratio = found["depth"]["last_to_first"]
    print(f"  last tenth of a long run to the first {ratio:.3f}")


def main() -> None:
    """Run the benchmark."""
    given = parser_in_rounds(__doc__).parse_args()
    sizes = sizes_of(given, QUICK, Sizes())
    run(given, partial(measure, sizes), show)


if __name__ == "__main__":
    main()

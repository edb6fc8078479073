"""Measure how many pictures a second bwpool converts, beside what people use today.

On the same pictures and cores, all contenders taking turns; every output is verified:

    python -m benchmarks.end_to_end [--quick] [--json] [--work FOLDER]
        [--pictures FOLDER] [--peers PYTHON] [--only CONTENDER]…

`--peers` names an interpreter that has Celery, FastStream and Pillow; by default it is
this one. Whatever is not installed is left out, in a line of its own. What an idle
queue adds to a conversion, from publishing to the confirmed ack, is measured last.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean, quantiles

from benchmarks import corpus, programs
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
from benchmarks.lineup import everybody
from benchmarks.queues import Queue, job, queueing
from benchmarks.supervise import Work
from benchmarks.supervised import Supervised, supervised
from benchmarks.turns import ROUNDS, ratios, summary, take_turns
from bwpool.settings import usable_cpus

OURS, UNSYNCED, POOL, SEED = "bwpool", "bwpool --no-sync", "bare pool", "seed's worker"

SETS = {
    "thumbnails": ("thumbnail-baseline.jpg", "thumbnail-progressive.jpg"),
    "photographs": ("photo-444.jpg", "photo-420.jpg"),
    "progressive photographs": ("photo-progressive.jpg",),
    "PNG photographs": ("photo.png",),
}
"""Cameras write baseline JPEG; the web has all of these."""

MAIN_SETS = ("thumbnails", "photographs")
"""What the claims are about; the others have fewer rounds."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to measure."""

    rounds: int = ROUNDS
    side_rounds: int = 3
    seconds: float = 3.5
    """How long a contender takes for a round, roughly."""
    latencies: int = 60
    """Single jobs for an idle supervisor."""
    settle: float = SETTLE


QUICK = Sizes(1, 1, 0.02, 3, 0.1)


async def measure_set(
    samples: Sequence[Sample], field: list[Contender], folder: Path, sizes: Sizes
) -> Found:
    """Let everybody convert one set of pictures."""
    procs = usable_cpus()
    batches = {
        contender.name: Batch(
            tuple(samples),
            contender.count_for(sizes.seconds, samples, procs),
            folder / "out",
            procs,
            sizes.settle,
        )
        for contender in field
    }
    turns = await take_turns(
        {
            contender.name: partial(take_turn, contender, batches[contender.name])
            for contender in field
        },
        sizes.rounds,
    )
    rates = {name: [one.images_per_s for one in turns[name]] for name in turns}
    return {
        "samples": [sample.name for sample in samples],
        "megapixels": mean(sample.megapixels for sample in samples),
        "bytes": mean(sample.path.stat().st_size for sample in samples),
        "systems": [
            {
                "name": contender.name,
                "method": contender.method,
                "is_peer": contender.is_peer,
                "count": batches[contender.name].count,
                "images_per_s": summary(rates[contender.name]),
                **costs(contender, turns[contender.name]),
                "off": max(one.off for one in turns[contender.name]),
            }
            for contender in field
        ],
        "bwpool_to": {
            name: ratios(rates[OURS], theirs)
            for name, theirs in rates.items()
            if name != OURS and OURS in rates
        },
    }


def costs(contender: Contender, turns: list[Turn]) -> Found:
    """Say what supervisor and server cost a job, where there are such."""
    if contender.name not in (OURS, UNSYNCED):
        return {}
    return {
        "cpu_us_per_job": summary([one.cpu_us_per_job for one in turns]),
        "server_us_per_job": summary([one.server_us_per_job for one in turns]),
    }


async def measure_latency(
    queue: Queue, samples: Sequence[Sample], folder: Path, count: int
) -> Found:
    """Measure what an idle queue adds to the conversion of one picture."""
    folder.mkdir()
    work = Work(usable_cpus(), seconds=None, every=1, out=str(folder))
    async with supervised(queue.url, work) as supervisor:
        for number in range(len(samples) * work.procs):
            await submit(queue, supervisor, samples, number)
        added = [
            await submit(queue, supervisor, samples, number)
            for number in range(count)
        ]  # fmt: skip
    shutil.rmtree(folder)
    *_, ninth = quantiles(added, n=10)
    return {"added_ms": summary(added), "added_ms_p90": ninth}


async def submit(
    queue: Queue, supervisor: Supervised, samples: Sequence[Sample], number: int
) -> float:
    """Submit one job to an idle supervisor; return the ms that were not conversion."""
    await asyncio.sleep(0.03)  # lets it become idle
    settled = supervisor.stamps[-1].settled + 1
    source = samples[number % len(samples)].path.as_uri()
    started = time.monotonic()
    await queue.connection.request(queue.facts.subject, job(f"{settled}", source))
    stamp = await supervisor.until(settled)
    return (stamp.time - started - stamp.converting) * 1000


def sets_of(given: argparse.Namespace, folder: Path) -> dict[str, list[Sample]]:
    """Return the pictures to convert, set by set."""
    if given.pictures:
        return {"pictures": corpus.gather(given.pictures.absolute())}
    samples = {one.name: one for one in corpus.render(folder, quick=given.quick)}
    return {
        name: [samples[one] for one in names]
        for name, names in SETS.items()
        if not given.quick or name in MAIN_SETS
    }


async def measure(given: argparse.Namespace, folder: Path) -> Found:
    """Take all the measurements."""
    sizes = sizes_of(given, QUICK, Sizes())
    python = given.peers or sys.executable
    sets = sets_of(given, folder)
    every = [sample for samples in sets.values() for sample in samples]
    found: Found = {
        "benchmark": "end_to_end",
        "host": host(folder),
        "peers": programs.versions(python),
        "corpus": corpus.digest(every),
        "procs": usable_cpus(),
    }
    async with queueing(folder / "queue") as queue:
        lineup = everybody(queue, python, usable_cpus())
        field = [one for one in lineup if not given.only or one.name in given.only]
        found["absent"] = {one.name: one.needs for one in field if one.needs}
        field = [one for one in field if not one.needs]
        found["sets"] = {}
        for name, samples in sets.items():
            is_side = name in SETS and name not in MAIN_SETS
            rounds = min(sizes.rounds, sizes.side_rounds) if is_side else sizes.rounds
            found["sets"][name] = await measure_set(
                samples, field, folder, replace(sizes, rounds=rounds)
            )
        found["latency"] = {
            name: await measure_latency(queue, samples, folder / "out", sizes.latencies)
            for name, samples in sets.items()
        }
    return headline(found) | found


def headline(found: Found) -> Found:
    """Pull out the ratios that matter most."""
    keys = {"ratio_to_seed": SEED, "ratio_to_pool": POOL, "ratio_to_no_sync": UNSYNCED}
    return {
        key: {
            name: one["bwpool_to"][other]["median"]
            for name, one in found["sets"].items()
            if other in one["bwpool_to"]
        }
        for key, other in keys.items()
    }


def show(found: Found) -> None:
    """Print the measurements as tables."""
    show_host(found)
    print(" · ".join(f"{key} {value}" for key, value in found["peers"].items()))
    for name, one in found["sets"].items():
        print(f"\n{name}: {one['megapixels']:.2f} MP, {one['bytes'] / 1000:,.0f} kB")
        print(f"  {'':18} {'images/s':>14} {'bwpool is':>10} {'tone off':>9}")
        for system in one["systems"]:
            times = one["bwpool_to"].get(system["name"])
            print(
                f"  {system['name']:18} {spelled(system['images_per_s'], ',.1f'):>14}"
                f" {(times and format(times['median'], '.2f') + '×') or '':>10}"
                f" {system['off']:9.1f}"
            )
    for name, needs in found["absent"].items():
        print(f"\n{name} is left out: {needs} is not installed")
    print("\nfrom publishing to the confirmed ack, less the conversion, ms")
    for name, one in found["latency"].items():
        median = one["added_ms"]["median"]
        print(f"  {name:24} {median:.1f}, nine of ten within {one['added_ms_p90']:.1f}")


def main() -> None:
    """Run the benchmark."""
    arguments = parser_in_rounds(__doc__)
    arguments.add_argument(
        "--pictures", type=Path, help="a folder of pictures of one's own"
    )
    arguments.add_argument("--peers", help="an interpreter that has the Python peers")
    arguments.add_argument("--only", action="append", help="a contender to let run")
    given = arguments.parse_args()
    run(given, partial(measure, given), show)


if __name__ == "__main__":
    main()

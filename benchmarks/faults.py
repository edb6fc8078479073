"""Measure what crashes, hangs, restarts and poison cost: lost, doubled, recovery.

Kills go by a schedule that a seed draws. Every output is looked at:

    python -m benchmarks.faults [--quick] [--json] [--only RUN…] [--seed N]

Exit code 1 if something was lost, or cost more than it may.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from benchmarks import fault_hostile, fault_runs, fault_storage
from benchmarks.command import Found, parser, run, show_host
from benchmarks.fault_backfills import backfills
from benchmarks.fault_mixed import mixed
from benchmarks.host import host

Run = Callable[..., Awaitable[Found]]

RUNS: dict[str, Run] = {
    "mixed": mixed,
    "hang": fault_runs.hang,
    "blocked": fault_runs.blocked,
    "cluster": fault_runs.cluster,
    "requeue": fault_runs.requeue,
    "hostile": fault_hostile.hostile,
    "crashes": fault_runs.crashes,
    "killer": fault_runs.killer,
    "memory": fault_runs.memory,
    "unplaced": fault_storage.unplaced,
    "sick": fault_storage.sick,
    "away": fault_storage.away,
    "backfills": backfills,
}


async def measure(
    folder: Path, names: list[str], *, seed: int, is_quick: bool
) -> Found:
    """Go through the runs that were asked for, each in a folder of its own."""
    found: Found = {"host": host(folder), "seed": seed}
    for name in names:
        place = folder / name
        place.mkdir()
        started = time.monotonic()
        found[name] = await RUNS[name](place, seed=seed, quick=is_quick)
        found[name]["took"] = round(time.monotonic() - started, 1)
        print(f"{name}: {'ok' if found[name]['ok'] else 'NOT OK'}", file=sys.stderr)
    found["ok"] = all(found[name]["ok"] for name in names)
    return found


def show(found: Found) -> None:
    """Print every figure of every run."""
    show_host(found)
    for name in [name for name in RUNS if name in found]:
        print(f"\n{name}")
        for key, value in found[name].items():
            print(f"  {key:>22}  {value}")


def main() -> None:
    """Read the command line, measure, and fail where something was lost."""
    made = parser(__doc__)
    made.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS))
    made.add_argument("--seed", type=int, default=1)
    made.add_argument(
        "--work", type=Path, help="where to put queues and outputs, instead of /tmp"
    )
    given = made.parse_args()
    # What our own connection says of the servers that we kill is no news.
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    )
    verdicts = []

    async def measured(folder: Path) -> Found:
        found = await measure(folder, given.only, seed=given.seed, is_quick=given.quick)
        verdicts.append(found["ok"])
        return found

    run(given, measured, show)
    sys.exit(0 if all(verdicts) else 1)


if __name__ == "__main__":
    main()

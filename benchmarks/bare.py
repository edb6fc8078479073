"""How fast the pool is without any queue, with the same converters.

Called as `python -m benchmarks.bare PROCS OUT SYNC < jobs`, one a line; prints `ready`
when the converters are, and `done` when all jobs are. What comes first on the input is
to warm up: it ends with an empty line.
"""

from __future__ import annotations

import asyncio
import json
import sys

from bwpool.job import Job


async def main(procs: int, out: str, *, sync: bool) -> None:
    """Convert what standard input says, as fast as the pool can."""
    from bwpool.pool.pool import Pool
    from bwpool.settings import ConvertSettings

    warm_up, jobs = read_jobs()
    pool = Pool(procs, ConvertSettings(out=out, no_sync=not sync), timeout=30.0)
    try:
        await pool.start()
        await asyncio.gather(*map(pool.submit, warm_up))
        print("ready", flush=True)
        reports = await asyncio.gather(*map(pool.submit, jobs))
        print("done", flush=True)
    finally:
        await pool.close()
    for report in reports:
        if isinstance(report.outcome, Exception):
            raise report.outcome


def read_jobs() -> list[list[Job]]:
    """Read the jobs to warm up with, and those to be timed."""
    parts: list[list[Job]] = [[]]
    for line in sys.stdin:
        if line.strip():
            fields = json.loads(line)
            parts[-1].append(Job(fields["id"], fields["image"]))
        else:
            parts.append([])
    return parts


if __name__ == "__main__":
    import uvloop

    _, procs, out, sync = sys.argv
    uvloop.run(main(int(procs), out, sync=sync == "sync"))

"""A supervisor in a process of its own, with converters that misbehave on demand.

Called as `supervise.py URL '{"stream": …}'`; prints `ready` once it pulls.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from importlib import import_module
from pathlib import Path


async def main(url: str, options: dict) -> int:
    """Supervise until a signal, or until a burst is over."""
    import workloads

    from bwpool.queue import connection, puller

    puller.HEARTBEAT = options.get("heartbeat", puller.HEARTBEAT)
    connection.CHECK_WITHIN = min(connection.CHECK_WITHIN, puller.HEARTBEAT)
    from bwpool.cli.common import CommonSettings, configure_logging
    from bwpool.cli.session import supervising, until_stopped
    from bwpool.queue.contexts import Endpoint
    from bwpool.settings import (
        ConvertSettings,
        PoolSettings,
        QueueSettings,
        RunSettings,
    )

    for place in options.get("bugs", ()):
        module, _, name = place.rpartition(".")
        setattr(import_module(module), name, workloads.bug)
    configure_logging(CommonSettings(log_format="json"))
    ending = RunSettings(
        burst=options.get("burst", False),
        drain_timeout=options.get("drain_timeout", 25.0),
    )
    async with supervising(
        Endpoint(urls=(url,)),
        QueueSettings(**options["queue"]),
        ConvertSettings(
            out=options["out"],
            source_root=tuple(map(Path, options.get("source_root", ()))),
        ),
        PoolSettings(
            procs=options.get("procs", 2), timeout=options.get("timeout", 30.0)
        ),
        ending,
        load=getattr(workloads, options.get("load", "misbehaving")),
    ) as supervisor:
        # Said once the signals are heeded.
        asyncio.get_running_loop().call_soon(partial(print, "ready", flush=True))
        return await until_stopped(supervisor, is_burst=ending.burst)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    sys.exit(asyncio.run(main(sys.argv[1], json.loads(sys.argv[2]))))

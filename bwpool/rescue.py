"""Keeping jobs alive whose deliveries were used up by others than themselves.

A job near its last delivery that never failed by itself is put back into the queue as
new, once. Called by `deliveries`.
"""

from __future__ import annotations

import structlog

from bwpool.queue import failures
from bwpool.queue.connection import Connection
from bwpool.queue.facts import ConsumerFacts
from bwpool.queue.lease import RESCUED, Lease
from bwpool.queue.patience import insist
from bwpool.queue.requeue import put_back, remove_original

RESCUED_ONCE = {RESCUED: "1"}

log = structlog.get_logger()


async def has_failed(
    connection: Connection, consumer: ConsumerFacts, lease: Lease
) -> bool:
    """Ask whether an earlier attempt at this job failed by itself."""
    return await insist(
        lambda: failures.has_record(
            connection, consumer.stream, consumer.name, lease.seq, lease.attempt
        )
    )


async def rescue(connection: Connection, consumer: ConsumerFacts, lease: Lease) -> None:
    """Put a job back as new; its delivery is then to be acknowledged."""
    seq = await insist(lambda: put_back(connection, consumer, lease, RESCUED_ONCE))
    log.info("job.rescued", seq=lease.seq, new_seq=seq, attempt=lease.attempt)


async def clear_up(
    connection: Connection, consumer: ConsumerFacts, lease: Lease
) -> None:
    """Remove what a rescuer that died on the way left of the same job."""
    await insist(lambda: remove_original(connection, consumer, lease))

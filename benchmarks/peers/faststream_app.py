"""How fast FastStream on the same JetStream queue with Pillow is.

A concurrent pull subscriber that acknowledges after the work, and one worker process a
core, as its documentation recommends for work that keeps a core busy:

    python -m faststream run benchmarks.peers.faststream_app:app --workers PROCS

`NATS_URL` and `OUT` in the environment say where jobs come from and outputs go.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, PullSub

from benchmarks.peers import pillow

BATCH = 16
AT_ONCE = 1
"""Pictures in a process; two compete for its interpreter and are slower."""

broker = NatsBroker(os.environ["NATS_URL"])
app = FastStream(broker)


@broker.subscriber(
    "IMAGES.blackandwhite",
    stream=JStream("IMAGES", declare=False),
    durable="BW",
    pull_sub=PullSub(batch_size=BATCH),
    max_workers=AT_ONCE,
    ack_policy=AckPolicy.NACK_ON_ERROR,
)
async def convert(job: dict[str, Any]) -> None:
    """Convert one picture, then say so; the ack follows."""
    source = Path(unquote(urlparse(job["image"]).path))
    target = Path(os.environ["OUT"]) / f"{job['id']}{source.suffix}"
    await asyncio.to_thread(pillow.convert, source, target)
    await broker.publish({"id": job["id"]}, job["advisory"])

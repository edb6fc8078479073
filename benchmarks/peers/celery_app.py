"""How fast Celery with Redis and Pillow is.

As its guide on optimizing says for short tasks: prefork, as many children as cores, a
large prefetch; acknowledged late, so that a crash loses nothing; no results kept.

    python -m benchmarks.peers.celery_app work PROCS
    python -m benchmarks.peers.celery_app publish < jobs, one a line

`BROKER` in the environment is the URL of Redis, `OUT` where outputs go.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator, operator"

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

from celery import Celery

from benchmarks.peers import pillow

PREFETCH = 64

app = Celery("benchmarks.peers.celery_app", broker=os.environ["BROKER"])
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=PREFETCH,
    broker_connection_retry_on_startup=True,
)


@app.task(name="convert")
def convert(job_id: str, image: str) -> None:
    """Convert one picture."""
    source = Path(unquote(urlparse(image).path))
    pillow.convert(source, Path(os.environ["OUT"]) / f"{job_id}{source.suffix}")


def publish() -> None:
    """Send every job on standard input."""
    with app.producer_pool.acquire(block=True) as producer:
        for line in sys.stdin:
            job = json.loads(line)
            convert.apply_async((job["id"], job["image"]), producer=producer)


def work(procs: str) -> None:
    """Work until told to stop."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    app.worker_main(["worker", f"--concurrency={procs}", "--loglevel=WARNING", *quiet])


if __name__ == "__main__":
    {"publish": publish, "work": work}[sys.argv[1]](*sys.argv[2:])

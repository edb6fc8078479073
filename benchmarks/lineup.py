"""Who takes part, and how each is set up."""

from __future__ import annotations

import shutil
import sys

from benchmarks import programs
from benchmarks.contenders import (
    BarePool,
    ByParallel,
    Contender,
    OnJetStream,
    OnRedis,
)
from benchmarks.queues import Queue


def bwpool(queue: Queue, *, sync: bool = True) -> OnJetStream:
    """Return bwpool as its users run it."""
    run = (sys.executable, "-m", "bwpool", "run", "--server", "{url}")
    options = ("--out", "{out}", "--procs", "{procs}")
    return OnJetStream(
        name="bwpool" if sync else "bwpool --no-sync",
        method="`bwpool run`" if sync else "`bwpool run --no-sync`",
        start_up=0.0020,
        per_megapixel=0.0045,
        is_peer=False,
        queue=queue,
        command=(*run, *options, *(() if sync else ("--no-sync",))),
    )


def bare_pool() -> BarePool:
    """Return the pool without a queue, as durable as with one."""
    return BarePool(
        name="bare pool",
        method="bwpool's converters, fed directly",
        start_up=0.0020,
        per_megapixel=0.0045,
        is_peer=False,
    )


def everybody(queue: Queue, python: str, procs: int) -> list[Contender]:
    """Return all the contenders; `python` is an interpreter that has the peers."""
    magick, graphics = programs.imagemagick(), programs.graphicsmagick()
    return [
        bwpool(queue),
        bwpool(queue, sync=False),
        bare_pool(),
        seed_worker(queue, magick, "ImageMagick", procs),
        seed_worker(queue, graphics, "GraphicsMagick", procs),
        ByParallel(
            name="GNU parallel",
            method="`parallel convert -monochrome`, no queue",
            start_up=0.080,
            per_megapixel=0.21,
            keeps_tone=False,
            command=(*magick, "-monochrome"),
            needs=parallels_needs(magick),
        ),
        faststream(queue, python),
        OnRedis(
            name="Celery",
            method="Redis, prefork, acknowledged late, Pillow",
            start_up=0.0032,
            per_megapixel=0.011,
            python=python,
            needs=celerys_needs(python),
        ),
    ]


def seed_worker(queue: Queue, command: list[str], tool: str, procs: int) -> OnJetStream:
    """Return workers that do exactly what the seed's do, by one tool or another."""
    is_seed = tool == "ImageMagick"
    program = (sys.executable, "-m", "benchmarks.peers.seed", "{url}", "{out}")
    return OnJetStream(
        name="seed's worker" if is_seed else "seed's worker, gm",
        method="`convert -monochrome` a job" if is_seed else "`gm convert` a job",
        start_up=0.080 if is_seed else 0.025,
        per_megapixel=0.21 if is_seed else 0.145,
        keeps_tone=False,
        queue=queue,
        command=(*program, *command, "-monochrome"),
        times=procs,
        needs="" if command else tool,
    )


def faststream(queue: Queue, python: str) -> OnJetStream:
    """Return FastStream's workers."""
    app = "benchmarks.peers.faststream_app:app"
    has_all = programs.has_modules(python, "faststream.nats", "typer", "PIL")
    return OnJetStream(
        name="FastStream",
        method="the same queue, a worker process a core, Pillow",
        start_up=0.0032,
        per_megapixel=0.011,
        queue=queue,
        command=(python, "-m", "faststream", "run", app, "--workers", "{procs}"),
        env={"NATS_URL": "{url}", "OUT": "{out}"},
        needs="" if has_all else "faststream[nats,cli] and pillow",
    )


def parallels_needs(magick: list[str]) -> str:
    """Name what GNU parallel lacks here."""
    if not magick:
        return "ImageMagick"
    return "" if shutil.which("parallel") else "GNU parallel"


def celerys_needs(python: str) -> str:
    """Name what Celery lacks here."""
    if not programs.has_modules(python, "celery", "kombu.transport.redis", "PIL"):
        return "celery[redis] and pillow"
    return "" if shutil.which("redis-server") else "Redis"

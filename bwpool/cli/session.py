"""What commands that convert have in common: the output folder, a supervisor, its end.

Called by `run` and `backfill`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from bwpool import storage
from bwpool.cli.common import DONE, FAILED
from bwpool.deliveries import Parts
from bwpool.errors import ConfigError, StorageUnavailable
from bwpool.pool.converter import Load, load_conversion
from bwpool.pool.pool import Pool
from bwpool.pool.slot import Death
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.facts import read_facts
from bwpool.settings import (
    Amount,
    ConvertSettings,
    Found,
    LocatedSettings,
    PoolSettings,
    QueueSettings,
    RunSettings,
    memory_share,
    usable_cpus,
)
from bwpool.supervisor import Supervisor

STORE = ".bwpool"
"""The folder in OUT that an embedded server keeps its messages in."""

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def supervising(
    endpoint: Endpoint,
    queue: QueueSettings,
    convert: ConvertSettings,
    slots: PoolSettings,
    ending: RunSettings,
    load: Load = load_conversion,
    found: Found = Found(),
) -> AsyncIterator[Supervisor]:
    """Open everything that a supervisor needs, converters and connection together.

    `found` is where pictures were found already, and may not vanish.
    """
    procs = slots.procs or usable_cpus()
    if convert.max_memory is None:
        convert = replace(convert, max_memory=Amount(memory_share(procs)))
    convert = _located(convert, found)
    pool = Pool(procs, convert, timeout=slots.timeout, load=load)
    pool.on_death = _log_death
    out = Path(convert.out)
    starting = asyncio.ensure_future(pool.start())
    try:
        async with await Connection.open(endpoint, name="bwpool") as connection:
            consumer = await read_facts(connection, queue)
            await starting
            roots = (*convert.source_root, *convert.found.sources)
            probe = partial(storage.probe, out, roots, convert.found.mounts)
            prefixes = ending.advisory_prefix
            parts = Parts(connection, consumer, pool, probe, prefixes)
            yield Supervisor(parts, ending)
    finally:
        starting.cancel()
        await pool.close()


def _located(convert: ConvertSettings, found: Found) -> ConvertSettings:
    """Note what storage there is now, before anything can happen to it."""
    (out_mount,) = storage.mounts_of([convert.out]) or ("",)
    mounts = {*found.mounts, *storage.mounts_of([convert.out, *convert.source_root])}
    found = replace(found, mounts=tuple(sorted(mounts)), out_mount=out_mount)
    return LocatedSettings.locate(convert, found)


async def until_stopped(supervisor: Supervisor, *, is_burst: bool) -> int:
    """Run under the signals that end it, and return the exit code."""
    was_interrupted = False

    def interrupt() -> None:
        nonlocal was_interrupted
        was_interrupted = True
        supervisor.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    parts = supervisor.parts
    log.info(  # whoever waits for this may send a signal at once
        "supervisor.ready",
        server=str(parts.connection.endpoint),
        slots=parts.pool.ready_slots,
    )
    is_orderly = await supervisor.run()
    if not is_orderly:
        return FAILED
    if is_burst and (was_interrupted or supervisor.tally.failed):
        return FAILED
    return DONE


def check_out(out: str) -> None:
    """Find out what speaks against the output folder, without making it.

    Raises ConfigError.
    """
    if not out:
        raise ConfigError("no output folder: name one with --out DIR, or set OUTDIR")
    if "://" in out:
        raise ConfigError(f"{out}: object storage is not part of this version")
    try:
        out.encode()
    except UnicodeEncodeError:
        shown = out.encode(errors="backslashreplace").decode()
        raise ConfigError(f"{shown}: the output folder's name is not UTF-8") from None


def make_out(convert: ConvertSettings) -> None:
    """See that outputs can be stored before anything is started.

    Raises ConfigError.
    """
    check_out(convert.out)
    out = Path(convert.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't make {out}: {error.strerror}") from None
    try:
        storage.probe(out)
    except StorageUnavailable as error:
        reason = getattr(error.__cause__, "strerror", None) or error.reason
        raise ConfigError(f"can't write to {out}: {reason}") from None
    storage.remove_stale_temporaries(out)


def _log_death(cause: str, death: Death) -> None:
    if cause == "recycle":
        log.info("converter.recycled", pid=death.pid)
    elif cause != "stop":
        log.warning(
            "converter.crashed" if cause == "crash" else "converter.overdue",
            pid=death.pid,
            exitcode=death.exitcode,
            signal=death.signal,
            stage=death.doing.stage,
        )

"""`bwpool backfill`: convert files and folders here and now, and account for each."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bwpool import storage
from bwpool.backfill.account import enter_inputs
from bwpool.backfill.inputs import Inputs, find_inputs
from bwpool.backfill.ledger import Ledger
from bwpool.backfill.run import Run
from bwpool.cli.common import (
    DONE,
    FAILED,
    MISUSED,
    Common,
    CommonSettings,
    Converters,
    Converting,
    Queue,
    Server,
    complain,
    execute,
    explicit_endpoint,
    flat,
)
from bwpool.cli.progress import showing_progress
from bwpool.cli.report import report_backfill
from bwpool.cli.session import STORE, make_out, supervising
from bwpool.cli.setup import provide
from bwpool.embedded import EmbeddedServer
from bwpool.errors import BwpoolError, ConfigError
from bwpool.queue.topology import wanted
from bwpool.settings import (
    ConvertSettings,
    Found,
    PoolSettings,
    QueueSettings,
    RunSettings,
    ServerSettings,
)

EMBEDDED_MSG_BYTES = 65_536
"""The size limit of an embedded stream: percent-encoded paths exceed the seed's 512."""

Sources = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Lets `-` be a source; what else looks like an option is refused by `_check`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSettings:
    """How a backfill goes about its inputs."""

    force: bool = False
    """Convert what has an output newer than its source as well."""
    json: bool = False
    """Report as one JSON object on stdout."""


def backfill(
    *sources: Sources,
    convert: Converting = ConvertSettings(),
    settings: Annotated[BackfillSettings, flat("Options")] = BackfillSettings(),
    pool: Converters = PoolSettings(),
    queue: Queue = QueueSettings(),
    server: Server = ServerSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Convert files and folders, here and now, and wait until each is accounted for.

    Example: `bwpool backfill ~/scans --out ~/scans-bw`

    Without an explicit server it runs on one of its own, whose store is OUT/.bwpool. A
    second run finishes what was left, retries what failed and skips what is done.

    An output has its source's name, after the folder that was named; where names would
    collide, or outputs lie beside their sources, the source's extension stays in it, as
    in `x.jpg.tiff`. What lies in OUT is not converted, unless that is all there is.

    Parameters
    ----------
    sources
        Files, folders, globs, lists (`@list.txt`, a path a line) or `-` for a list on
        standard input.
    """
    started = time.monotonic()
    try:
        # Not in the event loop: a list may come from somebody who types it, and Ctrl-C
        # has to end that.
        inputs = _read_inputs(sources, convert)
    except ConfigError as error:
        complain(error)
        return MISUSED
    except BwpoolError as error:
        complain(error)
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return FAILED

    async def command() -> int:
        out = Path(convert.out)
        ledger = Ledger()
        enter_inputs(ledger, inputs, is_forced=settings.force)
        code = DONE
        endpoint = explicit_endpoint(server, common)
        mounts = storage.mounts_of(inputs.bases)
        found = Found(sources=inputs.folders, mounts=mounts)
        if ledger.waiting or (out / STORE).exists():
            async with AsyncExitStack() as stack:
                own = None
                if endpoint is None:
                    own = await EmbeddedServer.start(out / STORE)
                    await stack.enter_async_context(own)
                    endpoint = own.endpoint
                    await provide(
                        endpoint, wanted(queue, max_msg_bytes=EMBEDDED_MSG_BYTES)
                    )
                supervisor = await stack.enter_async_context(
                    supervising(
                        *(endpoint, queue, convert, pool, RunSettings()),
                        found=found,
                    )
                )
                await stack.enter_async_context(showing_progress(ledger))
                code = await _finish(Run(supervisor, ledger, inputs.pictures, own))
        elapsed = time.monotonic() - started
        report_backfill(ledger, inputs, convert.out, elapsed, as_json=settings.json)
        return FAILED if ledger.failures or ledger.waiting else code

    return execute(common, command, log_level="warning")


def _read_inputs(sources: tuple[str, ...], convert: ConvertSettings) -> Inputs:
    """Find the inputs, standard input among them; raises ConfigError."""
    if not sources:
        raise ConfigError("nothing to convert: name files or folders")
    for source in sources:
        if source.startswith("-") and source != "-":
            raise ConfigError(
                f"there is no option {source} (a file of that name is ./{source})"
            )
    make_out(convert)
    return find_inputs(sources, Path(convert.out), convert.format, _stdin())


def _stdin() -> Iterator[str]:
    """Yield the lines of standard input, opened only if somebody wants them.

    File names are bytes, and those of a list are what they are in the file system.
    """
    encoding = sys.getfilesystemencoding()
    try:
        with open(
            0, encoding=encoding, errors="surrogateescape", closefd=False
        ) as lines:
            yield from lines
    except OSError as error:
        raise ConfigError(f"can't read standard input: {error.strerror}") from None


async def _finish(run: Run) -> int:
    """See a backfill to its end, under the signals that end it early."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, run.interrupt)
    try:
        await run.finish()
    except BwpoolError as error:
        complain(error)  # what was done until then is still reported
        return FAILED
    return FAILED if run.was_interrupted else DONE

"""`bwpool backfill`: convert files and folders here and now, and account for each."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bwpool import storage
from bwpool.backfill import ledger_file
from bwpool.backfill.account import Account
from bwpool.backfill.book import Book
from bwpool.backfill.inputs import Inputs, find_inputs
from bwpool.backfill.ledger import Ledger
from bwpool.backfill.ledger_file import LedgerFile
from bwpool.backfill.mark import Mark
from bwpool.backfill.past import Past, force, look_back
from bwpool.backfill.run import Run
from bwpool.cli.backfill_queue import embedded_place, remove_shared, shared_place
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
from bwpool.errors import BwpoolError, ConfigError
from bwpool.pool.converter import load_conversion
from bwpool.queue.contexts import Endpoint
from bwpool.settings import (
    ConvertSettings,
    Found,
    PoolSettings,
    QueueSettings,
    RunSettings,
    ServerSettings,
)
from bwpool.state_folder import StateFolder

LOCK = "backfill.lock"
"""What a backfill locks in OUT's state folder, beside an embedded server's lock."""

Sources = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""Lets `-` be a source; what else looks like an option is refused by `_check`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSettings:
    """How a backfill goes about its inputs."""

    force: bool = False
    """Convert what is done as well."""
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

    Without an explicit server it runs on one of its own, whose store is OUT/.bwpool; on
    a shared one it has a queue of its own in the stream, removed at the end. A second
    run finishes what was left, retries what failed and skips what is done: what the
    ledger in OUT/.bwpool has with the same source and the same method, format and
    quality, and with its output still there.

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

    async def locked(
        folder: StateFolder, endpoint: Endpoint | None
    ) -> tuple[Account, int]:
        with (
            await folder.lock(name=LOCK),
            LedgerFile(folder.provide(ledger_file.NAME)) as file,
        ):
            pictures = inputs.pictures
            past = (
                force(pictures)
                if settings.force
                else look_back(pictures, file.entries(), convert)
            )
            _announce(past)
            account = Account(Ledger(), inputs, past, Book(file, convert))
            mark = Mark.read(folder)
            found = Found(
                sources=inputs.folders, mounts=storage.mounts_of(inputs.bases)
            )
            work = _Backfill(account, mark, convert, pool, queue, endpoint, found)
            return account, await work.run()

    async def command() -> int:
        with StateFolder(Path(convert.out) / STORE) as folder:
            account, code = await locked(folder, explicit_endpoint(server, common))
        ledger = account.ledger
        elapsed = time.monotonic() - started
        report_backfill(ledger, inputs, convert.out, elapsed, as_json=settings.json)
        return FAILED if ledger.failures or ledger.waiting else code

    return execute(common, command, log_level="warning")


@dataclass(frozen=True, slots=True)
class _Backfill:
    """What is known once the inputs are."""

    account: Account
    mark: Mark
    convert: ConvertSettings
    pool: PoolSettings
    queue: QueueSettings
    endpoint: Endpoint | None
    """The shared server; None for one of our own."""
    found: Found

    async def run(self) -> int:
        """Convert what is to be converted, and clear up when all is accounted for."""
        has_work = not self.account.ledger.is_complete
        code = await self._convert() if has_work else DONE
        if not self.account.ledger.is_complete:
            return FAILED
        if not has_work:
            await self.account.write()  # what was adopted
        if has_work or self.mark.is_resumed:
            storage.remove_temporaries(Path(self.convert.out), self.mark.run)
        if self.endpoint is not None and self.mark.queues:
            await remove_shared(self.endpoint, self.queue, self.mark)
        self.mark.end()
        return code

    async def _convert(self) -> int:
        """Convert, on a server of our own or on a shared one; return the exit code."""
        storage.mark_temporaries(self.mark.run)
        load = partial(load_conversion, mark=self.mark.run)
        async with AsyncExitStack() as stack:
            if self.endpoint is None:
                store = Path(self.convert.out) / STORE
                opening = embedded_place(store, self.queue)
                place = await stack.enter_async_context(opening)
            else:
                place = await shared_place(self.endpoint, self.queue, self.mark)
            supervisor = await stack.enter_async_context(
                supervising(
                    place.endpoint,
                    place.names,
                    self.convert,
                    self.pool,
                    RunSettings(),
                    load,
                    self.found,
                )
            )
            await stack.enter_async_context(showing_progress(self.account.ledger))
            return await _finish(Run(supervisor, self.account, place.server))


def _announce(past: Past) -> None:
    """Say on stderr what is converted again and why, and what is only taken as done."""
    for why, count in past.again.most_common():
        complain(f"{count} done before will be converted again: {why}")
    if any("--format" in why for why in past.again):
        complain("outputs in another format stay")
    if past.adopted:
        complain(
            f"{len(past.adopted)} without an entry in the ledger have an output newer "
            "than their source: they count as done (--force converts them)"
        )


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

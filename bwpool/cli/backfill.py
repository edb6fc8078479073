"""`bwpool backfill`: convert files and folders here and now, and account for each."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import structlog

from bwpool.backfill import account
from bwpool.backfill.feed import fill, resume
from bwpool.backfill.inputs import Input, Inputs, find_inputs, is_up_to_date
from bwpool.backfill.ledger import Ledger
from bwpool.cli.common import (
    DONE,
    FAILED,
    Common,
    CommonSettings,
    Converters,
    Converting,
    Queue,
    Server,
    execute,
    explicit_endpoint,
    flat,
)
from bwpool.cli.progress import showing_progress
from bwpool.cli.report import report_backfill
from bwpool.cli.run import STORE, make_out, supervising, until_stopped
from bwpool.cli.setup import provide
from bwpool.embedded import EmbeddedServer
from bwpool.errors import ConfigError
from bwpool.queue.contexts import Endpoint
from bwpool.queue.facts import read_depth, records_subject
from bwpool.queue.topology import wanted
from bwpool.queue.watch import watching
from bwpool.settings import (
    ConvertSettings,
    PoolSettings,
    QueueSettings,
    RunSettings,
    ServerSettings,
)
from bwpool.supervisor import Supervisor

EMBEDDED_MSG_BYTES = 65_536
"""The size limit of an embedded stream: percent-encoded paths exceed the seed's 512."""

LOOK_EVERY = 0.5
"""Seconds between two looks at a shared queue for inputs that nobody told us of."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class BackfillSettings:
    """How a backfill goes about its inputs."""

    force: bool = False
    """Convert what has an output newer than its source as well."""
    json: bool = False
    """Report as one JSON object on stdout."""


def backfill(
    *sources: str,
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

    Parameters
    ----------
    sources
        Files, folders, globs, lists (`@list.txt`, a path a line) or `-` for a list on
        standard input.
    """

    async def command() -> int:
        started = time.monotonic()
        if not sources:
            raise ConfigError("nothing to convert: name files or folders")
        make_out(convert)
        out = Path(convert.out)
        inputs = find_inputs(sources, out, convert.format, sys.stdin)
        ledger = Ledger()
        to_do = enter(inputs, ledger, is_forced=settings.force)
        code = DONE
        endpoint = explicit_endpoint(server, common)
        if to_do or (out / STORE).exists():
            async with AsyncExitStack() as stack:
                is_own = endpoint is None
                if endpoint is None:
                    own = await EmbeddedServer.start(out / STORE)
                    await stack.enter_async_context(own)
                    endpoint = Endpoint(urls=(own.url,))
                    await provide(
                        endpoint, wanted(queue, max_msg_bytes=EMBEDDED_MSG_BYTES)
                    )
                supervisor = await stack.enter_async_context(
                    supervising(endpoint, queue, convert, pool, RunSettings())
                )
                await stack.enter_async_context(showing_progress(ledger))
                code = await Run(supervisor, ledger, to_do, is_own).finish()
        elapsed = time.monotonic() - started
        report_backfill(ledger, inputs, out, elapsed, as_json=settings.json)
        return FAILED if ledger.failures or ledger.waiting else code

    return execute(common, command, log_level="warning")


def enter(inputs: Inputs, ledger: Ledger, *, is_forced: bool) -> list[Input]:
    """Enter all inputs into the ledger, and return those that are to be converted."""
    for source, refusal in inputs.refused.items():
        ledger.refuse(str(source), refusal.kind, refusal.reason)
    to_do = []
    for picture in inputs.pictures:
        if not is_forced and is_up_to_date(picture):
            ledger.skipped += 1
        else:
            ledger.expect(picture.job_id, str(picture.source))
            to_do.append(picture)
    return to_do


class Run:
    """One backfill under way: the queue is filled while the supervisor works on it."""

    def __init__(
        self,
        supervisor: Supervisor,
        ledger: Ledger,
        to_do: Sequence[Input],
        is_own: bool,
    ) -> None:
        self._supervisor = supervisor
        self._connection = supervisor.parts.connection
        self._consumer = supervisor.parts.consumer
        self._ledger = ledger
        self._pictures = {picture.job_id: picture for picture in to_do}
        self._is_own = is_own

    async def finish(self) -> int:
        """Convert everything and return the exit code; a signal ends it early."""
        self._supervisor.deliveries.on_settled = partial(
            account.enter_settlement, self._ledger
        )
        left = set()
        if self._is_own:
            left = await resume(self._connection, self._consumer)
        else:
            await self._warn_of_others()
        running = asyncio.ensure_future(until_stopped(self._supervisor, is_burst=True))
        filling = asyncio.ensure_future(self._fill(left))
        await asyncio.wait({running, filling}, return_when="FIRST_COMPLETED")
        if filling.done():
            self._supervisor.stop()
            filling.result()
        filling.cancel()
        return await running

    async def _fill(self, left: set[str]) -> None:
        """Publish what is not in the queue already, and wait until all is done."""
        pictures = [p for p in self._pictures.values() if p.job_id not in left]
        if self._is_own:
            await fill(self._connection, self._consumer, pictures, self._ledger, None)
            await self._supervisor.wait_until_queue_is_empty()
        else:
            await self._fill_shared(pictures)
        account.reconcile(self._ledger, self._pictures)

    async def _fill_shared(self, pictures: Sequence[Input]) -> None:
        """The same where others may convert our pictures and we theirs."""
        advisory = self._connection.client.new_inbox()
        converted = partial(account.enter_advisory, self._ledger, self._pictures)
        failed = partial(account.enter_record, self._ledger)
        records = records_subject(self._consumer)
        async with (
            watching(self._connection, advisory, converted),
            watching(self._connection, records, failed),
        ):
            await fill(
                self._connection, self._consumer, pictures, self._ledger, advisory
            )
            while not self._ledger.is_complete:
                await asyncio.sleep(LOOK_EVERY)
                depth = await read_depth(self._connection, self._consumer)
                if depth.is_empty:
                    return

    async def _warn_of_others(self) -> None:
        depth = await read_depth(self._connection, self._consumer)
        if depth.waiting or depth.in_flight:
            log.warning(
                "backfill.foreign_jobs",
                waiting=depth.waiting,
                in_flight=depth.in_flight,
            )
        if depth.pulls:
            log.warning("backfill.other_supervisors", pulls=depth.pulls)

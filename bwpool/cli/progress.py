"""How far a backfill is: a bar on a terminal, elsewhere a line every ten seconds."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator

import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bwpool.backfill.ledger import Ledger

REFRESH_EVERY = 0.2
LINE_EVERY = 10.0

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def showing_progress(ledger: Ledger) -> AsyncIterator[None]:
    """Show on stderr what the ledger says, until the block is left."""
    show = _bar if sys.stderr.isatty() else _lines
    showing = asyncio.create_task(show(ledger, time.monotonic()))
    try:
        yield
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing


async def _lines(ledger: Ledger, started: float) -> None:
    while True:
        await asyncio.sleep(LINE_EVERY)
        print(_line(ledger, time.monotonic() - started), file=sys.stderr, flush=True)


def _line(ledger: Ledger, elapsed: float) -> str:
    rate = (ledger.converted + len(ledger.failures)) / elapsed
    left = f", {len(ledger.waiting) / rate:.0f} s left" if rate else ""
    failed = f", {len(ledger.failures)} failed" if ledger.failures else ""
    return f"{ledger.settled} of {ledger.inputs}{failed}, {rate:.1f} img/s{left}"


class _Rate(ProgressColumn):
    """Pictures a second, over the last moments."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f} img/s" if speed else "", style="progress.data.speed")


async def _bar(ledger: Ledger, _started: float) -> None:
    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}"),
    )
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False) as bar:
        task = bar.add_task("", total=ledger.inputs, failed="")
        try:
            while True:
                _update(bar, task, ledger)
                await asyncio.sleep(REFRESH_EVERY)
        finally:
            _update(bar, task, ledger)


def _update(bar: Progress, task: object, ledger: Ledger) -> None:
    failed = f"{len(ledger.failures)} failed" if ledger.failures else ""
    bar.update(
        task,  # type: ignore[arg-type]
        completed=ledger.settled,
        total=ledger.inputs,
        failed=failed,
        refresh=True,
    )

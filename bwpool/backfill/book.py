"""Keeping the ledger: what becomes of inputs, entered in batches, on a thread.

Owns what is still to be written. Called by `account`; the file is `ledger_file`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson
import structlog

from bwpool.backfill.inputs import Input, Seen, look_at
from bwpool.backfill.ledger_file import Entry, LedgerError, LedgerFile
from bwpool.settings import ConvertSettings

WRITE_EVERY = 0.1
"""Seconds between two batches. What a killed run has not entered is found by looking
at the outputs, so this only bounds that look."""

BATCH = 20_000
"""Rows of a transaction: tens of MB as JSON at most."""

log = structlog.get_logger()


class Book:
    """Enters what becomes of inputs, and looks whether outputs are there."""

    def __init__(self, file: LedgerFile, convert: ConvertSettings) -> None:
        self._file = file
        self._out = Path(convert.out)
        self._settings = orjson.dumps(convert.recipe).decode()
        self._entries: list[Entry] = []
        self._altered: list[str] = []
        self._has_failed = False

    def expect(self, picture: Input, seen: Seen | None) -> None:
        """Enter an input that is to be converted, and what its output's place holds."""
        entry = self._entry(picture)
        if seen is not None:
            entry = replace(
                entry, output_bytes=seen.size, output_mtime_ns=seen.mtime_ns
            )
        self._entries.append(entry)

    def convert(self, picture: Input, output_bytes: int) -> None:
        """Enter a conversion; writing it finds whether its output is there."""
        entry = self._entry(picture)
        self._entries.append(
            replace(entry, state="converted", output_bytes=output_bytes)
        )

    def fail(self, picture: Input, kind: str, reason: str) -> None:
        """Enter a job that ran out of attempts."""
        entry = self._entry(picture)
        reason = reason.encode(errors="backslashreplace").decode()
        self._entries.append(replace(entry, state="failed", kind=kind, reason=reason))

    def alter(self, output: str) -> None:
        """Enter that somebody else's job has made an output, a path in `out`."""
        self._altered.append(str(Path(output).relative_to(self._out)))

    async def write(self) -> list[str]:
        """Write what there is; return the conversions whose outputs are not there.

        They are named by their outputs. Raises LedgerError, and keeps all to be written
        again.
        """
        missing: list[str] = []
        while self._entries or self._altered:
            entries, altered = self._entries[:BATCH], self._altered[:BATCH]
            missing += await asyncio.to_thread(self._put, entries, altered)
            del self._entries[: len(entries)], self._altered[: len(altered)]
        return missing

    async def write_if_possible(self) -> list[str]:
        """Write what there is; what can't be written is said once and kept."""
        try:
            return await self.write()
        except LedgerError as error:
            if not self._has_failed:
                log.warning("ledger.not_written", reason=str(error))
            self._has_failed = True
            return []

    def _entry(self, picture: Input) -> Entry:
        seen = picture.seen
        return Entry(
            output=picture.name,
            source=picture.uri,
            size=seen.size,
            mtime_ns=seen.mtime_ns,
            settings=self._settings,
            state="waiting",
        )

    def _put(self, entries: Sequence[Entry], altered: Sequence[str]) -> list[str]:
        """Look at the outputs of conversions, and enter all; on any thread."""
        rows, missing = [], []
        for entry in entries:
            if entry.state != "converted":
                rows.append(entry)
                continue
            seen = look_at(self._out / entry.output)
            if seen is not None and seen.size == entry.output_bytes:
                rows.append(replace(entry, output_mtime_ns=seen.mtime_ns))
            else:
                missing.append(entry.output)
        self._file.put(rows, altered, self._settings)
        return missing

"""The ledger on the disk: which output was made of what, and how. One SQLite table.

Owns the file's schema and its statements. Called by `book`, from any thread. Whoever
opens it holds the lock of the folder that it lies in.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal, Self

import orjson

from bwpool.errors import BwpoolError, ConfigError

NAME = "ledger.db"
"""In the state folder of an output folder."""

VERSION = 1
"""The schema's, in `PRAGMA user_version`; 0 is an empty file."""

_SCHEMA = """\
CREATE TABLE inputs (
    row INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    settings TEXT NOT NULL,
    output TEXT UNIQUE,
    state TEXT NOT NULL,
    output_bytes INTEGER,
    output_mtime_ns INTEGER,
    kind TEXT,
    reason TEXT
);
CREATE INDEX inputs_source ON inputs (source);
"""

State = Literal["waiting", "converted", "failed"]


class LedgerError(BwpoolError):
    """The ledger can't be written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: an output, and the input that it is or shall be made of."""

    output: str
    """Its path in the output folder."""
    source: str
    """The input's URI."""
    size: int
    """The input's, in bytes."""
    mtime_ns: int
    """The input's."""
    settings: str
    """What counts for the output, as JSON."""
    state: State
    output_bytes: int | None = None
    """The output's size; while the job waits, that of what was there before."""
    output_mtime_ns: int | None = None
    """When the output was written; while the job waits, what was there before."""
    kind: str | None = None
    """Of the failure, if it failed."""
    reason: str | None = None


_COLUMNS = tuple(field.name for field in fields(Entry))
# `executemany` holds the interpreter's lock for each row; this is one call a batch.
_PUT = (
    f"INSERT INTO inputs ({', '.join(_COLUMNS)}) SELECT "  # noqa: S608 - our columns
    + ", ".join(f"json_extract(value, '$[{i}]')" for i in range(len(_COLUMNS)))
    + " FROM json_each(?) WHERE true ON CONFLICT (output) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])
)
_GET = f"SELECT {', '.join(_COLUMNS)} FROM inputs WHERE output IS NOT NULL"  # noqa: S608
_ALTER = "UPDATE inputs SET settings = ?, state = 'waiting' WHERE output = ?"


class LedgerFile:
    """An open ledger; whoever opens it closes it."""

    def __init__(self, path: Path) -> None:
        """Open or create it; ConfigError where it is damaged or of a later version."""
        self._path = path
        self._lock = threading.Lock()
        """A write whose caller was cancelled goes on until it is done."""
        try:
            self._db = sqlite3.connect(path, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise ConfigError(
                f"can't use the ledger {path}: {error}; move it away, and what has an "
                "output newer than its source counts as done"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._db.close()

    def entries(self) -> Iterator[Entry]:
        """Yield all rows that have an output."""
        try:
            for row in self._db.execute(_GET):
                yield Entry(*row)
        except sqlite3.Error as error:
            raise ConfigError(
                f"can't read the ledger {self._path}: {error}; move it away"
            ) from None

    def put(self, entries: Sequence[Entry], altered: Sequence[str], to: str) -> None:
        """Enter rows, durably and all together, in place of their outputs' old ones.

        The outputs `altered` have been made anew with the settings `to`, of whatever
        source. Raises LedgerError.
        """
        rows = orjson.dumps([astuple(entry) for entry in entries]).decode()
        try:
            with self._lock, self._db:
                self._db.execute(_PUT, (rows,))
                self._db.executemany(_ALTER, [(to, output) for output in altered])
        except sqlite3.Error as error:
            raise LedgerError(f"can't write the ledger {self._path}: {error}") from None

    def _prepare(self) -> None:
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise ConfigError(
                f"the ledger {self._path} is of a later bwpool: use that, or move it "
                "away"
            )
        if version == 0:
            self._db.executescript(
                f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;"
            )
        # Reads every page that matters: a damaged file is found before anything runs.
        self._db.execute("SELECT count(*) FROM inputs").fetchone()

"""How a benchmark is called, and how it reports."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

S = TypeVar("S")

Found = dict[str, Any]
"""What a benchmark has found, ready for JSON."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make a command line with what all benchmarks understand."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--quick", action="store_true", help="tiny, for a first look")
    made.add_argument("--json", action="store_true", help="end with a JSON object")
    return made


def parser_in_rounds(doc: str | None) -> argparse.ArgumentParser:
    """Make a command line for a benchmark that goes in rounds."""
    made = parser(doc)
    made.add_argument("--rounds", type=int, help="how often everybody takes a turn")
    made.add_argument(
        "--work", type=Path, help="where to put queues and outputs, instead of /tmp"
    )
    return made


def sizes_of(given: argparse.Namespace, quick: S, full: S) -> S:
    """Return how much to measure, as the command line wants it."""
    sizes = quick if given.quick else full
    if given.rounds:
        return replace(sizes, rounds=given.rounds)  # type: ignore[type-var]
    return sizes


def run(
    given: argparse.Namespace,
    measure: Callable[[Path], Awaitable[Found]],
    show: Callable[[Found], None],
) -> None:
    """Measure in a temporary folder, show what was found, and end with it as JSON."""
    with tempfile.TemporaryDirectory(prefix="bwpool-bench-", dir=given.work) as folder:
        found = asyncio.run(_await(measure(Path(folder))))
    report(given, found, show)


def report(
    given: argparse.Namespace, found: Found, show: Callable[[Found], None]
) -> None:
    """Show what was found, and end with it as JSON if that is wanted."""
    show(found)
    if given.json:
        print(json.dumps(found))


async def _await(measuring: Awaitable[Found]) -> Found:
    return await measuring


def show_host(found: Found) -> None:
    """Print where and with what something was measured."""
    print(" · ".join(f"{key} {value}" for key, value in found["host"].items()))


def spelled(summary: Found, form: str = ",.0f") -> str:
    """Write a median with its spread."""
    return f"{summary['median']:{form}} ±{summary['spread'] / 2:.0%}"

"""How a benchmark is called, and how it reports."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

Found = dict[str, Any]
"""What a benchmark has found, ready for JSON."""


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Make a command line with what all benchmarks understand."""
    made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    made.add_argument("--quick", action="store_true", help="tiny, for a first look")
    made.add_argument("--json", action="store_true", help="end with a JSON object")
    made.add_argument(
        "--work", type=Path, help="where to put queues and outputs; default: a new "
        "temporary folder"
    )  # fmt: skip
    return made


def run(
    given: argparse.Namespace,
    measure: Callable[[Path], Awaitable[Found]],
    show: Callable[[Found], None],
) -> None:
    """Measure in a temporary folder, show what was found, and end with it as JSON."""
    with tempfile.TemporaryDirectory(prefix="bwpool-bench-", dir=given.work) as folder:
        found = asyncio.run(_await(measure(Path(folder))))
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

"""What a backfill prints when it is over."""

from __future__ import annotations

from pathlib import Path

import orjson

from bwpool.backfill.inputs import Inputs
from bwpool.backfill.ledger import Ledger

SHOWN_FAILURES = 1_000
"""Failures that are listed one by one; of more, the rest is counted."""


def report_backfill(
    ledger: Ledger, inputs: Inputs, out: Path, elapsed: float, *, as_json: bool
) -> None:
    """Report on stdout, as JSON for machines or as a summary for people."""
    if as_json:
        print(orjson.dumps(_summary(ledger, elapsed)).decode())
    else:
        print("\n".join(_lines(ledger, inputs, out, elapsed)))


def _summary(ledger: Ledger, elapsed: float) -> dict[str, float]:
    return {
        "inputs": ledger.inputs,
        "converted": ledger.converted,
        "skipped": ledger.skipped,
        "failed": len(ledger.failures),
        "bytes_in": ledger.bytes_in,
        "bytes_out": ledger.bytes_out,
        "elapsed": round(elapsed, 3),
    }


def _lines(ledger: Ledger, inputs: Inputs, out: Path, elapsed: float) -> list[str]:
    rate = f"{ledger.converted / elapsed:.1f} img/s"
    sizes = f"{_size(ledger.bytes_in)} → {_size(ledger.bytes_out)}"
    done = f"{_count(ledger.converted, 'picture')} converted in {elapsed:.1f} s"
    lines = [f"{done} ({rate}, {sizes}): {out}"]
    if ledger.skipped:
        lines.append(f"{ledger.skipped} skipped, done before (--force converts again)")
    if inputs.others:
        lines.append(f"{_count(inputs.others, 'file')} left alone, no pictures")
    if ledger.failures:
        lines += _failure_lines(ledger)
    if ledger.waiting:
        left = len(ledger.waiting)
        lines.append(f"{left} left: the same command goes on where this one stopped")
    return lines


def _failure_lines(ledger: Ledger) -> list[str]:
    kinds = ", ".join(f"{kind} {count}" for kind, count in ledger.kinds())
    lines = [f"{len(ledger.failures)} failed ({kinds}):"]
    failures = list(ledger.failures.values())
    lines += [f"  {f.source}: {f.kind}: {f.reason}" for f in failures[:SHOWN_FAILURES]]
    if len(failures) > SHOWN_FAILURES:
        lines.append(f"  … and {len(failures) - SHOWN_FAILURES} more")
    lines.append("the same command tries these again")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

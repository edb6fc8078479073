"""What a backfill prints when it is over."""

from __future__ import annotations

import sys

from bwpool.backfill.inputs import Inputs
from bwpool.backfill.ledger import Ledger
from bwpool.cli.common import as_json_line, printable
from bwpool.errors import JOB_ERRORS


def report_backfill(
    ledger: Ledger, inputs: Inputs, out: str, elapsed: float, *, as_json: bool
) -> None:
    """Report on stdout, as JSON for machines or as a summary for people."""
    if as_json:
        print(as_json_line(_summary(ledger, inputs, elapsed)))
        return
    for line in _lines(ledger, inputs, out, elapsed):
        # Names can hold anything, and stdout may speak less than Unicode.
        encoding = sys.stdout.encoding
        print(printable(line).encode(encoding, "backslashreplace").decode(encoding))


def _summary(ledger: Ledger, inputs: Inputs, elapsed: float) -> dict[str, object]:
    return {
        "inputs": ledger.inputs,
        "converted": ledger.converted,
        "skipped": ledger.skipped,
        "failed": len(ledger.failures),
        "left_alone": inputs.others,
        "kinds": dict(ledger.kinds()),
        "bytes_in": ledger.bytes_in,
        "bytes_out": ledger.bytes_out,
        "elapsed": round(elapsed, 3),
    }


def _lines(ledger: Ledger, inputs: Inputs, out: str, elapsed: float) -> list[str]:
    lines = []
    if inputs.is_empty:
        lines.append(f"no pictures in {', '.join(inputs.sources)}")
    else:
        rate = f"{ledger.converted / elapsed:.1f} img/s"
        sizes = f"{_size(ledger.bytes_in)} → {_size(ledger.bytes_out)}"
        done = f"{_count(ledger.converted, 'picture')} converted in {elapsed:.1f} s"
        lines.append(f"{done} ({rate}, {sizes}): {out}")
    if ledger.skipped:
        lines.append(f"{ledger.skipped} skipped, done before (--force converts again)")
    lines += _left_alone(inputs)
    if ledger.failures:
        lines += _failure_lines(ledger)
    if ledger.waiting:
        left = len(ledger.waiting)
        lines.append(f"{left} left: the same command goes on where this one stopped")
    return lines


def _left_alone(inputs: Inputs) -> list[str]:
    counts = [
        (inputs.others, "file", "no pictures"),
        (inputs.outputs, "file", "outputs themselves"),
        (inputs.links, "folder", "only linked to"),
    ]
    return [
        f"{_count(count, noun)} left alone, {reason}"
        for count, noun, reason in counts
        if count
    ]


def _failure_lines(ledger: Ledger) -> list[str]:
    """List every failure, and say whether to try again is of any use."""
    kinds = ", ".join(f"{kind} {count}" for kind, count in ledger.kinds())
    failures = ledger.failures.values()
    lines = [f"{len(failures)} failed ({kinds}):"]
    lines += [f"  {f.source}: {f.kind}: {f.reason}" for f in failures]
    curable = sum(_is_curable(failure.kind) for failure in failures)
    if curable == len(failures):
        lines.append("the same command tries these again")
    elif curable:
        lines.append(f"the same command tries again, which may help {curable} of these")
    return lines


def _is_curable(kind: str) -> bool:
    """Whether the same picture might be converted another time."""
    error = JOB_ERRORS.get(kind)
    return error is None or error.retryable


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

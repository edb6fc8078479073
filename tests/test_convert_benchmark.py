"""The benchmark of the conversion still runs, in a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_benchmark_runs() -> None:
    """All its measurements are taken, and what it converts is right."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.convert", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout.splitlines()[-1])

    assert {"host", "corpus", "speed", "fidelity", "memory"} <= found.keys()
    ours = [one for one in found["speed"] if one["contender"] == "bwpool"]
    assert len(ours) == 6
    assert all(one["seconds"] > 0 for one in ours)
    dithered = [one for one in found["fidelity"] if one["contender"] == "bwpool to png"]
    assert all(one["hpsnr"] > 30 and abs(one["tone"]) < 1 for one in dithered)

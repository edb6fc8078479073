"""The benchmarks of the conversion still run, in a tiny size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def run(name: str) -> dict[str, Any]:
    """Run a benchmark as its users do, and return what it found."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_benchmark_runs() -> None:
    """All its measurements are taken, and what it converts is right."""
    found = run("convert")

    assert {"host", "corpus", "speed", "fidelity", "memory"} <= found.keys()
    ours = [one for one in found["speed"] if one["contender"] == "bwpool"]
    assert len(ours) == 6
    assert all(one["seconds"] > 0 for one in ours)
    dithered = [one for one in found["fidelity"] if one["contender"] == "bwpool to png"]
    assert all(one["hpsnr"] > 30 and abs(one["tone"]) < 1 for one in dithered)


def test_faithful_runs() -> None:
    """Every dithering is compared with each picture, by three Gaussians."""
    found = run("faithful")

    one = next(one for one in found["fidelity"] if one["contender"] == "faithful")
    assert one["hpsnr"]["1.0"] < one["hpsnr"]["1.5"] < one["hpsnr"]["2.5"]
    assert all(gain > 1.2 for gain in found["gains"]["1.5"].values())
    assert {"floyd-steinberg", "faithful"} <= found["conversion"].keys()
    assert found["flat_fields"]["faithful"] < 1

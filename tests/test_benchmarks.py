"""The benchmarks of the queue still run, in a tiny size; how fast is not asked here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(name, *options):
    """Run a benchmark as its users do, and return what it found."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NATS_")}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", *options],
        cwd=ROOT,
        env=clean,
        stdout=subprocess.PIPE,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0
    return json.loads(done.stdout.splitlines()[-1])


def test_dispatch_runs():
    """It tells rate and cost of no-op jobs, and both for sleepers and depths."""
    found = run("dispatch", "--rounds", "1")

    assert found["jobs_per_s"] > 0
    assert found["cpu_us_per_job"] > 0
    assert [one["slots"] for one in found["sleeping"]] == [4, 8]
    assert all(one["share_of_alone"]["median"] > 0 for one in found["sleeping"])
    assert [one["messages"] for one in found["depth"]["at"]] == [100, 2000]


def test_end_to_end_runs():
    """It compares bwpool with the pool and, where that can run, the seed's worker."""
    names = ("bwpool", "bwpool --no-sync", "bare pool", "seed's worker")
    options = (word for name in names for word in ("--only", name))
    found = run("end_to_end", *options)

    present = set(names) - found["absent"].keys()
    for one in found["sets"].values():
        assert {system["name"] for system in one["systems"]} == present
    assert found["ratio_to_pool"].keys() == {"thumbnails", "photographs"}
    assert all(one["added_ms"]["median"] > 0 for one in found["latency"].values())


def test_missing_peers_are_left_out():
    """A contender that isn't installed is a line, not an error."""
    found = run("end_to_end", "--only", "Celery", "--only", "FastStream")

    ran = {one["name"] for each in found["sets"].values() for one in each["systems"]}
    assert found["absent"].keys() | ran == {"Celery", "FastStream"}


def test_scale_runs():
    """It tells how converters, sleepers and supervisors grow."""
    found = run("scale")

    assert found["procs"]["at"][0]["growth"]["median"] == pytest.approx(1)
    assert [one["slots"] for one in found["sleeping"]] == [4, 8]
    assert sum(found["sharing"]["settled"]) == found["sharing"]["jobs"]
    assert found["capped"]["jobs_per_s"]["median"] > 0


def test_distance_runs():
    """It compares a server that is far away with a near one, behind the same proxy."""
    found = run("distance")

    assert [one["round_trip"] for one in found["at"]] == [0.0, 0.02]
    assert found["at"][0]["of_nearest"]["median"] == pytest.approx(1)
    for one in found["turning"]:
        assert sum(one["settled"]) == one["short"] + one["long"]


def test_pages_are_rendered_from_the_results():
    """No table or plot differs from what was measured."""
    command = [sys.executable, "-m", "benchmarks.report", "--check"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    assert done.stdout == ""
    assert done.returncode == 0

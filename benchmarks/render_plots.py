"""Which plots there are, and what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.charts import Bar, Panel
from benchmarks.command import Found
from benchmarks.end_to_end import MAIN_SETS, OURS, UNSYNCED
from benchmarks.render_tables import number


def throughput(found: Found) -> list[Panel]:
    """Show the pictures a second of every system."""
    sets = found["end_to_end"]["sets"]
    return [
        Panel(f"{name}: pictures a second", bars(sets[name]["systems"]))
        for name in MAIN_SETS
    ]


def bars(systems: Iterable[Found]) -> list[Bar]:
    """Draw systems, the fastest first."""
    drawn = [
        Bar(
            each["name"],
            each["images_per_s"]["median"],
            number(each["images_per_s"]["median"]),
            is_ours=each["name"] == OURS,
        )
        for each in systems
        if each["name"] != UNSYNCED
    ]
    return sorted(drawn, key=lambda bar: -bar.value)


def scaling(found: Found) -> list[Panel]:
    """Show how pictures a second grow with converters, beside the bare pool."""
    drawn = []
    for one in found["scale"]["procs"]["at"]:
        for name, key in ((OURS, "bwpool"), ("bare pool", "bare_pool")):
            rate = one[key]["median"]
            text = number(rate)
            label = f"{name}, --procs {one['procs']}"
            drawn.append(Bar(label, rate, text, is_ours=name == OURS))
    return [Panel("photographs a second", drawn)]


def cost(found: Found) -> list[Panel]:
    """Show what a job costs the supervisor and the server."""
    rows = [("no-op, 2 slots", found["dispatch"]["idle"])]
    for name in ("dispatch", "scale"):
        for one in found[name]["sleeping"]:
            nap = one["seconds"] * 1e3
            rows.append((f"{one['slots']} slots, {nap:g} ms a job", one))
    return [
        Panel(
            title,
            [
                Bar(name, one[key]["median"], number(one[key]["median"]), is_ours=ours)
                for name, one in rows
            ],
        )
        for title, key, ours in (
            ("supervisor: microseconds of CPU a job", "cpu_us_per_job", True),
            ("server: microseconds of CPU a job", "server_us_per_job", False),
        )
    ]


PLOTS: dict[str, Callable[[Found], list[Panel]]] = {
    "throughput": throughput,
    "scaling": scaling,
    "cost": cost,
}

"""How the model of a queue's capacity reads, and how it compares with measurements."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.capacity import (
    DEFAULT_MAX_ACK_PENDING,
    Costs,
    Load,
    first_limit,
    on_shared_cores,
    streams,
)
from benchmarks.command import Found
from benchmarks.end_to_end import MAIN_SETS, POOL
from benchmarks.render_tables import number, rate, table

CONVERTERS = (16, 160, 1_600)


def costs_of(found: Found) -> Costs:
    """Take the costs a job from the results of `dispatch`."""
    idle, publishing = (
        found["dispatch"]["idle"],
        found["dispatch"]["depth"]["publishing"],
    )
    return Costs(
        supervisor=idle["cpu_us_per_job"]["median"] / 1e6,
        publishing=publishing["server_us_per_job"] / 1e6,
        settling=idle["server_us_per_job"]["median"] / 1e6,
        written_bytes=publishing["written_bytes_per_job"]
        + idle["written_bytes_per_job"]["median"],
    )


def seconds_of(found: Found, name: str) -> float:
    """Return how long a picture keeps a converter busy."""
    procs: int = found["end_to_end"]["procs"]
    return procs / rate(found["end_to_end"]["sets"][name], POOL)


def costs(found: Found) -> str:
    """Tell what a job costs whom."""
    one = costs_of(found)
    stored = found["dispatch"]["depth"]["publishing"]["stored_bytes_per_job"]
    rows = [
        ("supervisor, CPU", f"{one.supervisor * 1e6:.0f} µs", core(one.supervisor)),
        ("server, CPU: publishing", f"{one.publishing * 1e6:.0f} µs", ""),
        ("server, CPU: delivery, advisory, ack", f"{one.settling * 1e6:.0f} µs", ""),
        ("server, CPU: all", f"{one.server * 1e6:.0f} µs", core(one.server)),
        ("server, in its files while queued", f"{stored:,.0f} bytes", ""),
        ("server, written to the disk", f"{one.written_bytes:,.0f} bytes", ""),
    ]
    for name in MAIN_SETS:
        seconds = seconds_of(found, name)
        rows.append((f"converter, {name}", f"{seconds * 1e3:.1f} ms", core(seconds)))
    return table(("a job costs", "", "one core carries"), rows)


def core(seconds: float) -> str:
    """Write how many jobs a second one core can do."""
    return f"{number(1 / seconds)} jobs/s"


def limits(found: Found) -> str:
    """Tell what limits fleets of several sizes, and what to set."""
    one = costs_of(found)
    rows = []
    for name in MAIN_SETS:
        for converters in CONVERTERS:
            load = Load(converters, seconds_of(found, name))
            limit, carried = first_limit(load, one, DEFAULT_MAX_ACK_PENDING)
            rows.append(
                (
                    f"{converters:,} on {name}",
                    number(load.jobs_per_s),
                    f"{load.supervisors}",
                    f"{limit}: {number(carried)}",
                    to_set(load),
                    f"{streams(load, one)}",
                    f"{load.jobs_per_s * one.written_bytes / 1e6:.1f} MB/s",
                )
            )
    head = (
        "converters",
        "ask for jobs/s",
        "supervisors of 16",
        "first limit by default, jobs/s",
        "set max_ack_pending",
        "streams",
        "server's disk",
    )
    return table(head, rows)


def to_set(load: Load) -> str:
    """Write the max_ack_pending that lets every slot look ahead."""
    if load.held <= DEFAULT_MAX_ACK_PENDING:
        return f"{DEFAULT_MAX_ACK_PENDING:,} (default)"
    return f"{-(-load.held * 5 // 4 // 1000) * 1000:,}"


def check(found: Found) -> str:
    """Compare the model with sleeping slots on one machine."""
    one = costs_of(found)
    rows = []
    for each in (*found["dispatch"]["sleeping"], *found["scale"]["sleeping"]):
        nap = each["slots"] / each["alone_per_s"]["median"]
        asleep = each["converters_us_per_job"]["median"] / 1e6
        says = on_shared_cores(Load(each["slots"], nap), one, 2, asleep)
        name = f"{each['slots']} slots, {each['seconds'] * 1e3:g} ms"
        rows.append(compared(name, says, each["jobs_per_s"]["median"]))
    capped = found["scale"]["capped"]
    cap = capped["max_ack_pending"]
    name = f"{capped['slots']} slots, {capped['seconds'] * 1e3:g} ms, at most {cap} out"
    says = cap / capped["seconds"]
    rows.append(compared(name, says, capped["jobs_per_s"]["median"]))
    return table(("", "the model says", "measured", "share"), rows)


def compared(name: str, says: float, measured: float) -> tuple[str, str, str, str]:
    """Write a row of what was foretold and what came."""
    return name, number(says), number(measured), f"{measured / says:.2f}"


SECTIONS: dict[str, Callable[[Found], str]] = {
    "capacity_costs": costs,
    "capacity_limits": limits,
    "capacity_check": check,
}

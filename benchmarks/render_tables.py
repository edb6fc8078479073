"""How the results of the benchmarks read as tables and sentences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.command import Found
from benchmarks.end_to_end import MAIN_SETS, OURS, POOL, SEED, UNSYNCED


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table, numbers to the right."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def number(value: float) -> str:
    """Write a number with three or four digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def middle(summary: Found) -> str:
    """Write a median with half the width of the middle half of the rounds."""
    return f"{number(summary['median'])} ±{summary['spread'] / 2:.0%}"


def times(ratio: float) -> str:
    """Write how many times as fast something is."""
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2f}×"


def host(found: Found) -> str:
    """Say where, with what and when everything was measured."""
    order = ("dispatch", "end_to_end", "scale")
    rows = []
    for name in order:
        if name in found:
            one = found[name]["host"]
            system = f"{one['machine']}, {one['system']}, {one['disk']}"
            rows.append((f"`{name}`", system, one["commit"], one["time"], one["load"]))
    made_with = found["end_to_end"]["host"] | found["end_to_end"]["peers"]
    skipped = ("machine", "system", "disk", "commit", "time", "load", "kernel")
    versions = " · ".join(
        f"{name} {shortened(version)}"
        for name, version in made_with.items()
        if name not in skipped
    )
    head = ("benchmark", "machine", "commit", "time", "load before")
    corpus = found["end_to_end"]["corpus"]
    return f"{table(head, rows)}\n\nCorpus `{corpus}` · {versions}"


def shortened(version: str) -> str:
    """Pick the number out of what a program says of its version."""
    words = [word.removeprefix("v=") for word in version.split()]
    return next((word for word in words if word[:1].isdigit()), version)


def throughput(found: Found) -> str:
    """Tell the pictures a second of every contender, set by set."""
    return "\n\n".join(
        f"### {name[0].upper()}{name[1:]}\n\n{described(one)}\n\n{systems(one)}"
        for name, one in found["end_to_end"]["sets"].items()
    )


def described(one: Found) -> str:
    """Say what the pictures of a set are."""
    samples = ", ".join(f"`{name}`" for name in one["samples"])
    rounds = len(one["systems"][0]["images_per_s"]["rounds"])
    return (
        f"{samples}: {one['megapixels']:.1f} MP, {one['bytes'] / 1000:,.0f} kB "
        f"on average. {rounds} rounds."
    )


def systems(one: Found) -> str:
    """Tell every contender's speed, the fastest first."""
    fastest = sorted(
        one["systems"], key=lambda each: -each["images_per_s"]["median"]
    )  # fmt: skip
    rows = [
        (
            f"**{each['name']}**" if each["name"] == OURS else each["name"],
            each["method"],
            middle(each["images_per_s"]),
            times_of(one, each["name"]),
            f"{each['off']:.1f}",
        )
        for each in fastest
    ]
    head = ("", "set up as", "pictures/s", "bwpool is", "tone off by")
    return table(head, rows)


def times_of(one: Found, name: str) -> str:
    """Write how many times as fast as another bwpool is."""
    if name == OURS:
        return ""
    return times(one["bwpool_to"][name]["median"])


def where_peers_win(found: Found) -> str:
    """Say on which pictures somebody else is faster."""
    lines = []
    for name, one in found["end_to_end"]["sets"].items():
        ratios = {
            each["name"]: one["bwpool_to"][each["name"]]["median"]
            for each in one["systems"]
            if each["is_peer"]
        }
        best = min(ratios, key=lambda peer: ratios[peer])
        if ratios[best] < 1:
            lines.append(f"- {name}: **{best} wins**, bwpool is {times(ratios[best])}.")
        else:
            lines.append(f"- {name}: the best peer is {best}; {times(ratios[best])}.")
    absent = found["end_to_end"]["absent"]
    lines += [f"- {name} was not installed." for name in absent]
    return "\n".join(lines)


def queue_cost(found: Found) -> str:
    """Tell what the queue and durability take from the bare pool's speed."""
    rows = []
    for name, one in found["end_to_end"]["sets"].items():
        to, by_name = one["bwpool_to"], {each["name"]: each for each in one["systems"]}
        rows.append(
            (
                name,
                f"{to[POOL]['median']:.3f}",
                f"{to[UNSYNCED]['median']:.3f}",
                middle(by_name[OURS]["cpu_us_per_job"]),
                middle(by_name[OURS]["server_us_per_job"]),
            )
        )
    head = (
        "",
        "of the bare pool",
        "of bwpool without sync",
        "supervisor, µs a job",
        "server, µs a job",
    )
    return table(head, rows)


def latency(found: Found) -> str:
    """Tell what an idle queue adds to a conversion."""
    rows = [
        (name, middle(one["added_ms"]), number(one["added_ms_p90"]))
        for name, one in found["end_to_end"]["latency"].items()
    ]
    return table(("", "added, ms", "nine of ten within, ms"), rows)


def dispatch(found: Found) -> str:
    """Tell rate and cost of jobs that need no conversion."""
    one = found["dispatch"]
    idle = one["idle"]
    rows = [
        (f"{idle['slots']} that do nothing", *dispatched(idle), ""),
        *(
            (
                f"{each['slots']} that sleep {each['seconds'] * 1e3:g} ms",
                *dispatched(each),
                f"{each['share_of_alone']['median']:.3f}",
            )
            for each in one["sleeping"]
        ),
    ]
    head = (
        "converters",
        "jobs/s",
        "supervisor, µs a job",
        "server, µs a job",
        "of the same alone",
    )
    return table(head, rows)


def dispatched(one: Found) -> tuple[str, str, str]:
    """Write the figures that no-op converters and sleepers have in common."""
    return (
        middle(one["jobs_per_s"]),
        middle(one["cpu_us_per_job"]),
        middle(one["server_us_per_job"]),
    )


def depth(found: Found) -> str:
    """Tell the cost of a job by the length of the queue."""
    one = found["dispatch"]["depth"]
    rows = [
        (f"{each['messages']:,}", middle(each["cpu_us_per_job"])) for each in one["at"]
    ]
    return (
        table(("messages in the stream", "supervisor, µs a job"), rows)
        + f"\n\nThe long queue costs {one['deep_to_shallow']:.2f} times as much a job "
        f"as the short one; while it is emptied, the last tenth costs "
        f"{one['last_to_first']:.2f} times as much as the first."
    )


def scaling(found: Found) -> str:
    """Tell how converters on cores grow."""
    rows = [
        (
            f"{one['procs']}",
            middle(one["bwpool"]),
            middle(one["bare_pool"]),
            f"{one['growth']['median']:.2f}×",
            f"{one['pools_growth']['median']:.2f}×",
            f"{one['share_of_growth']['median']:.3f}",
        )
        for one in found["scale"]["procs"]["at"]
    ]
    head = (
        "converters",
        "bwpool, pictures/s",
        "bare pool",
        "bwpool grows",
        "the pool grows",
        "share",
    )
    return table(head, rows)


def sleepers(found: Found) -> str:
    """Tell how slots that only sleep grow."""
    rows = [
        (
            f"{one['slots']}",
            middle(one["jobs_per_s"]),
            middle(one["alone_per_s"]),
            f"{one['share_of_alone']['median']:.3f}",
            middle(one["cpu_us_per_job"]),
        )
        for one in found["scale"]["sleeping"]
    ]
    nap = found["scale"]["sleeping"][0]["seconds"] * 1e3
    head = (
        f"slots that sleep {nap:g} ms",
        "jobs/s",
        "the same alone",
        "share",
        "supervisor, µs a job",
    )
    return table(head, rows)


def sharing(found: Found) -> str:
    """Tell how far apart two supervisors end."""
    one = found["scale"]["sharing"]
    first, second = one["settled"]
    return (
        f"Two supervisors of {one['procs']} converters shared {one['jobs']} jobs of "
        f"{one['seconds']:g} s: they did {first} and {second}, and the last jobs of "
        f"the two were {one['apart_seconds']:.1f} s apart."
    )


def headline(found: Found) -> str:
    """Say in the README what matters most."""
    sets = found["end_to_end"]["sets"]
    rows = []
    for each in sets[MAIN_SETS[0]]["systems"]:
        if each["name"] not in (POOL, UNSYNCED):
            rates = [rate(sets[name], each["name"]) for name in MAIN_SETS]
            name = f"**{each['name']}**" if each["name"] == OURS else each["name"]
            rows.append((rates[0], (name, each["method"], *map(number, rates))))
    rows.sort(key=lambda row: -row[0])
    size = sets["photographs"]["megapixels"]
    head = ("pictures a second, two cores", "", "thumbnails", f"{size:.0f} MP photos")
    to_seed = [sets[name]["bwpool_to"][SEED]["median"] for name in MAIN_SETS]
    return (
        table(head, [row for _, row in rows])
        + f"\n\nThat is {times(to_seed[0])} and {times(to_seed[1])} as many as two "
        "workers that run ImageMagick for each job, with every output synced to the "
        "disk and every job acknowledged."
    )


def rate(one: Found, name: str) -> float:
    """Return a contender's pictures a second."""
    (found,) = (each for each in one["systems"] if each["name"] == name)
    median: float = found["images_per_s"]["median"]
    return median


SECTIONS: dict[str, Callable[[Found], str]] = {
    one.__name__: one
    for one in (
        host,
        throughput,
        where_peers_win,
        queue_cost,
        latency,
        dispatch,
        depth,
        scaling,
        sleepers,
        sharing,
        headline,
    )
}

"""The ids of a backfill's jobs: paths without extension, as far as those stay unique.

Pure. Called by `inputs`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from bwpool.errors import ConfigError, InvalidJob
from bwpool.storage import output_name

Place = tuple[str, ...]
"""The segments of an id, the file's name last and with its extension."""


def name_jobs(
    places: Mapping[Place, Path],
    to: str,
    *,
    long: frozenset[Place] = frozenset(),
    ignores_case: bool,
) -> dict[Place, str]:
    """Return each place's job id, so that no two ids or outputs are the same.

    Whoever would share an id or an output with another, ignoring case, or whose output
    would be where others need a folder, keeps its extension; as does all in `long`.
    Raises ConfigError where that does not help. `ignores_case` says whether names that
    differ in nothing but case are the same in the output folder.
    """
    kept = set(long)
    while True:
        ids = {place: _id(place, is_long=place in kept) for place in places}
        rivals = _rivals(ids, to, ignores_case=True)
        more = rivals.keys() - kept
        if not more:
            break
        kept |= more
    if rivals and not ignores_case:
        rivals = _rivals(ids, to, ignores_case=False)
    for one, other in rivals.items():
        raise ConfigError(
            f"{places[one]} and {places[other]} would have the same output: "
            "rename one, or convert them on their own into another --out"
        )
    return ids


def _id(place: Place, *, is_long: bool) -> str:
    name = place[-1] if is_long else _stem(place[-1])
    return "/".join((*place[:-1], name))


def _stem(name: str) -> str:
    # As pathlib has it, in a tenth of the time.
    stem, _, rest = name.rpartition(".")
    return stem if stem and rest else name


def _rivals(
    ids: Mapping[Place, str], to: str, *, ignores_case: bool
) -> dict[Place, Place]:
    """Return who is in another's way, with one of those in whose way it is."""
    fold = str.casefold if ignores_case else str
    by_id: defaultdict[str, list[Place]] = defaultdict(list)
    by_output: defaultdict[str, list[Place]] = defaultdict(list)
    folders: dict[str, Place] = {}
    for place, job_id in ids.items():
        by_id[fold(job_id)].append(place)
        try:
            output = fold(output_name(job_id, place[-1], to))
        except InvalidJob:
            continue  # there will be no job, and no output
        by_output[output].append(place)
        folder = output.rpartition("/")[0]
        while folder and folder not in folders:
            folders[folder] = place
            folder = folder.rpartition("/")[0]
    rivals: dict[Place, Place] = {}
    for group in (*by_id.values(), *by_output.values()):
        if len(group) > 1:
            rivals |= dict(zip(group, group[1:] + group[:1], strict=True))
    for output, group in by_output.items():
        if output in folders:
            rivals[group[0]] = folders[output]
    return rivals

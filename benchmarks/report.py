"""Render the tables and plots of the pages from the stored results; none is typed.

    python -m benchmarks.<name> --json | tail -n 1 > benchmarks/results/<name>.json
    python -m benchmarks.report [--check]

A page says where a table goes: between `<!-- rendered: NAME -->` and `<!-- end -->`.
`--check` changes nothing; exit code 1 if a page differs from the results.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks import render_capacity, render_tables
from benchmarks.charts import draw
from benchmarks.command import Found
from benchmarks.host import ROOT
from benchmarks.render_plots import PLOTS

RESULTS = ROOT / "benchmarks" / "results"
PLOTS_FOLDER = ROOT / "benchmarks" / "plots"
PAGES = ("benchmarks/README.md", "docs/capacity.md", "README.md")
SECTIONS: dict[str, Callable[[Found], str]] = {
    **render_tables.SECTIONS,
    **render_capacity.SECTIONS,
}

_MARKED = re.compile(r"(<!-- rendered: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def read_results() -> Found:
    """Read what was measured last, by benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}


def render(text: str, found: Found) -> str:
    """Return a page with its tables made anew."""

    def replaced(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        return f"{begin}\n{SECTIONS[name](found).strip()}\n\n{end}"

    return _MARKED.sub(replaced, text)


def files(found: Found) -> Iterable[tuple[Path, str]]:
    """Return every file with what should be in it."""
    for page in PAGES:
        yield ROOT / page, render((ROOT / page).read_text(), found)
    for name, panels in PLOTS.items():
        yield PLOTS_FOLDER / f"{name}.svg", draw(panels(found))


def main() -> None:
    """Render, or check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    given = parser.parse_args()
    stale = [
        (path, text)
        for path, text in files(read_results())
        if not path.exists() or path.read_text() != text
    ]
    for path, text in stale:
        print(f"{path.relative_to(ROOT)} {'is stale' if given.check else 'rendered'}")
        if not given.check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    sys.exit(1 if stale and given.check else 0)


if __name__ == "__main__":
    main()

"""Render the README's table of methods from their descriptors.

Run as `python docs/render_methods.py`; the tests fail where the table is out of date.
"""

from __future__ import annotations

import re
from pathlib import Path

from bwpool.methods import DEFAULT_METHOD, METHODS

PAGE = Path(__file__).parent.with_name("README.md")

_MARKED = re.compile(r"(?<=<!-- methods -->\n).*?(?=<!-- end -->)", re.DOTALL)


def main() -> None:
    """Write the table into the page."""
    PAGE.write_text(render(PAGE.read_text()))


def render(page: str) -> str:
    """Return the page with the table made anew."""
    return _MARKED.sub(lambda _: f"\n{_table()}\n\n", page, count=1)


def _table() -> str:
    rows = [
        f"| `{one.name}` | {one.summary}{_default(one.name)} |"
        for one in METHODS.values()
    ]
    return "\n".join(["| method | |", "| --- | --- |", *rows])


def _default(name: str) -> str:
    return " The default." if name == DEFAULT_METHOD else ""


if __name__ == "__main__":
    main()

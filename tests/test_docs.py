"""What the pages say, against the program."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from processes import program

from bwpool.cli.app import make_app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """The code blocks of the README in one language."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [block for name, block in fenced if name == language]


def shell_commands() -> Iterator[list[str]]:
    """Each command in the README's shell blocks, in words."""
    for block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in line.split(" && "):
                yield shlex.split(command)


def bwpool_commands() -> list[list[str]]:
    """The arguments of each `bwpool` among them."""
    return [words[1:] for words in shell_commands() if words[0].endswith("bwpool")]


def inline_commands() -> list[list[str]]:
    """The arguments of each `bwpool …` in the README's text."""
    return [shlex.split(words) for words in re.findall(r"`bwpool ([^`…]+)`", README)]


@pytest.mark.parametrize("argv", bwpool_commands(), ids=" ".join)
def test_every_command_in_the_readme_parses(argv):
    """Its options exist, and take what they are given."""
    command, _, _ = make_app().parse_args(argv, print_error=False, exit_on_error=False)

    assert command.__module__.startswith("bwpool.cli.")


@pytest.mark.parametrize("argv", inline_commands(), ids=" ".join)
def test_every_command_in_the_text_exists(argv):
    """By name, with the options that go with it."""
    app, rest = make_app(), list(argv)
    while rest and rest[0] in app:
        app = app[rest.pop(0)]

    assert not rest or rest[0].startswith("-"), argv
    for option in rest:
        known = {name for a in app.assemble_argument_collection() for name in a.names}
        assert not option.startswith("-") or option in {*known, "--help"}


def test_the_readme_names_every_command():
    """Whoever reads it has heard of each."""
    for name in make_app():
        assert name.startswith("-") or f"bwpool {name}" in README


async def test_the_first_command_prints_what_the_readme_says(tmp_path):
    """As a newcomer runs it, but for the numbers."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (example, *_) = blocks("")
    argv = next(words for words in bwpool_commands() if words[0] == "backfill")
    async with program(sys.executable, "-m", "bwpool", *argv, cwd=tmp_path) as first:
        assert await first.wait() == 0, first.stderr.decode()

    assert without_measurements(example) == without_measurements(first.stdout.decode())


def without_measurements(text: str) -> str:
    """Leave out what depends on the machine."""
    return re.sub(r"\d+\.\d+ (s|img/s|[kM]?B)", "…", text)


def test_the_settings_are_rendered():
    """`python docs/render_settings.py` has been run since they changed."""
    render = runpy.run_path(str(ROOT / "docs/render_settings.py"))["render"]

    assert (ROOT / "docs/settings.md").read_text() == render()


def test_the_table_of_methods_is_rendered():
    """`python docs/render_methods.py` has been run since they changed."""
    render = runpy.run_path(str(ROOT / "docs/render_methods.py"))["render"]

    assert "| `floyd-steinberg` | " in README
    assert render(README) == README


@pytest.mark.parametrize("page", [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
def test_links_lead_somewhere(page):
    """Those to files of ours."""
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target

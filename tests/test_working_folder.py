"""The working folder is data: nothing in it is ever run."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from processes import create_seed_topology, environment, program, publish, said

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPT = Path(sys.executable).parent / "bwpool"
EVIL = "open({mark!r}, 'a').write(__name__ + '\\n')\nraise SystemExit(__name__)\n"
"""A module that tells that it was run."""

FORMS = {
    "script": (SCRIPT,),
    "script, -E": (sys.executable, "-E", SCRIPT),
    "module": (sys.executable, "-m", "bwpool"),
    "module, -E": (sys.executable, "-E", "-m", "bwpool"),
}
"""The ways to call it."""


@pytest.fixture
def mark(tmp_path):
    """The file in which modules say that they were run."""
    return tmp_path / "mark"


@pytest.fixture
def photos(tmp_path, mark):
    """Two pictures, and a module for each name that anything could import."""
    folder = tmp_path / "photos"
    (folder / "bwpool").mkdir(parents=True)
    code = EVIL.format(mark=str(mark))
    names = {*sys.stdlib_module_names, *packages_distributions()}
    for name in names - {"bwpool"}:
        if "/" not in name:
            (folder / f"{name}.py").write_text(code)
    (folder / "bwpool/__init__.py").write_text(code)
    for name in ("a", "b"):
        picture = (EXAMPLES / "sunset.jpg").read_bytes()
        (folder / f"{name}.jpg").write_bytes(picture)
    return folder


def imported_by_python_m(folder):
    """List the modules that are there when `python -m` begins with its module."""
    (folder / "nothing.py").write_text("import sys\nprint(*sys.modules)\n")
    argv = [sys.executable, "-m", "nothing"]
    names = subprocess.check_output(argv, cwd=folder, text=True).split()
    return {name.partition(".")[0] for name in names}


def in_folder(photos, form, *argv, **env):
    """Run a command there, called in one of the ways."""
    if "-m" in FORMS[form]:
        # These Python itself imports before we are asked.
        (photos / "bwpool/__init__.py").unlink()
        (photos / "bwpool").rmdir()
        for name in imported_by_python_m(photos.parent):
            (photos / f"{name}.py").unlink(missing_ok=True)
    return program(*FORMS[form], *argv, cwd=photos, env=env)


@pytest.mark.parametrize("form", FORMS)
async def test_backfill_runs_nothing_of_the_folder_that_it_is_in(form, photos, mark):
    """Neither a converter does, nor its helpers, nor the server's guard."""
    argv = ("backfill", "a.jpg", "b.jpg", "--out", "../out", "--procs", "1")
    async with in_folder(photos, form, *argv, PYTHONSAFEPATH="") as backfill:
        assert await backfill.wait() == 0, backfill.stderr.decode()

    assert not mark.exists()
    assert len(list((photos / "../out").glob("*.jpg"))) == 2


@pytest.mark.parametrize("form", ["script", "module"])
async def test_run_runs_nothing_of_it(form, photos, mark, server, connection, names):
    """Neither the first converter does, nor one that replaces it."""
    await create_seed_topology(connection, names)
    job = {"id": "a", "image": f"{(photos / 'a.jpg').as_uri()}"}
    argv = ("run", "--procs", "1", "--recycle-jobs", "1", "--out", "../out")
    env = environment(server, names)
    async with in_folder(photos, form, *argv, "--log-format", "json", **env) as run:
        await publish(connection, names, job)
        await said(run, "converter.recycled")
        await publish(connection, names, job)
        await said(run, "job.completed")
        run.send(signal.SIGTERM)
        assert await run.wait() == 0

    assert not mark.exists()


@pytest.mark.parametrize("form", ["script", "module"])
async def test_preview_runs_nothing_of_it(form, photos, mark):
    """It converts in its own process."""
    argv = ("preview", "a.jpg", "-o", "../sheet.png")
    async with in_folder(photos, form, *argv) as preview:
        assert await preview.wait() == 0, preview.stderr.decode()

    assert not mark.exists()


async def test_pythonpath_is_still_heeded(tmp_path, mark, photos):
    """By converters too, since that is the user's own word."""
    ours = tmp_path / "ours"
    ours.mkdir()
    tell = f"import sys\nopen({str(mark)!r}, 'a').write(sys.argv[-1] + '\\n')\n"
    (ours / "sitecustomize.py").write_text(tell)
    argv = ("backfill", "a.jpg", "--out", "../out", "--procs", "1")
    async with in_folder(photos, "script", *argv, PYTHONPATH=str(ours)) as backfill:
        assert await backfill.wait() == 0, backfill.stderr.decode()

    assert "--multiprocessing-fork" in mark.read_text().splitlines()

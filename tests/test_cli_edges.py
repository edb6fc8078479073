"""The commands where their users slip, and where the world around them does."""

from __future__ import annotations

import os

import pytest
from processes import bwpool


async def refused(*argv, **options):
    """Run a command that is refused, and return the one line that says why."""
    async with bwpool(*argv, **options) as command:
        code = await command.wait()
    said = (command.stderr + command.stdout).decode()
    assert code == 2, said
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("command", ["run", "backfill"])
async def test_object_storage_is_refused(command, tmp_path):
    """No local folder named `s3:` is made."""
    (tmp_path / "in").mkdir()
    argv = [command, "in"] if command == "backfill" else [command]
    said = await refused(*argv, "--out", "s3://bucket/x", cwd=tmp_path)

    assert "s3://bucket/x: object storage is not part of this version" in said
    assert ["in"] == os.listdir(tmp_path)


async def test_a_folder_that_is_not_utf_8_is_refused(tmp_path):
    """Its name could not be told in logs and reports."""
    said = await refused("run", "--out", os.fsdecode(b"caf\xe9"), cwd=tmp_path)

    assert r"caf\udce9: the output folder's name is not UTF-8" in said
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("/proc", "can't write to /proc: "),
        ("/proc/nowhere", "can't make /proc/nowhere: "),
        ("file/inner", "can't make file/inner: Not a directory"),
        ("file", "can't make file: File exists"),
    ],
)
async def test_a_folder_that_can_not_be_written_to_is_named(out, reason, tmp_path):
    """By the name it was given, not by that of a temporary file."""
    (tmp_path / "file").touch()
    said = await refused("run", "--out", out, cwd=tmp_path)

    assert f"bwpool: {reason}" in said
    assert ".bwpool" not in said

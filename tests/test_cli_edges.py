"""The commands where their users slip, and where the world around them does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from processes import bwpool, create_seed_topology, environment

from bwpool.errors import ConfigError
from bwpool.settings import Amount, ConvertSettings, PoolSettings, RunSettings

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def photo(tmp_path):
    """A picture to convert."""
    path = tmp_path / "color.jpg"
    path.write_bytes((EXAMPLES / "sunset.jpg").read_bytes())
    return path


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
    assert [tmp_path / "in"] == list(tmp_path.iterdir())


async def test_a_folder_that_is_not_utf_8_is_refused(tmp_path):
    """Its name could not be told in logs and reports."""
    said = await refused("run", "--out", os.fsdecode(b"caf\xe9"), cwd=tmp_path)

    assert r"caf\udce9: the output folder's name is not UTF-8" in said
    assert not list(tmp_path.iterdir())


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


OUT_OF_RANGE = [
    ("procs", "-1"),
    ("procs", "0"),
    ("quality", "0"),
    ("quality", "500"),
    ("timeout", "-1"),
    ("timeout", "0"),
    ("timeout", "nan"),
    ("drain_timeout", "-1"),
    ("drain_timeout", "inf"),
    ("max_pages", "0"),
    ("max_pixels", "1e999"),
    ("max_pixels", "0"),
    ("max_bytes", "1.2.3"),
    ("max_memory", "9e18"),
    ("recycle_jobs", "0"),
]


@pytest.mark.parametrize(("option", "value"), OUT_OF_RANGE)
async def test_a_value_out_of_range_is_refused(option, value, tmp_path):
    """In one line that names the option."""
    flag = "--" + option.replace("_", "-")
    said = await refused("run", "--out", "out", flag, value, cwd=tmp_path)

    (line,) = said.splitlines()
    assert flag in line
    assert value in line


@pytest.mark.parametrize(
    ("option", "value"), [("procs", "-1"), ("max_pixels", "1e999")]
)
async def test_a_variable_or_a_file_is_no_way_around_it(option, value, tmp_path):
    """BWPOOL_* and the configuration file are held to the same."""
    env = {f"BWPOOL_{option.upper()}": value}
    (tmp_path / "file.toml").write_text(f'{option} = "{value}"\n')
    by_variable = await refused("run", "--out", "out", cwd=tmp_path, env=env)
    by_file = await refused(
        "run", "--out", "out", "--config", "file.toml", cwd=tmp_path
    )

    for said in (by_variable, by_file):
        (line,) = said.splitlines()
        assert value in line
        assert option in line.lower().replace("-", "_")


@pytest.mark.parametrize(
    "make",
    [
        lambda: PoolSettings(procs=0),
        lambda: PoolSettings(timeout=float("nan")),
        lambda: RunSettings(drain_timeout=-1.0),
        lambda: RunSettings(advisory_prefix=("told.>",)),
        lambda: RunSettings(advisory_prefix=("told", "")),
        lambda: ConvertSettings(quality=0),
        lambda: ConvertSettings(max_memory=Amount(0)),
    ],
)
def test_settings_hold_for_python_too(make):
    """Whoever makes them without the command line is told the same."""
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize("text", ["1e999", "1.2.3", "9e19", "-1", "", "inf"])
def test_no_amount(text):
    """What is none is a ValueError, whatever float says of it."""
    with pytest.raises(ValueError, match="amount"):
        Amount(text)


async def test_a_context_flag_beats_a_server_variable(server, names, tmp_path):
    """Flags win over BWPOOL_*, whichever way they name the server."""
    context = tmp_path / "mine.json"
    context.write_text(f'{{"url": "{server.url}"}}')
    env = environment(server, names) | {"BWPOOL_SERVER": "nats://127.0.0.1:1"}
    async with bwpool("setup", "--context", context, env=env) as by_flag:
        assert await by_flag.wait() == 0, by_flag.stderr.decode()
    async with bwpool("setup", env=env) as by_variable:
        assert await by_variable.wait() == 1

    assert "nats://127.0.0.1:1" in by_variable.stderr.decode()


async def test_failures_are_looked_up_in_a_store_only_by_a_flag(
    server, connection, names, tmp_path
):
    """What names the output folder for good does not turn it away from the server."""
    await create_seed_topology(connection, names)
    (tmp_path / "bwpool.toml").write_text('out = "somewhere"\n')
    out = {"BWPOOL_OUT": "somewhere", "OUTDIR": "somewhere"}
    config = {"BWPOOL_CONFIG": str(tmp_path / "bwpool.toml")}
    for env in (out, config):
        async with bwpool(
            "failed", "list", env=environment(server, names) | env
        ) as run:
            assert await run.wait() == 0, run.stderr.decode()

        assert b"no job has failed" in run.stdout
    said = await refused("failed", "list", "--out", "nowhere", cwd=tmp_path)

    assert "nowhere" in said


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["nowhere.jpg"], "there is no file"),
        (["."], "is a folder, not a regular file"),
        (["color.jpg", "-o", "no/p.png"], "can't write no/p.png: No such file"),
        (["color.jpg", "-o", "p.xyz"], "can't write p.xyz: unknown file extension"),
        (["color.jpg", "-o", "color.jpg"], "would replace the picture"),
    ],
)
async def test_a_preview_that_can_not_be_is_explained(argv, reason, photo):
    """In one line, whether it can't be read or can't be written."""
    said = await refused("preview", *argv, cwd=photo.parent)

    (line,) = said.splitlines()
    assert reason in line

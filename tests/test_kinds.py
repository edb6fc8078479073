"""Everything that must know of a method or a format follows from its descriptor."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import pytest
from pictures import luma, photo, save
from PIL import Image, ImageFont

import bwpool.convert
from bwpool.errors import InvalidJob
from bwpool.formats import FORMATS
from bwpool.job import parse_job
from bwpool.methods import METHODS
from bwpool.storage import format_of_name, output_name

TESTS = Path(__file__).parent


def added(*argv, **options):
    """Run bwpool with a method and a format more."""
    command = [sys.executable, TESTS / "added_kinds.py", *map(str, argv)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, **options
    )


@pytest.mark.parametrize("command", ["run", "submit"])
def test_an_added_method_and_format_are_in_the_help(command):
    """Among the choices of the commands that take them."""
    shown = added(command, "--help").stdout

    assert {"negative", "pbm", "gray", "webp"} <= set(
        shown.replace("]", " ").replace(",", " ").split()
    )


@pytest.mark.parametrize("option", ["method", "format"])
def test_only_what_is_in_the_lists_is_an_option(option, tmp_path):
    """What was not added is refused, naming the choices, the added one among them."""
    done = added("run", "--out", tmp_path, f"--{option}", "nonsense")

    assert done.returncode == 2
    assert {"method": "negative", "format": "pbm"}[option] in done.stderr


def test_an_added_method_and_format_convert(tmp_path):
    """A backfill takes both, names the output, and a converter finds the functions."""
    source = save(photo(), tmp_path / "a.png")
    out = tmp_path / "out"
    asked = ("--out", out, "--method", "negative", "--format", "pbm")
    done = added("backfill", source, *asked)

    assert done.returncode == 0, done.stderr
    with Image.open(out / "a.pbm") as picture:
        assert np.array_equal(np.asarray(picture), luma(photo()) < 128)


def test_an_added_formats_limits_hold(tmp_path):
    """A picture beyond them is refused, naming the formats that can hold it."""
    save(photo(401, 20), tmp_path / "a.png")
    done = added("backfill", tmp_path / "a.png", "--out", tmp_path, "--format", "pbm")

    assert done.returncode == 1
    expected = "401 pixels long, pbm holds 400: ask for jpg or png or tiff or webp"
    assert expected in done.stderr


def test_an_added_method_is_in_the_preview(tmp_path):
    """Its cell comes last on the sheet, with what it makes of the picture."""
    source, sheet = save(photo(), tmp_path / "a.png"), tmp_path / "sheet.png"
    done = added("preview", source, "-o", sheet)

    assert done.returncode == 0, done.stderr
    row, column = divmod(1 + len(METHODS), 4)
    with Image.open(sheet) as image:
        across, down = (image.width - 16) // 4, (image.height - 16) // (row + 1)
        left, bottom = 16 + column * across, (row + 1) * down
        detail = image.crop((left, bottom - 200, left + 320, bottom)).convert("L")
    assert np.array_equal(np.asarray(detail) > 0, luma(photo()) < 128)


def test_jobs_can_ask_for_what_is_in_the_lists(monkeypatch):
    """For that, and for nothing else; the error names all there is."""
    payload = {"id": "a", "image": "file:///a.jpg", "method": "new", "format": "pbm"}
    with pytest.raises(InvalidJob, match=r"method 'new' is not one of .*sauvola"):
        parse_job(orjson.dumps(payload))
    monkeypatch.setitem(METHODS, "new", replace(METHODS["otsu"], name="new"))
    with pytest.raises(InvalidJob, match="format 'pbm' is not one of same, jpg"):
        parse_job(orjson.dumps(payload))
    pbm = replace(FORMATS["png"], name="pbm", suffixes=(".pbm", ".pnm"))
    monkeypatch.setitem(FORMATS, "pbm", pbm)

    assert parse_job(orjson.dumps(payload)).method == "new"
    assert parse_job(orjson.dumps(payload)).format == "pbm"


def test_outputs_are_named_by_the_lists(monkeypatch):
    """An added format has its own extension, and keeps those that sources have."""
    assert output_name("a", "b.pnm", "same") == "a.png"
    pbm = replace(FORMATS["png"], name="pbm", suffixes=(".pbm", ".pnm"))
    monkeypatch.setitem(FORMATS, "pbm", pbm)

    assert output_name("a", "b.pnm", "same") == "a.pnm"
    assert output_name("a", "b.jpg", "pbm") == "a.pbm"
    assert format_of_name("b.PNM") == "pbm"


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("bwpool.convert.bilevel:nothing", "the method new names .*:nothing"),
        ("bwpool.convert.nowhere:otsu", "nowhere"),
        ("bwpool.convert.bilevel:MIDDLE", "no function"),
    ],
)
def test_a_method_without_its_function_is_an_error_on_import(
    function, said, monkeypatch
):
    """Converters say so as they start, and no job comes out gray."""
    new = replace(METHODS["otsu"], name="new", function=function)
    monkeypatch.setitem(METHODS, "new", new)

    with pytest.raises(ImportError, match=said):
        importlib.reload(bwpool.convert)


def test_a_format_without_its_encoder_is_an_error_on_import(monkeypatch):
    """Also before the first job."""
    new = replace(FORMATS["png"], name="new", encoder="bwpool.convert.png:save")
    monkeypatch.setitem(FORMATS, "new", new)

    with pytest.raises(ImportError, match="the format new names"):
        importlib.reload(bwpool.convert)


def test_descriptors_are_found_by_what_they_call_themselves():
    """No two have a name or an extension in common, and every line fits a preview."""
    assert all(name == one.name for name, one in (METHODS | FORMATS).items())
    suffixes = [suffix for one in FORMATS.values() for suffix in one.suffixes]
    assert len(suffixes) == len(set(suffixes))
    font = ImageFont.load_default(14)
    assert all(font.getlength(one.summary) <= 480 for one in METHODS.values())

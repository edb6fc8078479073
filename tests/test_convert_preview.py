"""The sheet that shows what every method makes of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pictures import READABLE, photo, save, stored
from PIL import Image

from bwpool.convert.preview import preview
from bwpool.errors import BadImage, SourceRefused
from bwpool.methods import METHODS


@pytest.mark.parametrize("name", ["baseline.jpg", "sixteen.png", "picture.avif"])
def test_sheet_shows_every_method(name: str, tmp_path: Path) -> None:
    """The sheet has the original in colour and, for each method, its facts and look."""
    source = READABLE[name](tmp_path / name)
    tried = preview(source, tmp_path / "sheet.png")

    assert [one.method for one in tried] == list(METHODS)
    assert all(one.bytes_out > 0 and one.seconds > 0 for one in tried)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * photo().width
        left, right = (np.asarray(sheet)[:, :300], np.asarray(sheet)[:, 520:])
        assert len(np.unique(left.reshape(-1, 3), axis=0)) > 1000
        assert np.ptp(right.astype(int), axis=2).max() == 0


def test_sheet_never_replaces_the_picture(tmp_path: Path) -> None:
    """A sheet in the picture's place is refused."""
    source = save(photo(), tmp_path / "in.png")
    before = stored(source)
    with pytest.raises(SourceRefused):
        preview(source, source)

    assert np.array_equal(before, stored(source))


def test_unreadable_picture_has_no_sheet(tmp_path: Path) -> None:
    """What can't be read raises the job's error, and leaves no sheet."""
    (tmp_path / "in.png").write_bytes(b"This is no picture.")
    with pytest.raises(BadImage):
        preview(tmp_path / "in.png", tmp_path / "sheet.png")

    assert not (tmp_path / "sheet.png").exists()

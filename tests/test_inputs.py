"""What a backfill is about."""

from __future__ import annotations

import pytest

from bwpool.backfill.inputs import find_inputs
from bwpool.errors import ConfigError


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A folder with pictures, some in folders, and things that are none."""
    for name in (
        "archive/a.jpg",
        "archive/b/c.png",
        "archive/b/d.TIF",
        "archive/b/notes.txt",
        "archive/.hidden/x.jpg",
        "archive/.x.jpg",
        "other/a.jpg",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ids(archive, *sources, out="out", stdin=()):
    found = find_inputs(sources, archive / out, "same", stdin)
    return [picture.job_id for picture in found.pictures]


def test_a_folder_is_walked_and_mirrored(archive):
    """Ids are relative paths without extension, outputs keep theirs."""
    found = find_inputs(["archive"], archive / "out", "same")

    assert [picture.job_id for picture in found.pictures] == ["a", "b/c", "b/d"]
    assert archive / "out/b/d.TIF" == found.pictures[2].output
    assert archive / "archive/a.jpg" == found.pictures[0].source
    assert found.others == 1


def test_a_file_is_named_by_its_stem(archive):
    """A single file needs no folder in its id."""
    assert ids(archive, "archive/b/c.png") == ["c"]


def test_several_sources_come_with_their_names(archive):
    """Folders with the same files in them stay apart; files keep their own names."""
    assert ids(archive, "archive", "other") == [
        "archive/a",
        "archive/b/c",
        "archive/b/d",
        "other/a",
    ]
    assert ids(archive, "archive/a.jpg", "archive/b/c.png") == ["a", "c"]


def test_globs_are_expanded(archive):
    """Ids begin behind the last folder without a wildcard."""
    assert ids(archive, "archive/*.jpg") == ["a"]
    assert ids(archive, "archive/**/*.png") == ["b/c"]


def test_lists_are_read(archive):
    """A path a line, from a file or from standard input."""
    (archive / "list.txt").write_text(f"archive/a.jpg\n\n{archive}/other/a.jpg\n")

    listed = ids(archive, "@list.txt")
    assert ["archive/a", f"{archive}/other/a"[1:]] == listed
    assert ids(archive, "-", stdin=["archive/b/c.png\n"]) == ["archive/b/c"]


def test_stems_that_occur_twice_keep_their_extension(archive):
    """Case does not tell two names apart on every file system."""
    (archive / "archive/A.png").touch()

    assert {"a.jpg", "A.png", "b/c", "b/d"} == set(ids(archive, "archive"))


def test_an_output_folder_inside_the_source_is_not_fed(archive):
    """A second run does not convert the first one's outputs."""
    (archive / "archive/bw").mkdir()
    (archive / "archive/bw/a.jpg").touch()

    assert ids(archive, "archive", out="archive/bw") == ["a", "b/c", "b/d"]


def test_an_output_never_replaces_its_source(archive):
    """The same folder as source and output is found before anything runs."""
    with pytest.raises(ConfigError, match="replace its own source"):
        ids(archive, "archive", out="archive")


def test_the_same_output_twice_is_refused(archive):
    """Two files of the same name in different folders can't both be `a`."""
    with pytest.raises(ConfigError, match="same output"):
        ids(archive, "archive/a.jpg", "other/a.jpg")


@pytest.mark.parametrize("source", ["missing", "missing/*.jpg", "@missing.txt"])
def test_a_source_that_is_not_there_is_named(archive, source):
    """The way out is to look at the name again."""
    with pytest.raises(ConfigError, match=r"missing"):
        ids(archive, source)


def test_a_name_that_can_not_be_an_id_is_told(archive):
    """Such a picture is a failure of its own, not the end of the backfill."""
    (archive / "archive/line\nbreak.jpg").touch()
    found = find_inputs(["archive"], archive / "out", "same")

    assert [archive / "archive/line\nbreak.jpg"] == list(found.unnameable)

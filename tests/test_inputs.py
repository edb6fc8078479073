"""What a backfill is about."""

from __future__ import annotations

import os

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

    assert [archive / "archive/line\nbreak.jpg"] == list(found.refused)


def outputs(archive, *sources, out="out", to="same"):
    """Each source's name with its output's place below `out`."""
    found = find_inputs(sources, archive / out, to)
    return {
        p.source.name: str(p.output.relative_to(archive / out)) for p in found.pictures
    }


def make(archive, *names):
    """Make empty files, and the folders around them."""
    for name in names:
        path = archive / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_kept_extension_is_not_another_ones_stem(archive):
    """Three files that would be two jobs stay three."""
    make(archive, "three/x.jpg", "three/x.png", "three/x.jpg.jpg")

    assert sorted(ids(archive, "three")) == ["x.jpg", "x.jpg.jpg", "x.png"]
    assert len(set(outputs(archive, "three").values())) == 3


def test_an_output_is_not_where_others_need_a_folder(archive):
    """y.bmp becomes y.png, which is a folder already."""
    make(archive, "mixed/y.bmp", "mixed/y.png/inner.jpg")

    assert outputs(archive, "mixed") == {
        "y.bmp": "y.bmp.png",
        "inner.jpg": "y.png/inner.jpg",
    }


def test_outputs_of_one_format_stay_apart(archive):
    """Different ids are not enough where the extension is the same for all."""
    make(archive, "same/a.jpg", "same/a.tiff", "same/a.jpg.png", "same/A.JPG")
    found = outputs(archive, "same", to="png")

    assert len(found) == 4
    assert len(set(found.values())) == 4


def test_what_stays_in_the_way_is_named(archive):
    """No extension helps where even the longer name is a folder."""
    make(archive, "both/y.bmp", "both/y.png/a.jpg", "both/y.bmp.png/a.jpg")

    with pytest.raises(ConfigError, match=r"y\.bmp") as caught:
        ids(archive, "both")

    assert "a.jpg" in str(caught.value)


@pytest.mark.parametrize(
    "sources",
    [
        ["pics/a.jpg", "pics/b.png", "pics/bw"],
        ["pics/**/*.jpg", "pics/b.png"],
        ["pics/*"],
        ["pics/a.jpg", "pics/b.png", "pics/bw/a.jpg", "pics/bw/b.png"],
        ["@list.txt"],
    ],
)
def test_the_output_folder_is_never_fed(archive, sources):
    """Whatever the shell or a pattern makes of it, outputs are no inputs."""
    names = ("pics/a.jpg", "pics/b.png", "pics/bw/a.jpg", "pics/bw/b.png")
    make(archive, *names)
    (archive / "list.txt").write_text("\n".join(names))
    (archive / "other name").symlink_to("pics/bw")

    for out in ("pics/bw", "other name"):
        found = find_inputs(sources, archive / out, "same")
        assert {"a.jpg", "b.png"} == {p.source.name for p in found.pictures}
        assert all("bw" not in p.source.parts for p in found.pictures)
        assert found.outputs > 0


def test_outputs_beside_their_sources_are_no_inputs(archive):
    """There they keep their source's extension, which tells them from originals."""
    make(archive, "beside/x.jpg", "beside/deep/y.bmp")
    first = outputs(archive, "beside", out="beside", to="tiff")
    make(archive, *(f"beside/{name}" for name in first.values()))

    assert first == {"x.jpg": "x.jpg.tiff", "y.bmp": "deep/y.bmp.tiff"}
    assert outputs(archive, "beside", out="beside", to="tiff") == first


def test_an_original_beside_its_source_is_not_overwritten(archive):
    """x.png may be a picture of its own: it is not taken for x.jpg's output."""
    make(archive, "beside/x.jpg", "beside/x.png")

    found = outputs(archive, "beside", out="beside", to="webp")
    assert found == {"x.jpg": "x.jpg.webp", "x.png": "x.png.webp"}


def test_an_output_that_would_replace_another_source_is_refused(archive):
    """Found before anything runs."""
    make(archive, "r/sub/a.jpg", "r/a.jpg")

    with pytest.raises(ConfigError, match="would replace"):
        ids(archive, "r/sub/a.jpg", "r/a.jpg", out="r")


def test_a_link_that_leads_nowhere_is_a_failure_of_its_own(archive):
    """So is a name that is too long, and what is no file."""
    (archive / "archive/gone.jpg").symlink_to("nowhere")
    (archive / "archive/loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(archive / "archive/pipe.jpg")
    found = find_inputs(["archive"], archive / "out", "same")
    listed = find_inputs(["-"], archive / "out", "same", ["x" * 300 + ".jpg", "no.jpg"])

    assert len(found.pictures) == 3
    assert {path.name: refusal.kind for path, refusal in found.refused.items()} == {
        "gone.jpg": "source-missing",
        "loop.jpg": "source-missing",
        "pipe.jpg": "source-refused",
    }
    assert sorted(r.kind for r in listed.refused.values()) == [
        "invalid-job",
        "source-missing",
    ]


@pytest.mark.parametrize("source", ["x" * 5000, "y" * 300])
def test_a_source_that_can_not_be_looked_at_is_explained(archive, source):
    """No traceback for what the system refuses to look up."""
    with pytest.raises(ConfigError, match="too long"):
        ids(archive, source)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_an_unreadable_parent_is_explained(archive):
    """As a folder above a source, or in one."""
    (archive / "archive/b").chmod(0)
    try:
        for source in ("archive/b/c.png", "archive"):
            with pytest.raises(ConfigError, match="archive/b"):
                ids(archive, source)
    finally:
        (archive / "archive/b").chmod(0o755)


def test_dots_are_named_by_where_they_lead(archive, monkeypatch):
    """`.` and `..` are no names, so the folder's own stands in the ids."""
    monkeypatch.chdir(archive / "archive")

    assert ids(archive, ".", "../other") == [
        "archive/a",
        "archive/b/c",
        "archive/b/d",
        "other/a",
    ]
    assert ids(archive, "b/..", "../other") == ids(archive, ".", "../other")
    with pytest.raises(ConfigError, match="no name"):
        ids(archive, "/", "../other")


def test_one_file_is_one_input_however_it_is_spelled(archive):
    """Named twice, or below a folder that is named too."""
    assert ids(archive, "archive/a.jpg", "./archive/b/../a.jpg") == ["a"]
    assert ids(archive, "other", "other/a.jpg", f"{archive}/other") == ["other/a"]


def test_linked_folders_are_counted(archive):
    """They are not followed, and that is told."""
    (archive / "archive/link").symlink_to(archive / "other")
    found = find_inputs(["archive"], archive / "out", "same")

    assert (len(found.pictures), found.others, found.links) == (3, 1, 1)


def test_globs_take_pictures_like_folders(archive):
    """What a pattern matches besides is counted, not converted."""
    found = find_inputs(["archive/b/*"], archive / "out", "same")

    assert [picture.job_id for picture in found.pictures] == ["c", "d"]
    assert found.others == 1


def test_several_globs_are_named_by_their_folders(archive):
    """A pattern is no name for a folder."""
    assert ids(archive, "archive/*.jpg", "other/*.jpg") == ["archive/a", "other/a"]

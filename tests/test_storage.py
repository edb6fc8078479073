"""Where sources may come from, and how outputs get to be there whole."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwpool import storage
from bwpool.errors import (
    InvalidJob,
    JobError,
    SourceMissing,
    SourceRefused,
    StorageUnavailable,
)
from bwpool.storage import Pending, Place


def place(out: Path, name: str, data: bytes = b"picture") -> Pending:
    """Write an output up to where it only wants its name."""
    output = Place(str(out), name, sync=True)
    output.write(data)
    return output.finish()


def names(folder: Path) -> list[str]:
    """List a folder."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///a/b.jpg", "/a/b.jpg"),
        ("file://localhost/a/b.jpg", "/a/b.jpg"),
        ("FILE://LOCALHOST/a", "/a"),
        ("file:///a%20b/%C3%A9.jpg", "/a b/é.jpg"),
        ("file:///a/%23%3f%25.jpg", "/a/#?%.jpg"),
        ("file:///a/é b.jpg", "/a/é b.jpg"),
    ],
)
def test_file_uri_names_a_path(uri: str, path: str) -> None:
    """A file URI is decoded to an absolute path."""
    assert storage.parse_uri(uri) == path


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("", InvalidJob),
        ("/a/b.jpg", InvalidJob),
        ("a.jpg", InvalidJob),
        ("file:a.jpg", InvalidJob),
        ("file:/a.jpg", InvalidJob),
        ("file://", InvalidJob),
        ("file://elsewhere/a.jpg", InvalidJob),
        ("file:///a.jpg?x=1", InvalidJob),
        ("file:///a.jpg#x", InvalidJob),
        ("file:///a%00b", InvalidJob),
        ("file:///a%zz", InvalidJob),
        ("file:///\ud800", InvalidJob),
        ("s3://bucket/key", SourceRefused),
        ("http://example.org/a.jpg", SourceRefused),
        ("data:image/png;base64,AAAA", SourceRefused),
    ],
)
def test_other_uris_are_refused(uri: str, error: type[JobError]) -> None:
    """What is no local file is refused by the right kind of error."""
    with pytest.raises(error):
        storage.parse_uri(uri)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_any_path_survives_its_uri(name: str) -> None:
    """A path made into a URI and read back is the same path."""
    path = Path("/pictures") / name.lstrip("/")

    assert storage.parse_uri(path.as_uri()) == str(path)


def test_source_is_read_by_its_descriptor(tmp_path: Path) -> None:
    """A source renamed after it was opened is still the one that is read."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"first")
    with storage.open_source(str(path), ()) as source:
        path.rename(tmp_path / "b.jpg")
        path.write_bytes(b"second")

        assert source.read(100) == b"first"
        assert not source.is_changed()


def test_source_written_to_is_changed(tmp_path: Path) -> None:
    """A source that somebody appends to says so."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"first")
    with storage.open_source(str(path), ()) as source:
        with path.open("ab") as file:
            file.write(b"more")

        assert source.is_changed()


def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    """A pipe, a socket, a device, a folder and a loop are refused without waiting."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        begun = time.monotonic()
        for path in ("pipe", "loop", "socket", "", "/dev/null", "/dev/zero"):
            with pytest.raises(SourceRefused):
                storage.open_source(str(tmp_path / path), ())

    assert time.monotonic() - begun < 1


@pytest.mark.parametrize("name", ["none.jpg", "file/inside.jpg"])
def test_absent_source_is_missing(tmp_path: Path, name: str) -> None:
    """A source that isn't there is missing, and may yet come."""
    (tmp_path / "file").touch()
    with pytest.raises(SourceMissing):
        storage.open_source(str(tmp_path / name), ())


def test_overlong_path_is_invalid(tmp_path: Path) -> None:
    """A path that no file can have is the job's fault."""
    with pytest.raises(InvalidJob):
        storage.open_source(str(tmp_path / ("x" * 5000)), ())


def test_source_outside_the_roots_is_refused(tmp_path: Path) -> None:
    """Neither dots nor symbolic links lead out of the source folders."""
    root, outside = tmp_path / "root", tmp_path / "root-other"
    root.mkdir()
    outside.mkdir()
    (outside / "a.jpg").touch()
    (root / "a.jpg").touch()
    (root / "link.jpg").symlink_to(outside / "a.jpg")
    (outside / "link.jpg").symlink_to(root / "a.jpg")
    for path in (
        outside / "a.jpg",
        root / ".." / "root-other" / "a.jpg",
        root / "link.jpg",
    ):
        with pytest.raises(SourceRefused):
            storage.open_source(str(path), (root,))

    for path in (root / "a.jpg", outside / "link.jpg"):
        with storage.open_source(str(path), (tmp_path / "other", root)) as source:
            assert source.size == 0


def test_root_behind_a_link_is_a_root(tmp_path: Path) -> None:
    """A source folder may itself be a symbolic link."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.jpg").touch()
    (tmp_path / "link").symlink_to("root")

    with storage.open_source(
        str(tmp_path / "link/a.jpg"), (tmp_path / "link",)
    ) as source:
        assert source.size == 0


def test_vanished_root_is_not_the_jobs_fault(tmp_path: Path) -> None:
    """When a source folder as a whole is gone, no job is charged for it."""
    with pytest.raises(StorageUnavailable):
        storage.open_source(str(tmp_path / "gone/a.jpg"), (tmp_path / "gone",))


@pytest.mark.parametrize(
    ("job_id", "source", "target", "name"),
    [
        ("a", "x.jpg", "same", "a.jpg"),
        ("a", "x.JPEG", "same", "a.JPEG"),
        ("a", "x.tar.tif", "same", "a.tif"),
        ("a/b", "x.webp", "same", "a/b.webp"),
        ("a", "x.gif", "same", "a.png"),
        ("a", "x", "same", "a"),
        ("a", ".jpg", "same", "a"),
        ("a", "x.jpg", "png", "a.png"),
        ("a", "x", "tiff", "a.tiff"),
        ("a.b", "x.png", "same", "a.b.png"),
    ],
)
def test_output_is_named_by_id_and_source(
    job_id: str, source: str, target: str, name: str
) -> None:
    """An output has the job's id and the extension that the contract promises."""
    assert name == storage.output_name(job_id, source, target)


@pytest.mark.parametrize(
    "job_id",
    ["", "../x", "a//b", "/a", ".hidden", "a/.b", "x" * 190 + "é" * 24, "\ud800"],
)
def test_impossible_ids_are_invalid(job_id: str) -> None:
    """An id that names no place inside the output folder is refused."""
    with pytest.raises(InvalidJob):
        storage.output_name(job_id, "x.jpg", "same")


def test_long_names_are_measured_in_bytes() -> None:
    """A segment may have 240 bytes with its extension, and not one more."""
    storage.output_name("é" * 118, "x.jpg", "same")
    with pytest.raises(InvalidJob):
        storage.output_name("é" * 119, "x.jpg", "same")


def test_output_appears_whole_on_commit(tmp_path: Path) -> None:
    """Until it is committed, an output has only its temporary name."""
    pending = place(tmp_path, "a/b/c.png")

    assert list((tmp_path / "a/b").glob("c*")) == []
    pending.commit()
    assert (tmp_path / "a/b/c.png").read_bytes() == b"picture"
    assert names(tmp_path / "a/b") == ["c.png"]


def test_output_is_overwritten_in_parts(tmp_path: Path) -> None:
    """A writer can go back to fill in what it only learns later."""
    output = Place(str(tmp_path), "a.tiff", sync=False)
    output.write(b"head....")
    output.write(b"tail")
    output.write(b"1234", at=4)
    output.finish().commit()

    assert (tmp_path / "a.tiff").read_bytes() == b"head1234tail"


def test_discarded_output_leaves_nothing(tmp_path: Path) -> None:
    """Discarding removes the temporary file."""
    place(tmp_path, "a.png").discard()

    assert names(tmp_path) == []


def test_output_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    """Outputs are as open to others as any new file."""
    before = os.umask(0o027)
    try:
        place(tmp_path, "a.png").commit()
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o640


def test_many_outputs_are_committed_together(tmp_path: Path) -> None:
    """Of several outputs, the one that can't be stored is told from the others."""
    (tmp_path / "b.png").mkdir()
    pendings = [place(tmp_path, name) for name in ("a.png", "b.png", "c/d.png")]
    errors = storage.commit_all(pendings)

    assert [error is None for error in errors] == [True, False, True]
    assert isinstance(errors[1], InvalidJob)
    assert {"a.png", "b.png", "c"} == set(names(tmp_path))


def test_id_never_follows_a_link_out(tmp_path: Path) -> None:
    """A symbolic link among the output's folders is refused, and nothing made in it."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "a").symlink_to(elsewhere)
    (out / "file").touch()
    for name in ("a/b.png", "a/b/c.png", "file/b.png"):
        with pytest.raises(InvalidJob):
            place(out, name)

    assert names(elsewhere) == []


def test_vanished_output_folder_is_unavailable(tmp_path: Path) -> None:
    """An output folder that is gone is the supervisor's trouble, early or late."""
    out = tmp_path / "out"
    with pytest.raises(StorageUnavailable):
        place(out, "a.png")
    with pytest.raises(StorageUnavailable):
        storage.probe(out)
    out.mkdir()
    pending = place(out, "a.png")
    for left in out.iterdir():
        left.unlink()
    out.rmdir()
    with pytest.raises(StorageUnavailable):
        pending.commit()


def test_full_disk_is_unavailable(tmp_path: Path) -> None:
    """A disk without room is the supervisor's trouble."""
    output = Place(str(tmp_path), "a.png", sync=False)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, output._temporary.file)
    os.close(full)
    with pytest.raises(StorageUnavailable, match="space"):
        output.write(b"picture")
    output.discard()


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    """Probing a good folder is silent and leaves it as it was."""
    storage.probe(tmp_path)

    assert names(tmp_path) == []


def test_only_stale_temporaries_are_removed(tmp_path: Path) -> None:
    """What a dead writer left goes; fresh files, outputs and hidden folders stay."""
    long_ago = time.time() - 2 * 3600
    (tmp_path / "a").mkdir()
    (tmp_path / ".bwpool").mkdir()
    stale = [tmp_path / ".bwpool-old", tmp_path / "a/.bwpool-old"]
    kept = [tmp_path / "old.png", tmp_path / ".bwpool/.bwpool-old"]
    for path in (*stale, *kept):
        path.touch()
        os.utime(path, (long_ago, long_ago))
    (tmp_path / ".bwpool-fresh").touch()

    assert storage.remove_stale_temporaries(tmp_path) == 2
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in (*kept, tmp_path / ".bwpool-fresh"))


def test_storage_loads_no_picture_library() -> None:
    """The supervisor may import storage: it brings neither Pillow nor libvips."""
    script = (
        "import sys, bwpool.storage;"
        "sys.exit(any(name in sys.modules for name in ('PIL', 'pyvips', 'numpy')))"
    )

    subprocess.run([sys.executable, "-c", script], check=True)

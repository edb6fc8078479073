"""Whose fault it is that an output can't be stored, and where OUT's storage went."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bwpool import storage
from bwpool.errors import (
    ConversionFailed,
    JobError,
    StorageUnavailable,
)
from bwpool.storage import Place, mounts, open_source

Fail = Callable[..., None]

SIZE = 10_000


def stored(out: Path, *names: str) -> list[JobError | None]:
    """Store several outputs together; return what became of each."""
    pendings = []
    for name in names:
        place = Place(str(out), name, sync=True)
        place.write(bytes(SIZE))
        pendings.append(place.finish())
    return storage.commit_all(pendings)


def kinds(errors: list[JobError | None]) -> list[type | None]:
    return [error and type(error) for error in errors]


# ── Outputs: the step that failed, tried again ───────────────────────────────────


@pytest.mark.parametrize(
    "number", [errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EINVAL, errno.EBUSY]
)
def test_output_that_alone_cant_be_renamed_is_its_jobs_fault(
    tmp_path: Path, fail: Fail, number: int
) -> None:
    """Its neighbours of the same batch are stored, and it leaves nothing behind."""
    fail("rename", number, lambda _, to: to == "b.png")

    errors = stored(tmp_path, "a.png", "b.png", "c.png")
    assert kinds(errors) == [None, ConversionFailed, None]
    assert sorted(os.listdir(tmp_path)) == ["a.png", "c.png"]


@pytest.mark.parametrize(
    "number", [errno.EPERM, errno.EROFS, errno.EDQUOT, errno.EIO, errno.ESTALE]
)
@pytest.mark.parametrize("step", ["rename", "fsync"])
def test_commit_that_fails_for_all_is_the_storages_trouble(
    tmp_path: Path, fail: Fail, step: str, number: int
) -> None:
    """Where the probe fails in the folder and in OUT, no job is charged."""
    (tmp_path / "b").mkdir()
    fail(step, number, lambda *_: True)

    assert kinds(stored(tmp_path, "a", "b/c")) == [StorageUnavailable] * 2
    with pytest.raises(StorageUnavailable):
        storage.probe(tmp_path)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EROFS, errno.EDQUOT])
def test_folder_that_takes_no_files_is_the_storages_trouble(
    tmp_path: Path, fail: Fail, number: int
) -> None:
    """Where no temporary file can be made, none of the outputs can."""
    fail("open", number, lambda name, *_: str(name).startswith(".bwpool-"))

    with pytest.raises(StorageUnavailable):
        Place(str(tmp_path), "a", sync=True)
    with pytest.raises(StorageUnavailable):
        storage.probe(tmp_path)


def test_disk_without_room_is_never_the_jobs_fault(tmp_path: Path, fail: Fail) -> None:
    """Others can be stored, yet there is nothing that the job could do about it."""
    fail("rename", errno.ENOSPC, lambda _, to: to == "b.png")

    errors = stored(tmp_path, "a.png", "b.png")
    assert kinds(errors) == [None, StorageUnavailable]


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize(
    ("limit", "error"), [(SIZE // 2, StorageUnavailable), (SIZE, ConversionFailed)]
)
def test_probe_writes_as_many_bytes_as_failed(
    tmp_path: Path, fail: Fail, number: int, limit: int, error: type[JobError]
) -> None:
    """A quota that leaves room for less is the storage's; one that is gone is not."""
    fail("pwrite", number, lambda *_: True)
    fail("write", number, lambda _, data: len(data) > limit)

    place = Place(str(tmp_path), "a.png", sync=True)
    with pytest.raises(error):
        place.write(bytes(SIZE))


@pytest.mark.parametrize(
    ("step", "number"), [("fsync", errno.EDQUOT), ("mkdir", errno.EINVAL)]
)
def test_folder_that_fails_while_out_does_not_charges_the_job(
    tmp_path: Path, fail: Fail, step: str, number: int
) -> None:
    """A folder with a quota of its own, or an impossible name, halts nobody else."""
    inner = str(tmp_path / "in")
    fail(step, number, lambda name, *_: name == "in" or name.startswith(inner))

    with pytest.raises(ConversionFailed):
        raise stored(tmp_path, "in/b.png")[0] or AssertionError("it was stored")
    assert stored(tmp_path, "c.png") == [None]


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[None]:
    """Mount something at `folder`; skips where that is not allowed."""
    command = ("mount", *options, str(folder))
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here; the same is tried with faulty calls")
    try:
        yield
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=False, capture_output=True)


def test_immutable_target_is_its_jobs_fault(tmp_path: Path) -> None:
    """The real thing: a file that nobody may replace."""
    (tmp_path / "b.png").touch()
    if subprocess.run(
        ("chattr", "+i", str(tmp_path / "b.png")), check=False, capture_output=True
    ).returncode:
        pytest.skip("no file can be made immutable; a faulty rename is tried above")
    try:
        errors = stored(tmp_path, "a.png", "b.png")
    finally:
        subprocess.run(("chattr", "-i", str(tmp_path / "b.png")), check=True)

    assert kinds(errors) == [None, ConversionFailed]


def test_read_only_mount_below_out_costs_only_its_own_jobs(tmp_path: Path) -> None:
    """An id that leads there is charged, while OUT itself can be written to."""
    (tmp_path / "in").mkdir()
    with mounted(tmp_path / "in", "-t", "tmpfs", "-o", "ro", "tmpfs"):
        with pytest.raises(ConversionFailed):
            Place(str(tmp_path), "in/a.png", sync=True)

        assert stored(tmp_path, "a.png") == [None]


# ── Mounts ───────────────────────────────────────────────────────────────────────


def test_open_folder_tells_whether_it_lies_on_the_mount() -> None:
    """What is above a mount point does not, wherever a name may lead."""
    (mount,) = mounts.mounts_of(["/dev/shm"])
    below, above = os.open(mount, os.O_RDONLY), os.open("/dev", os.O_RDONLY)
    try:
        assert mount == "/dev/shm"
        assert mounts.lies_on(below, mount)
        assert not mounts.lies_on(above, mount)
        assert mounts.mount_gone("/dev/shm/x", [mount]) is None
    finally:
        os.close(below)
        os.close(above)


def test_folder_that_is_no_mount_point_has_lost_its_storage(tmp_path: Path) -> None:
    """A mount point without its mount is found by whatever lies below it."""
    point = str(tmp_path / "point")
    Path(point).mkdir()

    assert mounts.mount_gone(f"{point}/a/b.jpg", [point]) == point
    assert mounts.mount_gone(f"{point}-other/b.jpg", [point]) is None
    with pytest.raises(StorageUnavailable, match="mounted"):
        Place(point, "a.png", sync=True, mount=point)
    with pytest.raises(StorageUnavailable, match="mounted"):
        storage.probe(Path(point), (), (point,))
    with pytest.raises(StorageUnavailable, match="mounted"):
        open_source(f"{point}/b.jpg", (), (), (point,))
    assert os.listdir(point) == []


@pytest.mark.parametrize("how", ["tmpfs", "bind"])
def test_remount_is_accepted(tmp_path: Path, how: str) -> None:
    """Nothing goes under the mount point; another device there is as good."""
    out, other = tmp_path / "out dir", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    options = ("--bind", str(other)) if how == "bind" else ("-t", "tmpfs", "tmpfs")
    for _ in range(2):
        with mounted(out, *options):
            assert mounts.mounts_of([out / "in"])[-1:] == (str(out),)
            Place(str(out), "a.png", sync=True, mount=str(out)).finish().commit()
            storage.probe(out, (out,), (str(out),))
        with pytest.raises(StorageUnavailable):
            Place(str(out), "b.png", sync=True, mount=str(out))
        with pytest.raises(StorageUnavailable):
            storage.probe(out, (), (str(out),))
    assert os.listdir(out) == []

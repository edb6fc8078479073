"""Whose fault it is that a source can't be read, and how old files are."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bwpool import sightings, storage
from bwpool.errors import (
    BadImage,
    ConversionFailed,
    CutShort,
    JobError,
    StorageUnavailable,
)
from bwpool.pool.wire import Answer, decode_message, encode_message
from bwpool.sightings import Sightings
from bwpool.storage import open_source

Fail = Callable[..., None]

SIZE = 10_000

# ── Sources ──────────────────────────────────────────────────────────────────────


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with sources in folders of their own."""
    for name in ("a", "b"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / f"{name}.jpg").write_bytes(bytes(SIZE))
    return tmp_path / "root"


def reading(path: Path, root: Path) -> type[JobError] | None:
    """Read a source; return the kind of error that it met."""
    try:
        with open_source(str(path), (root,)) as source:
            source.read(source.size)
    except JobError as error:
        return type(error)
    return None


@pytest.mark.parametrize("call", ["pread", "open"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_source_that_alone_cant_be_read_is_charged(
    root: Path, fail: Fail, call: str, number: int
) -> None:
    """One bad sector stalls nobody: another source under that root can be read."""
    fail(call, number, lambda name, *_: str(name).endswith("a.jpg"))

    assert reading(root / "a/a.jpg", root) is ConversionFailed
    assert reading(root / "b/b.jpg", root) is None


@pytest.mark.parametrize("call", ["pread", "open"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_sources_that_cant_be_read_are_the_storages_trouble(
    root: Path, fail: Fail, call: str, number: int
) -> None:
    """Where no other source can be read either, no job is charged."""
    fail(call, number, lambda name, *_: str(name).endswith(".jpg"))

    assert reading(root / "a/a.jpg", root) is StorageUnavailable


def test_file_beside_the_root_tells_nothing_of_it(root: Path, fail: Fail) -> None:
    """What lies elsewhere may be on another disk."""
    (root.parent / "beside.jpg").write_bytes(bytes(SIZE))
    fail("pread", errno.EIO, lambda name, *_: str(name).startswith(f"{root}/"))

    assert reading(root / "a/a.jpg", root) is StorageUnavailable


def test_source_with_one_bad_sector_is_charged_though_it_is_alone(
    tmp_path: Path, fail: Fail
) -> None:
    """Another part of it can be read, so the storage is there."""
    (tmp_path / "a.jpg").write_bytes(bytes(SIZE))
    fail("pread", errno.EIO, lambda _, size, at: size > 5000 and at == 0)

    assert reading(tmp_path / "a.jpg", tmp_path) is ConversionFailed


def test_root_that_cant_be_listed_is_the_storages_trouble(
    root: Path, fail: Fail
) -> None:
    """The probe looks into each root, not only at its name."""
    storage.probe(root, (root,))
    fail("scandir", errno.EIO, lambda name: str(name) == str(root))

    with pytest.raises(StorageUnavailable):
        storage.probe(root, (root,))


def test_folder_of_a_backfill_counts_as_a_root_but_restricts_nothing(
    tmp_path: Path,
) -> None:
    """Sources elsewhere are read; those of a folder that is gone are not missing."""
    (tmp_path / "a.jpg").touch()
    gone = tmp_path / "gone"
    open_source(str(tmp_path / "a.jpg"), (), (gone,)).__exit__(None, None, None)

    with pytest.raises(StorageUnavailable):
        open_source(str(gone / "a.jpg"), (), (gone,))


# ── Ages ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("ahead", [-2 * 3600, 2 * 3600])
def test_age_of_a_temporary_goes_by_the_storages_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    """The host's clock is hours off, and still only what is stale is removed."""
    (tmp_path / "in").mkdir()
    living, stale = tmp_path / "in/.bwpool-living", tmp_path / ".bwpool-stale"
    living.touch()
    stale.touch()
    real = time.time
    long_ago = real() - 1.5 * 3600
    os.utime(stale, (long_ago, long_ago))
    monkeypatch.setattr(time, "time", lambda: real() + ahead)

    assert storage.remove_stale_temporaries(tmp_path) == 1
    assert os.listdir(tmp_path) == ["in"]
    assert os.listdir(tmp_path / "in") == [".bwpool-living"]


def test_source_is_cut_short_once_it_stood_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each change begins the waiting anew, for each source on its own."""
    monkeypatch.setattr(sightings, "STOOD_STILL", 0.0)
    judge = Sightings().judge
    first, longer = CutShort("short", (1, 1)), CutShort("short", (2, 1))

    assert judge("file:///a", first) is first
    assert judge("file:///b", first) is first
    assert judge("file:///a", longer) is longer
    assert type(judge("file:///a", longer)) is BadImage
    assert type(judge("file:///b", first)) is BadImage


def test_source_that_stands_still_for_a_moment_only_is_retried() -> None:
    """What is looked at twice in a row may still be on its way."""
    judge = Sightings().judge
    error = CutShort("short", (1, 1))

    assert judge("file:///a", error) is error
    assert judge("file:///a", error) is error
    assert error.retryable


def test_few_sightings_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten, not the one that was just seen."""
    monkeypatch.setattr(sightings, "STOOD_STILL", 0.0)
    monkeypatch.setattr(sightings, "MAX_REMEMBERED", 2)
    judge = Sightings().judge
    error = CutShort("short", (1, 1))
    for name in "abc":
        judge(name, error)

    assert type(judge("c", error)) is BadImage
    assert judge("a", error) is error


@given(st.integers(0, 2**62), st.integers(-(2**62), 2**62))
def test_what_was_seen_of_a_source_crosses_the_process_border(
    size: int, mtime: int
) -> None:
    """The supervisor, which remembers, gets what the converter saw."""
    answer = Answer(1, 0.5, CutShort("short", (size, mtime), stage="decode"))
    told = decode_message(encode_message(answer).rstrip())

    assert isinstance(told, Answer)
    assert isinstance(told.outcome, CutShort)
    assert told.outcome.seen == (size, mtime)
    assert told.outcome.stage == "decode"

"""The state folder on a real file system: ours alone, foreign files untouched."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bwpool.errors import ConfigError
from bwpool.state_folder import StateFolder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files away")

STRANGER = 54321
"""A user id that nobody has."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A folder that doesn't exist yet."""
    return tmp_path / "deep/.bwpool"


def mode(path: Path) -> int:
    """The permission bits of a path, links not followed."""
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0o000, 0o022])
def umask(request):
    """A loose umask and the usual one."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_folder_and_files_are_ours_alone_from_the_start(path, umask) -> None:
    """0700 and 0600, however loose the umask."""
    with StateFolder(path) as folder:
        folder.replace("password", b"secret")
        folder.open_file("log", "ab").close()
        folder.provide("ledger.db")

        assert folder.is_private
        assert folder.read("password") == b"secret"

    assert mode(path) == 0o700
    assert {mode(file) for file in path.iterdir()} == {0o600}


def test_a_folder_made_under_a_loose_umask_goes_on(path) -> None:
    """Older versions made it as the umask said."""
    path.mkdir(parents=True)
    path.chmod(0o2775)
    (path / "lock").write_text("1\n")
    (path / "jetstream").mkdir()
    with StateFolder(path) as folder:
        assert sorted(folder.names()) == ["jetstream", "lock"]

    assert mode(path) & 0o777 == 0o700


def test_a_replaced_file_is_a_new_one(path) -> None:
    """Whoever has the old one open does not read the new contents."""
    path.mkdir(parents=True)
    (path / "password").write_bytes(b"old")
    (path / "password").chmod(0o666)
    (path / "password.new").write_bytes(b"half-written")
    with (path / "password").open("rb") as old, StateFolder(path) as folder:
        folder.replace("password", b"new")

        assert old.read() == b"old"
        assert folder.read("password") == b"new"

    assert mode(path / "password") == 0o600
    assert [file.name for file in path.iterdir()] == ["password"]


def test_a_linked_entry_is_refused(path, tmp_path) -> None:
    """It could lead to any file that we may write."""
    (tmp_path / "precious").write_text("keep me")
    path.mkdir(parents=True)
    (path / "lock").symlink_to(tmp_path / "precious")

    with pytest.raises(ConfigError, match="lock in it is a link") as caught:
        StateFolder(path)

    assert str(path) in str(caught.value)
    assert (tmp_path / "precious").read_text() == "keep me"


@pytest.mark.parametrize("how", ["ab", "wb", "a+b"])
def test_an_entry_that_becomes_a_link_later_is_not_followed(
    path, tmp_path, how
) -> None:
    """Symbolic or hard, it leaves what it leads to as it was."""
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    with StateFolder(path) as folder:
        (path / "soft").symlink_to(precious)
        (path / "hard").hardlink_to(precious)
        for name in ("soft", "hard"):
            with pytest.raises(ConfigError, match=name):
                folder.open_file(name, how)
        (path / "dangling").symlink_to(tmp_path / "new")
        with pytest.raises(ConfigError, match="dangling"):
            folder.open_file("dangling", how)
        folder.replace("soft", b"ours")

    assert precious.read_text() == "keep me"
    assert not (tmp_path / "new").exists()


def test_a_link_in_the_folders_place_is_refused(path) -> None:
    """Even to a folder of ours: somebody else may have chosen it."""
    path.parent.mkdir(parents=True)
    path.symlink_to(path.parent)
    path.parent.chmod(0o755)

    with pytest.raises(ConfigError, match="it is a link"):
        StateFolder(path)

    assert mode(path.parent) == 0o755


def test_a_renamed_folder_is_still_the_one_in_use(path, tmp_path) -> None:
    """Its files are reached whatever lies at its name now."""
    with StateFolder(path) as folder:
        path.rename(tmp_path / "away")
        path.mkdir()
        folder.replace("password", b"secret")

    assert not list(path.iterdir())
    assert (tmp_path / "away/password").read_bytes() == b"secret"


@needs_root
@pytest.mark.parametrize("entry", [".", "lock"])
def test_what_belongs_to_somebody_else_is_refused(path, entry) -> None:
    """A folder, or an entry in it, that another user has prepared."""
    path.mkdir(parents=True)
    (path / "lock").touch()
    os.chown(path / entry, STRANGER, -1)

    with pytest.raises(ConfigError, match=str(STRANGER)):
        StateFolder(path)

    assert [file.name for file in path.iterdir()] == ["lock"]


def test_a_file_system_without_modes_is_warned_of(path, monkeypatch) -> None:
    """As on CIFS: chmod does nothing; everything else goes on."""
    path.mkdir(parents=True)
    path.chmod(0o755)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    with capture_logs() as logs, StateFolder(path) as folder:
        assert not folder.is_private

    assert [line["event"] for line in logs] == ["state_folder.not_private"]


def test_a_file_system_without_owners_is_warned_of(path, monkeypatch) -> None:
    """All there belongs to who mounted it, what we make included."""
    path.mkdir(parents=True)
    (path / "jetstream").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with capture_logs() as logs, StateFolder(path) as folder:
        assert not folder.is_private
        assert folder.names() == ["jetstream"]

    assert [line["event"] for line in logs] == ["state_folder.not_private"]


async def test_the_lock_names_its_holder_until_it_is_closed(path) -> None:
    """A second one is told who; afterwards it is free."""
    with StateFolder(path) as first, StateFolder(path) as second:
        held = await first.lock()
        with pytest.raises(ConfigError, match=f"pid {os.getpid()}"):
            await second.lock()
        held.close()
        (await second.lock()).close()

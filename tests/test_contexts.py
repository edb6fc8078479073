"""Where an endpoint's fields come from: flags, variables, file, contexts, default."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bwpool.errors import ConfigError
from bwpool.queue.contexts import Credentials, Endpoint, redact, resolve
from bwpool.settings import ServerSettings

Resolve = Callable[..., Endpoint | None]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A configuration folder with the contexts `prod` and `lab`."""
    folder = tmp_path / "nats" / "context"
    folder.mkdir(parents=True)
    write(folder / "prod.json", url="nats://prod:4333", user="p", password="prodpass")
    write(folder / "lab.json", url="nats://lab", creds="~/lab.creds")
    return tmp_path


def write(path: Path, **values: Any) -> None:
    """Write a context file."""
    path.write_text(json.dumps(values))


def decide(home: Path, *, explicit_only: bool = False, **given: Any) -> Endpoint | None:
    """Resolve lower-case names as flags, NATS_* as variables, `config` as the file.

    `variables` are the BWPOOL_* ones.
    """
    others = ("config", "variables")
    environ = {k: v for k, v in given.items() if k.startswith("NATS_")}
    flags = {k: v for k, v in given.items() if k.islower() and k not in others}
    return resolve(
        ServerSettings(**flags),
        variables=given.get("variables"),
        config=given.get("config"),
        environ={"XDG_CONFIG_HOME": str(home)} | environ,
        explicit_only=explicit_only,
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "nats://127.0.0.1:4222"),
        ({"server": "localhost"}, "nats://localhost:4222"),
        ({"server": "localhost:4222"}, "nats://localhost:4222"),
        ({"server": "nats://[::1]"}, "nats://[::1]:4222"),
        ({"server": "tls://h:1, h2"}, "tls://h:1,nats://h2:4222"),
        ({"server": "wss://h/path"}, "wss://h/path"),
        ({"NATS_URL": "env:1"}, "nats://env:1"),
        ({"NATS_URL": ""}, "nats://127.0.0.1:4222"),
        ({"context": "prod"}, "nats://prod:4333"),
        ({"NATS_CONTEXT": "prod"}, "nats://prod:4333"),
        ({"server": "flag", "NATS_URL": "env"}, "nats://flag:4222"),
        ({"server": "flag", "context": "prod"}, "nats://flag:4222"),
        ({"context": "prod", "NATS_URL": "env"}, "nats://prod:4333"),
        ({"context": "prod", "NATS_CONTEXT": "lab"}, "nats://prod:4333"),
        ({"NATS_URL": "env", "NATS_CONTEXT": "lab"}, "nats://env:4222"),
        ({"NATS_URL": "env", "config": ServerSettings(server="f")}, "nats://env:4222"),
        ({"config": ServerSettings(server="f")}, "nats://f:4222"),
        (
            {"context": "prod", "variables": ServerSettings(server="v")},
            "nats://prod:4333",
        ),
        ({"variables": ServerSettings(server="v"), "NATS_URL": "env"}, "nats://v:4222"),
        (
            {"variables": ServerSettings(context="lab"), "NATS_URL": "e"},
            "nats://lab:4222",
        ),
        ({"config": ServerSettings(context="lab")}, "nats://lab:4222"),
    ],
)
def test_server_comes_from_the_strongest_choice(home, given, expected) -> None:
    """Flags, BWPOOL_*, NATS_*, then the file; a named context right below its namer."""
    endpoint = decide(home, **given)

    assert str(endpoint) == expected


def test_selected_context_counts_without_a_choice(home: Path) -> None:
    """What `nats context select` chose is used unless somebody names a server."""
    (home / "nats" / "context.txt").write_text("prod\n")

    assert str(decide(home)) == "nats://prod:4333"
    assert str(decide(home, server="mine")) == "nats://mine:4222"
    assert decide(home, server="mine").credentials == Credentials()


def test_explicit_only_ignores_the_selected_context(home: Path) -> None:
    """Trying something out can't hit the production server."""
    (home / "nats" / "context.txt").write_text("prod\n")

    assert decide(home, explicit_only=True) is None
    assert decide(home, explicit_only=True, NATS_USER="u") is None
    for given in (
        {"server": "x"},
        {"NATS_URL": "x"},
        {"context": "lab"},
        {"NATS_CONTEXT": "lab"},
        {"config": ServerSettings(server="x")},
    ):
        assert decide(home, explicit_only=True, **given) is not None


def test_context_without_url_means_the_default_server(home: Path) -> None:
    """A context that names no server doesn't borrow a weaker layer's."""
    write(home / "nats" / "context" / "bare.json", user="u", password="p")

    endpoint = decide(home, context="bare", NATS_URL="prod")

    assert endpoint.urls == ("nats://127.0.0.1:4222",)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"server": "u:p%40ss@h"}, Credentials(user="u", password="p@ss")),
        ({"server": "tok@h"}, Credentials(token="tok")),
        ({"server": "u:p@a,u:p@b"}, Credentials(user="u", password="p")),
        ({"user": "u"}, Credentials(token="u")),
        ({"user": "u", "NATS_PASSWORD": "p"}, Credentials(user="u", password="p")),
        ({"token": "t", "NATS_CREDS": "/c"}, Credentials(token="t")),
        ({"context": "prod", "token": "t"}, Credentials(token="t")),
        (
            {"context": "lab", "NATS_USER": "u", "NATS_PASSWORD": "p"},
            Credentials(creds=Path("~/lab.creds").expanduser()),
        ),
        ({"NATS_NKEY": "/$NOPE/k"}, Credentials(nkey=Path("/$NOPE/k"))),
    ],
)
def test_one_way_to_authenticate_is_chosen(home, given, expected) -> None:
    """The strongest layer that has a way decides; a password may come from below."""
    endpoint = decide(home, **given)

    assert endpoint.credentials == expected


def test_credentials_never_show(home: Path) -> None:
    """Neither the text nor the repr of an endpoint has secrets in it."""
    endpoint = decide(home, server="nats://u:hush@h,nats://u:hush@g", token=None)

    assert "hush" not in f"{endpoint} {endpoint!r}"
    assert redact("nats://u:hush@h:1") == "nats://h:1"
    assert redact("u:hush@h:1") == "h:1"


def test_context_fields_are_honoured(home: Path) -> None:
    """Domain, prefixes and TLS come out of the context, paths expanded."""
    write(
        home / "nats" / "context" / "full.json",
        url="tls://h",
        ca="~/ca.pem",
        jetstream_domain="hub",
        inbox_prefix="_MINE.",
        tls_first=True,
        user_jwt="jwt",
        user_seed="seed",
    )

    endpoint = decide(home, context="full")

    assert endpoint.api_prefix == "$JS.hub.API"
    assert endpoint.inbox_prefix == "_MINE"
    assert endpoint.tls.first
    assert endpoint.tls.ca == Path("~/ca.pem").expanduser()
    assert endpoint.credentials == Credentials(user_jwt="jwt", user_seed="seed")


def test_api_prefix_beats_the_domain(home: Path) -> None:
    """An explicit prefix is taken as it is."""
    write(home / "own.json", jetstream_domain="hub", jetstream_api_prefix="my.api")

    endpoint = decide(home, context=str(home / "own.json"))

    assert endpoint.api_prefix == "my.api"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context": "nope"}, "nats context 'nope'.*--server"),
        ({"context": "broken"}, "broken.json is not JSON"),
        ({"context": "list"}, "not a JSON object"),
        ({"context": "nsc"}, "uses nsc"),
        ({"server": "http://h"}, "not a server's URL"),
        ({"server": "nats://h:port"}, "not a server's URL"),
        ({"server": "nats://h:99999"}, "not a server's URL"),
        ({"server": " , "}, "empty"),
        ({"server": "a:b@h,c:d@g"}, "different credentials"),
    ],
)
def test_unusable_choices_are_config_errors(home, given, message) -> None:
    """What can't be meant is refused with the way out, secrets left out."""
    folder = home / "nats" / "context"
    (folder / "broken.json").write_text("{")
    (folder / "list.json").write_text("[]")
    write(folder / "nsc.json", nsc="nsc://op/acc/user")

    with pytest.raises(ConfigError, match=message) as caught:
        decide(home, **given)

    assert "a:b" not in str(caught.value)


def test_selected_context_that_is_gone_is_an_error(home: Path) -> None:
    """A stale selection never falls back to localhost."""
    (home / "nats" / "context.txt").write_text("deleted")

    with pytest.raises(ConfigError, match="'deleted'"):
        decide(home)

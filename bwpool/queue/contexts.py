"""Which NATS server to talk to, and as whom.

Owns the precedence of flags, BWPOOL_* and NATS_* variables, the configuration file and
the contexts of the `nats` command line. Called by the command line, once; the result,
an `Endpoint`, is what `connection` opens. Pure but for reading context files: it never
imports nats.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from bwpool.errors import ConfigError
from bwpool.settings import ServerSettings

DEFAULT_URL = "nats://127.0.0.1:4222"

_SCHEMES = ("nats", "tls", "ws", "wss")
_VARIABLES = {
    "server": "NATS_URL",
    "user": "NATS_USER",
    "password": "NATS_PASSWORD",
    "token": "NATS_TOKEN",
    "creds": "NATS_CREDS",
    "nkey": "NATS_NKEY",
    "cert": "NATS_CERT",
    "key": "NATS_KEY",
    "ca": "NATS_CA",
}
_METHODS = ("user", "creds", "nkey", "user_jwt", "token")
"""The ways to authenticate, in the order the `nats` command line prefers them."""
_FILES = ("creds", "nkey", "cert", "key", "ca")
_UNSUPPORTED = ("nsc", "socks_proxy", "windows_cert_store")

Layer = Mapping[str, Any]
"""Some of an endpoint's fields, all from one place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who we are; at most one way of saying so, secrets kept out of the repr."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    creds: Path | None = None
    nkey: Path | None = None
    user_jwt: str | None = field(default=None, repr=False)
    user_seed: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """What TLS needs, where it is asked for."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    first: bool = False
    """Shake hands before the server's greeting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A NATS server or cluster, and everything needed to talk to it."""

    urls: tuple[str, ...]
    """Servers with scheme and port, without credentials."""
    credentials: Credentials = Credentials()
    tls: Tls = Tls()
    api_prefix: str = "$JS.API"
    """What JetStream's requests start with; carries the domain."""
    inbox_prefix: str = "_INBOX"

    def __str__(self) -> str:
        """Show the servers, for messages to people."""
        return ",".join(self.urls)


def resolve(
    settings: ServerSettings,
    *,
    variables: ServerSettings | None = None,
    config: ServerSettings | None = None,
    environ: Mapping[str, str] | None = None,
    explicit_only: bool = False,
) -> Endpoint | None:
    """Decide where to connect.

    `settings` holds the flags, `variables` the BWPOOL_* variables, `config` the
    configuration file; the NATS_* variables are taken from `environ`. A field counts
    from the first of: flags, BWPOOL_*, NATS_*, file, and for each the context it names.
    Only where none of them names a server or a context does the selected context
    count, then the default. With `explicit_only` that case returns None instead.
    Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    none = ServerSettings()
    layers = list(
        _explicit_layers(settings, variables or none, config or none, environ)
    )
    if not any("server" in layer for layer in layers):
        if explicit_only:
            return None
        layers.append(_selected(environ))
    return _endpoint(layers)


def redact(url: str) -> str:
    """Show `url` without the credentials it may carry."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def _explicit_layers(
    settings: ServerSettings,
    variables: ServerSettings,
    config: ServerSettings,
    environ: Mapping[str, str],
) -> Iterator[Layer]:
    """Yield the layers somebody asked for, strongest first.

    One context at most is read: that of the strongest layer that names one.
    """
    nats = {
        name: environ[variable]
        for name, variable in _VARIABLES.items()
        if environ.get(variable)
    }
    named = False
    for layer, context in (
        (_given(settings), settings.context),
        (_given(variables), variables.context),
        (nats, environ.get("NATS_CONTEXT")),
        (_given(config), config.context),
    ):
        yield _with_userinfo(layer)
        if context and not named:
            named = True
            # A context without a URL means the default server, not another layer's.
            chosen = {"server": DEFAULT_URL} | _read_context(context, environ)
            yield _with_userinfo(chosen)


def _given(settings: ServerSettings) -> dict[str, Any]:
    values = {f.name: getattr(settings, f.name) for f in fields(settings)}
    values.pop("context")
    return {name: value for name, value in values.items() if value not in (None, "")}


def _selected(environ: Mapping[str, str]) -> Layer:
    """Read the context that `nats context select` chose, if any."""
    try:
        name = (_home(environ) / "context.txt").read_text().strip()
    except OSError:
        return {}
    return _with_userinfo(_read_context(name, environ)) if name else {}


def _home(environ: Mapping[str, str]) -> Path:
    base = environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "nats"


def _read_context(name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Read one context, by name or by its file's path, in our fields' names."""
    folder = _home(environ) / "context"
    is_path = os.sep in name or name.endswith(".json")
    path = Path(name).expanduser() if is_path else folder / f"{name}.json"
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"can't read the nats context {name!r} ({path}: {error.strerror}): "
            "`nats context ls` lists those there are; choose one with --context, "
            "or name the server with --server"
        ) from None
    except ValueError as error:
        raise ConfigError(f"the nats context {path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"the nats context {path} is not a JSON object")
    for unsupported in _UNSUPPORTED:
        if values.get(unsupported):
            raise ConfigError(
                f"the nats context {path} uses {unsupported}, which bwpool can't: "
                "name the server with --server and the credentials with --creds"
            )
    values["server"] = values.pop("url", None)
    return {key: value for key, value in values.items() if value}


def _with_userinfo(layer: Layer) -> Layer:
    """Move what the layer's URLs say about the user into fields of their own."""
    if "server" not in layer:
        return layer
    urls = [_split(url) for url in str(layer["server"]).split(",") if url.strip()]
    if not urls:
        raise ConfigError("the server's URL is empty: name one with --server")
    users = {url.netloc.rpartition("@")[0] for url in urls} - {""}
    if len(users) > 1:
        raise ConfigError(
            "the servers' URLs carry different credentials: leave them out and "
            "give them with --user and --password, or --creds"
        )
    result = dict(layer) | {"server": tuple(_join(url) for url in urls)}
    if users and not any(method in layer for method in _METHODS):
        user, _, password = users.pop().partition(":")
        # As everywhere in NATS: a user without a password is a token.
        result |= {"user": unquote(user)} if password else {"token": unquote(user)}
        result |= {"password": unquote(password)} if password else {}
    return result


def _split(url: str) -> SplitResult:
    url = url.strip()
    shown = redact(url)
    try:
        parts = urlsplit(url if "://" in url else f"nats://{url}")
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{shown!r} is not a server's URL: {error}") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or port == 0:
        raise ConfigError(
            f"{shown!r} is not a server's URL: write it like {DEFAULT_URL}"
        )
    return parts


def _join(parts: SplitResult) -> str:
    """Write a URL with a port and without user and password."""
    place = parts.netloc.rpartition("@")[2].rstrip(":")
    if parts.port is None and parts.scheme in ("nats", "tls"):
        place += ":4222"
    return parts._replace(netloc=place).geturl().rstrip("/")


def _endpoint(layers: list[Layer]) -> Endpoint:
    merged: dict[str, Any] = {}
    for layer in reversed(layers):
        merged |= layer
    for name in _FILES:
        if name in merged:
            merged[name] = Path(os.path.expandvars(merged[name])).expanduser()
    domain = merged.get("jetstream_domain")
    default_prefix = f"$JS.{domain}.API" if domain else "$JS.API"
    return Endpoint(
        urls=merged.get("server", (DEFAULT_URL,)),
        credentials=_credentials(layers, merged),
        tls=Tls(
            ca=merged.get("ca"),
            cert=merged.get("cert"),
            key=merged.get("key"),
            first=bool(merged.get("tls_first", False)),
        ),
        api_prefix=merged.get("jetstream_api_prefix", default_prefix).rstrip("."),
        inbox_prefix=merged.get("inbox_prefix", "_INBOX").rstrip("."),
    )


def _credentials(layers: list[Layer], merged: Layer) -> Credentials:
    """Take the way to authenticate from the strongest layer that has one.

    Mixing ways across layers would let a variable meant for one server beat the
    credentials file of the context that was asked for.
    """
    for layer in layers:
        for method in _METHODS:
            if method in layer:
                return _credentials_of(method, merged)
    return Credentials()


def _credentials_of(method: str, merged: Layer) -> Credentials:
    value = merged[method]
    if method == "user":
        if "password" not in merged:
            return Credentials(token=value)
        return Credentials(user=value, password=merged["password"])
    if method == "user_jwt":
        return Credentials(user_jwt=value, user_seed=merged.get("user_seed"))
    return Credentials(**{method: value})

"""How a nats client is made: connect options, credentials, TLS, and plain refusals.

Owns what is peculiar to nats-py's options and to its errors' wording. Called by
`connection` alone; knows no more of bwpool than `contexts` and the errors.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nats.errors
import structlog
from nats.aio.client import RawCredentials

from bwpool.errors import ConfigError, QueueError
from bwpool.queue.contexts import Credentials, Endpoint, Tls
from bwpool.queue.mended import FLUSH_TIMEOUT, MendedClient

log = structlog.get_logger()

OPEN_TIMEOUT = 3.0
"""Seconds that a first connect may take, all servers together."""
CONNECT_TIMEOUT = 2.0
"""Seconds for each step of a later connect."""
RECONNECT_WAIT = 1.0
PING_INTERVAL = 20.0
"""With two unanswered pings allowed, a silent server is left after a minute."""
PENDING_BYTES = 8 * 1024 * 1024
"""What may be published while disconnected."""
CLOSE_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Whom a client tells about its life; none of these may block."""

    changed: Callable[[], None]
    """Reconnected, or closed for good."""
    lost: Callable[[], None]
    """Disconnected."""
    forbidden: Callable[[str], None]
    """The server refused to publish or to subscribe, in its words, in lower case."""


async def connect(endpoint: Endpoint, name: str, listener: Listener) -> MendedClient:
    """Connect a client that then reconnects for ever.

    Raises QueueError, or ConfigError where a file it needs is unusable.
    """
    client = MendedClient()
    failures: list[Exception] = []

    # nats-py's read loop ends, without a reconnect, with an exception that one of
    # these raises: they only pass on the news.
    async def on_error(error: Exception) -> None:
        text = said(error)
        if "permissions violation" in text:
            listener.forbidden(text)
        else:
            failures.append(error)
            del failures[:-16]
            log.debug("queue.error", reason=text)

    async def on_disconnect() -> None:
        listener.lost()

    async def on_change() -> None:
        listener.changed()

    urls = list(endpoint.urls)
    options = _options(endpoint)
    try:
        async with asyncio.timeout(OPEN_TIMEOUT):
            await client.connect(
                urls,
                name=name,
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_change,
                closed_cb=on_change,
                # nats-py would go on for ever: at first, each server is tried twice.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=min(CONNECT_TIMEOUT, 2.8 / len(urls)),  # type: ignore[arg-type]
                ping_interval=PING_INTERVAL,  # type: ignore[arg-type]
                max_outstanding_pings=2,
                pending_size=PENDING_BYTES,
                flush_timeout=FLUSH_TIMEOUT,
                drain_timeout=5,
                inbox_prefix=endpoint.inbox_prefix,
                **options,
            )
        _require_pong(client)
    except (nats.errors.Error, OSError, TimeoutError) as error:
        await close(client)
        raise _explain_refusal(endpoint, [*failures, error]) from None
    except Exception as error:
        # A server can say anything, and nats-py believes what it reads.
        log.debug("queue.connect_failed", exc_info=True)
        await close(client)
        raise QueueError(
            f"can't talk with the NATS server at {endpoint}: {error!r}"
        ) from None
    except BaseException:
        await close(client)
        raise
    client.options["max_reconnect_attempts"] = -1
    client.options["reconnect_time_wait"] = RECONNECT_WAIT
    client.options["connect_timeout"] = CONNECT_TIMEOUT
    return client


def _require_pong(client: MendedClient) -> None:
    if not client.is_connected:  # nats-py takes anything for an answer
        raise nats.errors.Error("it answers a PING with something else")


async def close(client: MendedClient, within: float | None = None) -> None:
    """Close a client, whatever state it is in, within `CLOSE_TIMEOUT` or `within`."""
    try:
        async with asyncio.timeout(CLOSE_TIMEOUT if within is None else within):
            await client.close()
    except (nats.errors.Error, OSError, RuntimeError, TimeoutError):
        pass
    finally:
        client.abort()


def _options(endpoint: Endpoint) -> dict[str, Any]:
    """Turn an endpoint into nats-py's options; raises ConfigError."""
    options = _auth_options(endpoint.credentials)
    tls = endpoint.tls
    is_tls = any(url.startswith(("tls:", "wss:")) for url in endpoint.urls)
    if is_tls or tls != Tls():
        options["tls"] = _tls_context(tls)
        options["tls_handshake_first"] = tls.first
    return options


def _auth_options(credentials: Credentials) -> dict[str, Any]:
    c = credentials
    for path in filter(None, (c.creds, c.nkey)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise ConfigError(f"can't read {path}: {error.strerror}") from None
    if c.creds or c.nkey or c.user_seed:
        _require_nkeys()
    if c.creds:
        return {"user_credentials": str(c.creds)}
    if c.nkey:
        return {"nkeys_seed": str(c.nkey)}
    if c.user_jwt and c.user_seed:
        text = (
            f"-----BEGIN NATS USER JWT-----\n{c.user_jwt}\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{c.user_seed}\n\n"
        )
        return {"user_credentials": RawCredentials(text)}
    if c.user_jwt:
        jwt = c.user_jwt.encode()
        # A bearer token: the server checks no signature.
        return {"user_jwt_cb": lambda: jwt, "signature_cb": lambda _nonce: b""}
    return {"user": c.user, "password": c.password, "token": c.token}


def _require_nkeys() -> None:
    try:
        import nkeys  # type: ignore[import-not-found]  # noqa: F401
    except ImportError:
        raise ConfigError(
            "credentials with keys need one more package: pip install 'nats-py[nkeys]'"
        ) from None


def _tls_context(tls: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ValueError) as error:
        files = ", ".join(str(path) for path in (tls.ca, tls.cert, tls.key) if path)
        raise ConfigError(f"can't use {files} for TLS: {error}") from None
    return context


def _explain_refusal(endpoint: Endpoint, failures: list[Exception]) -> QueueError:
    """Say in one line why no server was good enough, and what to do.

    The most telling failure counts: refused credentials before TLS trouble before
    anything a server said before silence.
    """
    texts = [said(failure) for failure in failures]
    if any("authorization" in text or "authentication" in text for text in texts):
        known = endpoint.credentials != Credentials()
        verb = "refuses these credentials" if known else "wants credentials"
        return QueueError(
            f"the NATS server at {endpoint} {verb}: "
            "give them with --creds, --context or --user and --password"
        )
    for failure in failures:
        if isinstance(failure, nats.errors.SecureConnWantedError):
            return QueueError(
                f"no TLS with the NATS server at {endpoint}, which offers none: "
                "write nats:// if plain text will do"
            )
        if isinstance(failure, ssl.SSLError):
            return QueueError(
                f"no TLS with the NATS server at {endpoint} ({said(failure)}): "
                "name its authority with --ca"
            )
    for failure, text in zip(failures, texts, strict=True):
        is_plain = type(failure) is nats.errors.Error
        if is_plain and "empty response" not in text:
            return QueueError(f"the NATS server at {endpoint} refuses: {text}")
    return QueueError(
        f"no NATS server answers at {endpoint}: start one (nats-server -js, or "
        "bwpool dev), or name yours with --server"
    )


def said(error: BaseException) -> str:
    """Return an error's text in lower case, without nats-py's prefix and quotes."""
    text = str(error) or type(error).__name__
    return re.sub(r"^nats: ", "", text).strip("'").lower()

"""How a nats client is made: connect options, credentials, TLS, and plain refusals.

Owns what is peculiar to nats-py: the defects mended here, and its errors' wording.
Called by `connection` alone; knows no more of bwpool than `contexts` and the errors.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client, RawCredentials
from nats.aio.msg import Msg
from nats.protocol import parser

from bwpool.errors import ConfigError, QueueError
from bwpool.queue.contexts import Credentials, Endpoint, Tls

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
FLUSH_TIMEOUT = 10.0
"""Seconds a publisher waits for a socket that takes nothing more."""
CLOSE_TIMEOUT = 2.0

# In nats-py's own patterns a vertical tab or a form feed ends a subject; the server
# takes both for a part of it. A message on such a subject would reach another
# subscription, or end the connection at each of its deliveries.
_SUBJECT = rb"[ \t]+([^ \t\r\n]+)[ \t]+(\d+)[ \t]+(([^ \t\r\n]+)[ \t]+)?"
parser.MSG_RE = re.compile(rb"\AMSG" + _SUBJECT + rb"(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG" + _SUBJECT + rb"(\d+)[ \t]+(\d+)\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """Whom a client tells about its life; none of these may block."""

    changed: Callable[[], None]
    """Reconnected, or closed for good."""
    lost: Callable[[], None]
    """Disconnected."""
    forbidden: Callable[[str], None]
    """The server refused to publish or to subscribe, in its words, in lower case."""


class MendedClient(Client):
    """nats-py's client, with what breaks under load or a dead network mended.

    So is what strangers can break: an exception while a message is taken apart would
    end the reading task, and each redelivery the next one.
    """

    @property
    def is_orphaned(self) -> bool:
        """Whether a task without which it is dead has ended; nats-py tells nobody."""
        if self.is_closed:
            return False
        tasks: tuple[asyncio.Task[Any] | None, ...] = (self._reconnection_task,)
        if self.is_connected:
            tasks = self._reading_task, self._flusher_task, self._ping_interval_task
        return any(task is None or task.done() for task in tasks)

    async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception as error:  # noqa: BLE001 - whatever it is: no headers then
            log.debug("queue.headers_unreadable", error=repr(error))
            return None

    def _build_message(
        self,
        sid: int,
        subject: bytes,
        reply: bytes,
        data: bytes,
        headers: dict[str, str] | None,
    ) -> Msg:
        message: Msg
        try:
            message = super()._build_message(sid, subject, reply, data, headers)
        except UnicodeDecodeError:
            # As JetStream's API writes such a subject.
            subject, reply = _as_utf8(subject), _as_utf8(reply)
            message = super()._build_message(sid, subject, reply, data, headers)
        return message

    async def flush(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Wait until the server has processed everything published before.

        nats-py sends the PING ahead of what is still buffered, and returns at once
        when disconnected: no barrier at all, also for what builds on it
        (`Subscription.drain`).
        """
        if self.is_reconnecting:
            raise nats.errors.ConnectionReconnectingError
        try:
            if self._pending and self._transport:
                self._transport.writelines(self._pending)
                self._pending = []
                self._pending_data_size = 0
            await super().flush(timeout)  # type: ignore[arg-type]
        except RuntimeError as error:  # uvloop's word for a socket that is closed
            raise nats.errors.ConnectionClosedError from error

    async def _process_pong(self) -> None:
        # A flush that was cancelled leaves its future behind, and setting the
        # result of a finished future would end nats-py's read loop.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _attempt_reconnect(self) -> None:
        # nats-py waits for the old socket to close, which it never does while a
        # peer that is gone has not read what is buffered.
        self.abort()
        # An attempt that a later one overtakes trips over that one's future.
        with contextlib.suppress(asyncio.InvalidStateError):
            await super()._attempt_reconnect()

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: FBT002
        # A reconnect under way can swallow its cancellation, and would then go on
        # for ever and bring the closed client back to life.
        task = self._reconnection_task
        while task and task is not asyncio.current_task() and not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=0.05)
        await super()._close(status, do_cbs)

    def _connect_command(self) -> bytes:
        # nats-py would send the credentials in the clear when a server asked for
        # with tls:// offers none.
        server = self._current_server
        wants_tls = server is not None and server.uri.scheme == "tls"
        has_tls = self._server_info.get("tls_required")
        if wants_tls and not (has_tls or self.options["tls_handshake_first"]):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()

    def abort(self) -> None:
        """Drop the socket and what it still holds."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            # asyncio's transports can't be aborted once they are all closed.
            with contextlib.suppress(AttributeError):
                writer.transport.abort()


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


def _as_utf8(text: bytes) -> bytes:
    return text.decode(errors="replace").encode()

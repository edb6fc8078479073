"""nats-py's client, mended: what breaks under load, and by what strangers publish.

Owns whatever is overridden or replaced of nats-py's private parts, which is held to the
versions that pyproject.toml allows by `tests/test_mended.py`. Called by `client` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol import parser

log = structlog.get_logger()

FLUSH_TIMEOUT = 10.0
"""Seconds a publisher waits for a socket that takes nothing more."""

# In nats-py's own patterns a vertical tab or a form feed ends a subject; the server
# takes both for a part of it. A message on such a subject would reach another
# subscription, or end the connection at each of its deliveries.
_SUBJECT = rb"[ \t]+([^ \t\r\n]+)[ \t]+(\d+)[ \t]+(([^ \t\r\n]+)[ \t]+)?"
parser.MSG_RE = re.compile(rb"\AMSG" + _SUBJECT + rb"(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG" + _SUBJECT + rb"(\d+)[ \t]+(\d+)\r\n")


class MendedClient(Client):
    """nats-py's client, with what breaks under load or a dead network mended.

    So is what strangers can break: an exception while a message is taken apart would
    end the reading task, and each redelivery the next one.
    """

    @property
    def death(self) -> str:
        """Why it is dead without being closed, of which nats-py tells nobody.

        A task that it needs has ended. Empty while it lives.
        """
        if self.is_closed:
            return ""
        tasks: tuple[asyncio.Task[Any] | None, ...] = (self._reconnection_task,)
        if self.is_connected:
            tasks = self._reading_task, self._flusher_task, self._ping_interval_task
        ends = (_end_of(task) for task in tasks if task is None or task.done())
        return next(ends, "")

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


def _end_of(task: asyncio.Task[Any] | None) -> str:
    """Say how a task ended, which also spares asyncio from saying it."""
    if task is None or task.cancelled():
        return "cancelled"
    return repr(task.exception() or "ended")


def _as_utf8(text: bytes) -> bytes:
    return text.decode(errors="replace").encode()

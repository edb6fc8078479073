"""The connection to NATS: opened once, kept for ever.

Owns the nats client's replacement where nats-py gives up, and how requests fail.
Called by everything else in `queue` and by the command line; knows nothing of
streams or jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import nats.errors
import orjson
import structlog
from nats.aio.msg import Msg

from bwpool.errors import ConfigError, QueueError
from bwpool.queue.answers import read_answer, shape_of
from bwpool.queue.client import Listener, close, connect, said
from bwpool.queue.contexts import Endpoint
from bwpool.queue.mended import FLUSH_TIMEOUT, MendedClient

log = structlog.get_logger()

REBUILD_DELAYS = (0.5, 15.0)
"""Seconds before the first rebuild and at most, doubling in between."""

LOOK_EVERY = 0.25
"""Seconds between two looks at whether the client still lives: no event tells."""

ORPHAN_CLOSE_WITHIN = 0.1
"""Seconds for what a client that died still has to send."""

CHECK_WITHIN = 3.0
"""Seconds for a sign of life on a connection that is suspected to be dead."""


class RequestTimeout(QueueError):
    """Nobody answered a request in time."""


class Forbidden(RequestTimeout):
    """The credentials don't allow a request."""


class NoResponders(QueueError):
    """Nobody listens where a request went."""


class ApiError(QueueError):
    """JetStream refused a request."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"JetStream says: {description} ({err_code})")
        self.code = code
        """As in HTTP."""
        self.err_code = err_code
        """JetStream's own number, finer than `code`."""
        self.description = description


class Connection:
    """A connection to NATS that outlives everything but `close`.

    While it is down, `publish` buffers up to 8 MiB and requests wait; after nats-py
    gave up, both raise QueueError until the client is rebuilt. Subscriptions survive
    a reconnect but not a rebuild: whoever has some renews them in `on_up`, on the
    `client` of that moment.
    """

    client: MendedClient
    """The nats client of this moment; look it up anew for each use."""

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self.endpoint = endpoint
        self.name = name
        self.on_up: list[Callable[[], None]] = []
        """Called after every reconnect and rebuild."""
        self._changed = asyncio.Event()
        self._violations: deque[str] = deque(maxlen=16)
        self._listener = Listener(
            changed=self._changed.set, lost=self._note_loss, forbidden=self._note_ban
        )
        self._keeper: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, endpoint: Endpoint, *, name: str = "bwpool") -> Connection:
        """Connect, within 3 s, or raise QueueError or ConfigError saying why not."""
        connection = cls(endpoint, name)
        connection.client = await connect(endpoint, name, connection._listener)
        connection._keeper = asyncio.create_task(connection._keep(), name="nats-keeper")
        return connection

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what is buffered, as far as the server still takes it, and close."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        await close(self.client)

    @property
    def is_up(self) -> bool:
        """Whether a server is connected right now."""
        return self.client.is_connected

    @property
    def server_version(self) -> tuple[int, int, int]:
        """The version of the server last connected to; zeros if it has none."""
        try:
            version = self.client.connected_server_version
            return version.major, version.minor, version.patch
        except (ValueError, TypeError):
            return 0, 0, 0

    async def wait_up(self, timeout: float) -> None:
        """Return once a server is connected, or raise QueueError after `timeout`."""
        if self.is_up:
            return
        up = asyncio.Event()
        self.on_up.append(up.set)
        try:
            async with asyncio.timeout(timeout):
                await up.wait()
        except TimeoutError:
            raise QueueError(
                f"the NATS server at {self.endpoint} has been away for {timeout:g} s"
            ) from None
        finally:
            self.on_up.remove(up.set)

    def api_subject(self, suffix: str) -> str:
        """Return the subject of a JetStream request, such as `STREAM.INFO.IMAGES`."""
        return f"{self.endpoint.api_prefix}.{suffix}"

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        reply: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a message, unconfirmed; raises QueueError where it can't even be kept.

        Only `flush` or a reply tells whether the server has it.
        """
        try:
            await self.client.publish(subject, payload, reply, headers)
        except nats.errors.Error as error:
            raise QueueError(f"can't publish to {subject}: {said(error)}") from error

    async def flush(self, timeout: float = FLUSH_TIMEOUT) -> None:
        """Wait until the server has processed everything published so far.

        Raises QueueError while disconnected and after `timeout` seconds.
        """
        try:
            await self.client.flush(timeout)
        except (nats.errors.Error, OSError) as error:
            raise QueueError(f"{self.endpoint} is not there: {said(error)}") from error

    async def check(self) -> None:
        """Give up a connection on which nothing comes back, so that another is made."""
        client = self.client
        try:
            await self.flush(CHECK_WITHIN)
        except QueueError:
            if client.is_connected:
                log.warning("queue.connection_dead", server=str(self.endpoint))
                client.abort()

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 5.0,
        headers: dict[str, str] | None = None,
    ) -> Msg:
        """Send a message and return its reply.

        Raises NoResponders, RequestTimeout, Forbidden, or QueueError.
        """
        try:
            return await self.client.request(
                subject, payload, timeout=timeout, headers=headers
            )
        except nats.errors.NoRespondersError:
            raise NoResponders(f"nobody listens on {subject}") from None
        except nats.errors.TimeoutError:
            raise self._explain_silence(subject, timeout) from None
        except (nats.errors.Error, OSError) as error:
            raise QueueError(f"can't ask {subject}: {said(error)}") from error

    async def api(
        self, suffix: str, body: Any = None, timeout: float = 5.0
    ) -> dict[str, Any]:
        """Ask JetStream and return its answer.

        `suffix` is what follows `$JS.API.`, `body` becomes JSON. Raises ApiError for
        a refusal, QueueError where JetStream is off, silent, out of reach, or answers
        with what makes no sense.
        """
        payload = b"" if body is None else orjson.dumps(body)
        subject = self.api_subject(suffix)
        try:
            reply = await self.request(subject, payload, timeout)
        except NoResponders:
            raise QueueError(
                f"JetStream is not enabled at {self.endpoint}, or not for this "
                "account: start the server with -js"
            ) from None
        answer = read_answer(subject, reply.data, shape_of(suffix))
        if (error := answer.get("error")) is not None:
            raise ApiError(
                error.get("code") or 0,
                error.get("err_code") or 0,
                error.get("description") or "no reason given",
            )
        return answer

    def _explain_silence(self, subject: str, timeout: float) -> RequestTimeout:
        """Say why nothing came back: the server names refused subjects elsewhere."""
        inbox = self.endpoint.inbox_prefix
        for violation in self._violations:
            if f'publish to "{subject.lower()}"' in violation:
                return Forbidden(f"these credentials may not publish to {subject}")
            if f'subscription to "{inbox.lower()}.' in violation:
                return Forbidden(
                    f"these credentials may not subscribe to {inbox}.>, where replies "
                    "arrive: name another inbox_prefix in the nats context"
                )
        return RequestTimeout(f"no answer from {subject} within {timeout:g} s")

    def _note_loss(self) -> None:
        if self._keeper is None or self._keeper.done():
            return  # never had one, or gives it up itself
        log.warning("queue.disconnected", server=str(self.endpoint))

    def _note_ban(self, violation: str) -> None:
        self._violations.append(violation)
        log.warning("queue.forbidden", reason=violation)

    async def _keep(self) -> None:
        """Tell about every reconnect, and replace a client that closed or died."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._changed.wait()
            if reason := self.client.death:
                log.warning(
                    "queue.client_died", server=str(self.endpoint), reason=reason
                )
                await close(self.client, ORPHAN_CLOSE_WITHIN)
                self._changed.set()
            if not self._changed.is_set():
                continue
            self._changed.clear()
            while self.client.is_closed:
                log.warning("queue.closed", server=str(self.endpoint))
                await self._rebuild()
                # What the attempts themselves signalled is no news.
                self._changed.clear()
            if self.client.is_connected:
                self._announce()

    async def _rebuild(self) -> None:
        delay, most = REBUILD_DELAYS
        while True:
            # Jitter, so that the supervisors of a cluster don't come back as one.
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
            try:
                self.client = await connect(self.endpoint, self.name, self._listener)
            except (QueueError, ConfigError) as error:
                log.warning("queue.unreachable", reason=str(error))
                delay = min(delay * 2, most)
            else:
                return

    def _announce(self) -> None:
        log.info("queue.connected", server=str(self.endpoint))
        for callback in list(self.on_up):
            try:
                callback()
            except Exception:
                # One listener's bug must not cost the others their connection.
                log.exception("queue.listener_failed")

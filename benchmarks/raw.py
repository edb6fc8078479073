"""A publisher that speaks NATS's protocol by hand: any bytes in any place.

A client would refuse, repair or escape most of what strangers can send.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import Self

CONNECT = b'CONNECT {"verbose":false,"pedantic":false,"headers":true}\r\n'
ANSWER_WITHIN = 20.0


@dataclass(frozen=True, slots=True)
class Raw:
    """What goes over the wire: nothing here needs to be valid."""

    subject: bytes
    payload: bytes
    headers: bytes | None = None

    def written(self) -> bytes:
        """Write it as PUB, or as HPUB where it has headers, even empty ones."""
        body = self.payload + b"\r\n"
        if self.headers is None:
            return b"PUB %s %d\r\n" % (self.subject, len(self.payload)) + body
        size = len(self.headers)
        line = b"HPUB %s %d %d\r\n" % (self.subject, size, size + len(self.payload))
        return line + self.headers + body


class RawPublisher:
    """A socket to a server; it is made anew whenever the server has had enough."""

    def __init__(self, port: int) -> None:
        self.ended = 0
        """How often the server has ended the connection."""
        self._port = port
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        await self._connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def publish(self, messages: list[Raw]) -> None:
        """Send messages, and return when the server has read them all.

        What follows one for which the server ends the connection is sent anew.
        """
        for message in messages:
            self._writer.write(message.written())
        if await self._is_read():
            return
        for message in messages:
            self._writer.write(message.written())
            await self._is_read()

    async def _is_read(self) -> bool:
        try:
            self._writer.write(b"PING\r\n")
            await self._writer.drain()
            async with asyncio.timeout(ANSWER_WITHIN):
                while (line := await self._reader.readline()) != b"PONG\r\n":
                    if line == b"PING\r\n":
                        self._writer.write(b"PONG\r\n")
                    if not line:
                        raise ConnectionError
        except OSError:
            self.ended += 1
            await self._connect()
            return False
        return True

    async def _connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port
        )
        self._writer.write(CONNECT)

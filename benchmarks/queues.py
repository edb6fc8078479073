"""How a benchmark gets a server, a queue, and jobs in it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import orjson

from benchmarks.drain import wait_until_none_is_left
from benchmarks.processes import cpu_seconds, written_bytes
from bwpool.embedded import EmbeddedServer
from bwpool.queue.connection import Connection
from bwpool.queue.facts import read_facts
from bwpool.queue.publish import Message, Stored, publish_all
from bwpool.queue.topology import apply, inspect, plan, wanted
from bwpool.settings import QueueSettings


class Queue:
    """The seed's stream and consumer on a server of our own, stored in files."""

    def __init__(self, server: EmbeddedServer, connection: Connection) -> None:
        self.url = server.url_with_password
        self.connection = connection
        self._pid = server.pid

    async def setup(self, **consumer: Any) -> None:
        """Make stream and consumer as `bwpool setup` does, with further settings."""
        desired = wanted(QueueSettings())
        assert desired.consumer is not None
        desired.consumer.update(consumer)
        todo = plan(await inspect(self.connection, desired.names), desired)
        await apply(self.connection, todo)
        self.facts = await read_facts(self.connection, desired.names)

    async def fill(self, payloads: Iterable[bytes]) -> None:
        """Publish jobs, and return when the stream has stored them all."""
        messages = map(Message, payloads)
        outcomes = publish_all(
            self.connection, self.facts.subject, messages, self.facts.max_msg_bytes
        )
        async for outcome in outcomes:
            assert isinstance(outcome, Stored), outcome

    async def left(self) -> int:
        """Count what the stream still stores: all that is not acknowledged."""
        return int((await self._state())["messages"])

    async def wait_until_empty(self) -> None:
        """Return once the server has confirmed the last ack."""
        await wait_until_none_is_left(self.left)

    async def stored_bytes(self) -> int:
        """Return how much the stream's messages take in its files."""
        return int((await self._state())["bytes"])

    async def _state(self) -> dict[str, Any]:
        info = await self.connection.api(f"STREAM.INFO.{self.facts.stream}")
        state: dict[str, Any] = info["state"]
        return state

    @property
    def cpu_seconds(self) -> float:
        """The server's CPU time."""
        return cpu_seconds(self._pid)

    @property
    def written_bytes(self) -> int:
        """What the server has had written to the disk."""
        return written_bytes(self._pid)


@contextlib.asynccontextmanager
async def queueing(folder: Path, **consumer: Any) -> AsyncIterator[Queue]:
    """Run a server that keeps its messages in `folder`, with an empty queue."""
    async with (
        await EmbeddedServer.start(folder) as server,
        await Connection.open(server.endpoint, name="bench") as connection,
    ):
        queue = Queue(server, connection)
        await queue.setup(**consumer)
        yield queue


def empty_jobs(count: int) -> Iterable[bytes]:
    """Make jobs of the usual size for converters that do nothing."""
    for number in range(count):
        yield job(f"{number:032x}", f"file:///data/scan/{number:032x}.jpg")


def job(job_id: str, image: str) -> bytes:
    """Make a job as the seed's does, with an advisory."""
    return orjson.dumps(
        {"id": job_id, "image": image, "advisory": f"advisory.{job_id}"}
    )

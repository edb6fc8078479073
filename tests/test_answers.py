"""Answers of servers and of their JetStream that make no sense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import orjson
import pytest
from lies import damaged
from nats.aio.msg import Msg
from processes import bwpool
from queues import let_one_die
from servers import NatsServer

from bwpool.cli.common import (
    printable_lines,
)
from bwpool.errors import QueueError
from bwpool.queue import dead, topology
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.facts import read_depth, read_facts
from bwpool.queue.failures import last_record
from bwpool.queue.messages import get_message
from bwpool.settings import QueueSettings

# ── JetStream's answers ──────────────────────────────────────────────────────────


class Liar:
    """Stands between a connection and JetStream's API, and changes its answers."""

    def __init__(self, connection: Connection) -> None:
        self.lie: Callable[[str, bytes], bytes] = lambda _suffix, answer: answer
        self._connection = connection

    async def answer(self, msg: Msg) -> None:
        """Pass a request on, and its answer back."""
        suffix = msg.subject.removeprefix("LIAR.API.")
        subject = self._connection.api_subject(suffix)
        truth = await self._connection.request(subject, msg.data)
        await msg.respond(self.lie(suffix, truth.data))


@pytest.fixture
async def liar(connection: Connection, queue: QueueSettings) -> AsyncIterator[Liar]:
    """A liar at work, on a queue where something is dead."""
    await let_one_die(connection, queue)
    liar = Liar(connection)
    subscription = await connection.client.subscribe("LIAR.API.>", cb=liar.answer)
    await connection.flush()
    yield liar
    await subscription.unsubscribe()


@pytest.fixture
async def lied_to(server: NatsServer, liar: Liar) -> AsyncIterator[Connection]:
    """A connection that gets its answers from the liar."""
    endpoint = Endpoint(urls=(server.url,), api_prefix="LIAR.API")
    async with await Connection.open(endpoint) as connection:
        yield connection


async def look(connection: Connection, names: QueueSettings) -> None:
    """Ask all there is to ask."""
    facts = await read_facts(connection, names)
    await read_depth(connection, facts)
    topology.plan(await topology.inspect(connection, names), topology.wanted(names))
    message = await get_message(connection, names.stream, {"seq": 1})
    assert [job.seq async for job in dead.list_failed(connection, names)] == [1]
    assert message is not None
    await last_record(connection, names.stream, names.consumer, message)


@pytest.mark.parametrize(
    "nonsense", [b"", b"nonsense", b"\xff", b"[]", b"null", b"1", b"{}", b"[" * 2000]
)
async def test_an_answer_without_sense_is_named(nonsense, liar, lied_to, queue):
    """Not a traceback, but which request it was that somebody answered so."""
    liar.lie = lambda _suffix, _answer: nonsense

    with pytest.raises(QueueError, match=rf"LIAR\.API\.STREAM\.INFO\.{queue.stream} "):
        await read_facts(lied_to, queue)


@pytest.mark.parametrize(
    "error", ["x", [], 1, {"code": "404"}, {"description": ["x"]}, {"err_code": None}]
)
async def test_a_refusal_without_sense_is_an_error(error, liar, lied_to, queue):
    """A refusal can be of any type as well."""
    liar.lie = lambda _suffix, _answer: orjson.dumps({"error": error})

    with pytest.raises(QueueError):
        await read_facts(lied_to, queue)


ASKED = ("STREAM.INFO", "CONSUMER.INFO", "STREAM.MSG.GET", "STREAM.NAMES")


@pytest.mark.parametrize("asked", ASKED)
async def test_whatever_is_wrong_in_an_answer_is_an_error(
    asked, liar, lied_to, connection, queue
):
    """Each field in turn missing or of another type: believed or refused, no more."""
    heard: dict[str, bytes] = {}

    def listen(suffix: str, answer: bytes) -> bytes:
        heard.setdefault(suffix, answer)
        return answer

    liar.lie = listen
    await look(lied_to, queue)
    suffix = next(each for each in heard if each.startswith(asked))
    lies = damaged(orjson.loads(heard[suffix]))
    refused = 0
    for lie in lies[:: max(1, len(lies) // 60)]:
        liar.lie = lambda given, answer, lie=lie: (
            orjson.dumps(lie) if given == suffix else answer
        )
        try:
            await asyncio.wait_for(look(lied_to, queue), 10)
        except QueueError:
            refused += 1
        except AssertionError:
            continue  # believed: there is no such dead message then

    assert refused > 5


# ── Servers with bad manners ─────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (b"INFO {}\r\n", b"-ERR '\x1b[2Jgo away'\r\n"),
        (b"INFO {}\r\n", b"-ERR '\xff'\r\n"),
        (b"INFO {}\r\n", b"-ERR\r\n"),
        (b"INFO {}\r\n", b"\x1b[2J\r\n"),
        (b"INFO []\r\n", b""),
        (b'INFO {"connect_urls":7}\r\n', b""),
        (b'INFO {"version":[],"max_payload":"\x1b[2J"}\r\n', b"PONG\r\n-ERR 'x'\r\n"),
        (b"INFO \xff\r\n", b""),
        (b"x" * 100_000, b""),
    ],
)
async def test_a_server_without_manners_is_explained(greeting, answer):
    """One line, exit code 1, no traceback, nothing that steers a terminal."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"PING\r\n")
            writer.write(answer)
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as peer:
        url = f"nats://127.0.0.1:{peer.sockets[0].getsockname()[1]}"
        async with bwpool("failed", "list", "--server", url) as command:
            code = await command.wait()
    said = command.stderr.decode()

    assert code == 1
    assert "Traceback" not in said
    assert said.startswith("bwpool: ")
    assert printable_lines(said) == said

"""What is mended of nats-py's client, held against what the tested version has."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.protocol import parser
from servers import Wire, publish_raw

from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.lease import read_lease
from bwpool.queue.mended import MendedClient


@pytest.fixture
async def heard(connection: Connection) -> AsyncIterator[asyncio.Queue[Msg]]:
    """All messages below `edges`, as they arrive."""
    messages: asyncio.Queue[Msg] = asyncio.Queue()

    subscription = await connection.client.subscribe("edges.>", cb=messages.put)
    await connection.flush()
    yield messages
    await subscription.unsubscribe()


HEADERS = {
    "one byte": b"X",
    "the version alone": b"NATS/1.0",
    "no end": b"NATS/1.0\r",
    "a status that is no text": b"NATS/1.0 \xff\xfe\xfd\r\n\r\n",
    "a description that is no text": b"NATS/1.0 503 \xff\r\n\r\n",
    "nothing readable": b"\0" * 20,
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS.keys())
async def test_unreadable_headers_make_a_message_without(headers, server, heard):
    """The payload arrives, and so does what is published next."""
    size = len(headers)
    publish_raw(
        server,
        b"HPUB edges.h %d %d\r\n" % (size, size + 3) + headers + b"one\r\n",
        b"PUB edges.next 3\r\ntwo\r\n",
    )
    first, second = [await asyncio.wait_for(heard.get(), 2) for _ in range(2)]

    assert (first.data, first.headers) == (b"one", None)
    assert second.data == b"two"


@pytest.mark.parametrize(
    ("subject", "read"),
    [
        (b"edges.\xff", "edges.\ufffd"),
        (b"edges.\x0b1", "edges.\x0b1"),
        (b"edges.\x0c", "edges.\x0c"),
        (b"edges.a\x0b1\x0b2", "edges.a\x0b1\x0b2"),
        (b"edges.\x1b[2J", "edges.\x1b[2J"),
    ],
)
async def test_unreadable_subjects_end_no_connection(subject, read, server, heard):
    """Neither bytes that are no UTF-8 nor what nats-py takes for a space."""
    publish_raw(
        server,
        b"PUB " + subject + b" 3\r\none\r\n",
        b"PUB " + subject + b" rep\xffly 3\r\ntwo\r\n",
        b"HPUB " + subject + b" 12 17\r\nNATS/1.0\r\n\r\nthree\r\n",
    )
    messages = [await asyncio.wait_for(heard.get(), 2) for _ in range(3)]

    assert [message.data for message in messages] == [b"one", b"two", b"three"]
    assert {message.subject for message in messages} == {read}
    assert messages[1].reply == "rep\ufffdly"


ENDS = {
    "the reading task": lambda client, _: client._reading_task.cancel(),
    "the flusher": lambda client, _: client._flusher_task.cancel(),
    "the pings": lambda client, _: client._ping_interval_task.cancel(),
    "an error that is no text": lambda _, wire: wire.say(b"-ERR '\xff'\r\n"),
    "an error without a word": lambda _, wire: wire.say(b"-ERR \r\n"),
    "news that is not JSON": lambda _, wire: wire.say(b"INFO {\r\n"),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_a_client_that_died_is_replaced(end, server, new_wire):
    """Whatever its tasks ended for, within a second, though nats-py says nothing."""
    wire: Wire = await new_wire(server)
    async with await Connection.open(Endpoint(urls=(wire.url,))) as connection:
        first, up = connection.client, asyncio.Event()
        connection.on_up.append(up.set)
        started = time.monotonic()
        end(first, wire)
        await asyncio.wait_for(up.wait(), 3)
        took = time.monotonic() - started
        await connection.flush()

        assert connection.client is not first
    assert took < 1


async def test_a_bug_in_a_callback_costs_one_client(server, new_wire):
    """Here in what nats-py calls with each error, from within its reading task."""
    wire: Wire = await new_wire(server)
    async with await Connection.open(Endpoint(urls=(wire.url,))) as connection:
        first, up = connection.client, asyncio.Event()
        connection.on_up.append(up.set)

        async def fail(error: Exception) -> None:
            raise LookupError(error)

        first._error_cb = fail
        wire.say(b"-ERR 'permissions violation'\r\n")
        await asyncio.wait_for(up.wait(), 3)
        await connection.flush()

        assert connection.client is not first


async def test_a_reconnect_that_dies_is_replaced(server, new_wire):
    """A server that greets with nonsense once is no end of the connection."""
    wire: Wire = await new_wire(server)
    async with await Connection.open(Endpoint(urls=(wire.url,))) as connection:
        first, up = connection.client, asyncio.Event()
        connection.on_up.append(up.set)
        first._process_connect_init = None  # calling it is a bug as good as any
        wire.cut()
        await asyncio.wait_for(up.wait(), 5)

        assert connection.client is not first


PRIVATE = {
    "_process_pong": "(self) -> 'None'",
    "_attempt_reconnect": "(self) -> 'None'",
    "_close": "(self, status: 'int', do_cbs: 'bool' = True) -> 'None'",
    "_connect_command": "(self) -> 'bytes'",
    "_process_headers": "(self, headers) -> 'Optional[Dict[str, str]]'",
    "_build_message": "(self, sid: 'int', subject: 'bytes', reply: 'bytes', "
    "data: 'bytes', headers: 'Optional[Dict[str, str]]')",
}


def test_what_is_overridden_is_there():
    """Another version of nats-py needs another look at each mend."""
    found = {name: str(inspect.signature(getattr(Client, name))) for name in PRIVATE}
    overridden = {
        name
        for name, value in vars(MendedClient).items()
        if inspect.isfunction(value) and name.startswith("_")
    }

    assert found == PRIVATE
    assert overridden == set(PRIVATE)


def test_what_is_read_or_replaced_is_there():
    """The state that says whether a client lives, and the parser's patterns."""
    client = MendedClient()
    state = ("_reading_task", "_flusher_task", "_ping_interval_task", "_pongs")
    state += ("_reconnection_task", "_pending", "_pending_data_size", "_transport")
    parsing = inspect.getsource(parser.Parser.parse)

    assert [name for name in state if not hasattr(client, name)] == []
    assert "HMSG_RE.match(self.buf)" in parsing
    assert " MSG_RE.match(self.buf)" in parsing


def test_a_reply_of_nobody_knows_whom_is_no_lease():
    """What was not delivered by JetStream can't be settled with it."""
    for reply in ("", "$JS.ACK", "$JS.ACK.a.b.c.d.e.f.g", "x" * 300):
        with pytest.raises(ValueError, match=r"."):
            read_lease("edges", b"", None, reply)

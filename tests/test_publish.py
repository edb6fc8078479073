"""Confirmed publishing of many messages, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing

import pytest
from servers import NatsServer, Wire

from bwpool.errors import QueueError
from bwpool.queue import client as client_module
from bwpool.queue import connection as connection_module
from bwpool.queue import publish
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.publish import NotStored, Outgoing, Receipt, Stored, submit
from bwpool.settings import QueueSettings


async def receipts(
    connection: Connection, names: QueueSettings, messages: Iterable[Outgoing]
) -> list[Receipt]:
    """Submit with the stream's limit, and collect what comes back."""
    found = submit(connection, names.subject, messages, max_msg_bytes=512)
    return [receipt async for receipt in found]


async def stored(connection: Connection, names: QueueSettings) -> int:
    """Count what the stream holds."""
    info = await connection.api(f"STREAM.INFO.{names.stream}")
    return int(info["state"]["messages"])


async def test_receipts_come_in_order_beyond_the_window(connection, queue) -> None:
    """Thousands of messages get their sequences one by one."""
    count = 2 * publish.WINDOW + 7
    messages = (Outgoing(b"%d" % i) for i in range(count))

    found = await receipts(connection, queue, messages)

    assert found == [Stored(seq, duplicate=False) for seq in range(1, count + 1)]
    assert await stored(connection, queue) == count


async def test_same_id_is_stored_once(connection, queue) -> None:
    """A message with a known id answers with the first one's sequence."""
    messages = [Outgoing(b"a", "id-1"), Outgoing(b"b"), Outgoing(b"a", "id-1")]

    found = await receipts(connection, queue, messages)

    assert found == [Stored(1, False), Stored(2, False), Stored(1, True)]


async def test_size_limit_is_computed_and_explained(connection, queue) -> None:
    """Exactly the limit is stored; a byte more is refused before it is sent."""
    messages = [Outgoing(bytes(512)), Outgoing(bytes(513)), Outgoing(b"")]

    fits, too_long, empty = await receipts(connection, queue, messages)

    assert fits == Stored(1, duplicate=False)
    assert isinstance(too_long, NotStored)
    assert "513 bytes, the stream takes 512 at most" in too_long.reason
    assert not too_long.is_retryable
    assert empty == Stored(2, duplicate=False)


async def test_id_counts_against_the_limit_and_gives_way(connection, queue) -> None:
    """An id is sent if 27 bytes and itself fit beside the payload, else left out."""
    key = "ä-id"
    room = 512 - 27 - len(key.encode())
    messages = [
        Outgoing(bytes(room), key),
        Outgoing(bytes(room), key),
        Outgoing(bytes(room + 1), key + "x"),
        Outgoing(bytes(room + 1), key + "x"),
    ]

    found = await receipts(connection, queue, messages)

    assert found == [
        Stored(1, duplicate=False),
        Stored(1, duplicate=True),
        Stored(2, duplicate=False),
        Stored(3, duplicate=False),
    ]


async def test_refusal_of_the_server_is_explained(connection, queue) -> None:
    """A limit that the caller didn't know is told by the server."""
    found = submit(connection, queue.subject, [Outgoing(bytes(600))])

    assert [receipt async for receipt in found] == [
        NotStored(
            "the job has more bytes than the stream's max_msg_size allows",
            is_retryable=False,
        )
    ]


async def test_subject_without_stream_is_explained(connection, names) -> None:
    """Where no stream listens, the command that makes one is named."""
    (found,) = await receipts(connection, names, [Outgoing(b"x")])

    assert isinstance(found, NotStored)
    assert "run bwpool setup" in found.reason


async def test_full_stream_may_take_it_later(connection, names) -> None:
    """A stream at its limit is worth another attempt."""
    config = {
        "name": names.stream,
        "subjects": [names.subject],
        "max_msgs": 1,
        "discard": "new",
    }
    await connection.api(f"STREAM.CREATE.{names.stream}", config)

    first, second = await receipts(connection, names, [Outgoing(b"1"), Outgoing(b"2")])

    assert first == Stored(1, duplicate=False)
    assert isinstance(second, NotStored)
    assert second.is_retryable


async def test_leaving_early_leaves_no_subscription(connection, queue) -> None:
    """An iterator closed half-way takes its inbox along."""
    before = len(connection.client._subs)
    messages = (Outgoing(b"%d" % i) for i in range(10_000))
    async with aclosing(submit(connection, queue.subject, messages)) as found:
        await anext(found)

    assert len(connection.client._subs) == before


async def test_lost_messages_are_found_and_retried_by_id(
    server: NatsServer,
    new_wire: Callable[[NatsServer], Awaitable[Wire]],
    connection: Connection,
    queue: QueueSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that dies half-way loses nothing and doubles nothing."""
    monkeypatch.setattr(publish, "CONFIRM_TIMEOUT", 0.5)
    monkeypatch.setattr(client_module, "RECONNECT_WAIT", 0.05)
    wire = await new_wire(server)
    messages = [Outgoing(b"%d" % i, f"id-{i}") for i in range(3000)]

    def cutting() -> Iterator[Outgoing]:
        for i, message in enumerate(messages):
            if i in (500, 1500):
                wire.cut()
            yield message

    async with await Connection.open(Endpoint(urls=(wire.url,))) as other:
        first = await receipts(other, queue, cutting())
        lost = [
            message
            for message, receipt in zip(messages, first, strict=True)
            if isinstance(receipt, NotStored)
        ]
        again = await receipts(other, queue, lost)

    assert lost
    assert all(isinstance(receipt, Stored) for receipt in again)
    assert await stored(connection, queue) == len(messages)


async def test_client_replaced_half_way_is_followed(
    connection: Connection, queue: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an -ERR the rest goes over the new client."""
    monkeypatch.setattr(publish, "WINDOW", 1)
    monkeypatch.setattr(connection_module, "REBUILD_DELAYS", (0.05, 0.2))
    found = submit(connection, queue.subject, [Outgoing(b"%d" % i) for i in range(20)])
    first = [await anext(found) for _ in range(10)]
    up = asyncio.Event()
    connection.on_up.append(up.set)
    connection.client._transport.write(b"NONSENSE\r\n")
    await asyncio.wait_for(up.wait(), 5)
    rest = [receipt async for receipt in found]

    assert first + rest == [Stored(seq, duplicate=False) for seq in range(1, 21)]


async def test_server_that_stays_away_ends_the_submitting(
    new_server: Callable[..., NatsServer],
    names: QueueSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody waits for ever for a server that is gone."""
    monkeypatch.setattr(publish, "CONFIRM_TIMEOUT", 0.2)
    server = new_server()
    async with await Connection.open(Endpoint(urls=(server.url,))) as connection:
        server.kill()
        async with asyncio.timeout(5):
            while connection.is_up:  # noqa: ASYNC110 - nothing signals the loss
                await asyncio.sleep(0)

        with pytest.raises(QueueError, match="has been away for"):
            await receipts(connection, names, [Outgoing(b"x")])

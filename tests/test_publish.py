"""Confirmed publishing of many messages, against real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import aclosing

import pytest
from queues import setup
from servers import NatsServer, Wire

from bwpool.errors import InvalidJob, QueueError
from bwpool.queue import client as client_module
from bwpool.queue import connection as connection_module
from bwpool.queue import publish
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.publish import Message, Outcome, Stored, publish_all
from bwpool.settings import QueueSettings


async def receipts(
    connection: Connection, names: QueueSettings, messages: Iterable[Message]
) -> list[Outcome]:
    """Publish with the seed's limit, and collect what comes back."""
    found = publish_all(connection, names.subject, messages, 512)
    return [outcome async for outcome in found]


async def stored(connection: Connection, names: QueueSettings) -> int:
    """Count what the stream holds."""
    info = await connection.api(f"STREAM.INFO.{names.stream}")
    return int(info["state"]["messages"])


async def test_receipts_come_in_order_beyond_the_window(connection, queue) -> None:
    """Thousands of messages get their sequences one by one."""
    count = 2 * publish.IN_FLIGHT + 7
    messages = (Message(b"%d" % i) for i in range(count))

    found = await receipts(connection, queue, messages)

    assert found == [Stored(seq, duplicate=False) for seq in range(1, count + 1)]
    assert await stored(connection, queue) == count


async def test_same_id_is_stored_once(connection, queue) -> None:
    """A message with a known id answers with the first one's sequence."""
    messages = [Message(b"a", "id-1"), Message(b"b"), Message(b"a", "id-1")]

    found = await receipts(connection, queue, messages)

    assert [(each.seq, each.duplicate) for each in found] == [
        (1, False),
        (2, False),
        (1, True),
    ]


async def test_size_limit_is_computed_and_explained(connection, queue) -> None:
    """Exactly the limit is stored; a byte more is refused, and the rest goes on."""
    messages = [Message(bytes(512)), Message(bytes(513)), Message(b"")]

    fits, too_long, empty = await receipts(connection, queue, messages)

    assert fits == Stored(1, duplicate=False)
    assert isinstance(too_long, InvalidJob)
    assert "513 bytes, headers included" in too_long.reason
    assert "at most 512" in too_long.reason
    assert empty == Stored(2, duplicate=False)


async def test_id_counts_against_the_limit(connection, queue) -> None:
    """An id costs 27 bytes and itself, as the server counts it."""
    key = "ä-id"
    room = 512 - 27 - len(key.encode())
    messages = [Message(bytes(room), key), Message(bytes(room + 1), key + "x")]

    fits, too_long = await receipts(connection, queue, messages)

    assert fits == Stored(1, duplicate=False)
    assert isinstance(too_long, InvalidJob)


async def test_single_message_is_stored_or_refused(connection, queue) -> None:
    """One message is a pipeline of one; too long a one is raised."""
    stored_one = await publish.publish(connection, queue.subject, Message(b"1"), 512)

    with pytest.raises(InvalidJob):
        await publish.publish(connection, queue.subject, Message(bytes(513)), 512)

    assert stored_one == Stored(1, duplicate=False)


async def test_refusal_of_the_server_is_explained(connection, queue) -> None:
    """A size limit that the caller didn't know is told by the server."""
    found = publish_all(connection, queue.subject, [Message(bytes(600))], -1)

    (outcome,) = [outcome async for outcome in found]

    assert isinstance(outcome, InvalidJob)
    assert "max_msg_size" in outcome.reason


async def test_subject_without_stream_is_explained(
    connection: Connection, names: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no stream listens for long, the command that makes one is named."""
    monkeypatch.setattr(publish, "REFUSED_PAUSE", 0.01)
    with pytest.raises(QueueError, match=r"no stream stores .*: run bwpool setup"):
        await receipts(connection, names, [Message(b"x")])


async def test_full_stream_ends_the_publishing(connection, names) -> None:
    """What the server says of a stream at its limit is passed on."""
    config = {
        "name": names.stream,
        "subjects": [names.subject],
        "max_msgs": 1,
        "discard": "new",
    }
    await connection.api(f"STREAM.CREATE.{names.stream}", config)

    with pytest.raises(QueueError, match="maximum messages exceeded"):
        await receipts(connection, names, [Message(b"1"), Message(b"2")])


async def test_silence_is_given_up_after_a_few_tries(
    connection: Connection, names: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that never confirms is no stream."""
    monkeypatch.setattr(publish, "CONFIRM_WITHIN", 0.02)
    heard = await connection.client.subscribe(names.subject)

    with pytest.raises(QueueError, match="does not confirm"):
        await receipts(connection, names, [Message(b"x"), Message(b"y")])

    assert heard.pending_msgs == 2 * publish.TRIES


async def test_leaving_early_leaves_no_subscription(connection, queue) -> None:
    """An iterator closed half-way takes its inbox along."""
    before = len(connection.client._subs)
    messages = (Message(b"%d" % i) for i in range(10_000))
    async with aclosing(publish_all(connection, queue.subject, messages, -1)) as found:
        await anext(found)

    assert len(connection.client._subs) == before


async def test_messages_lost_on_the_way_are_sent_again(
    server: NatsServer,
    new_wire: Callable[[NatsServer], Awaitable[Wire]],
    queue: QueueSettings,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A connection that dies half-way, twice, loses nothing and doubles nothing."""
    monkeypatch.setattr(publish, "CONFIRM_WITHIN", 0.3)
    monkeypatch.setattr(client_module, "RECONNECT_WAIT", 0.05)
    wire = await new_wire(server)

    def messages() -> Iterator[Message]:
        for i in range(5000):
            if i in (1500, 3500):
                wire.cut()
            yield Message(b"%d" % i, f"id-{i}")

    async with await Connection.open(Endpoint(urls=(wire.url,))) as other:
        found = await receipts(other, queue, messages())

    assert all(isinstance(outcome, Stored) for outcome in found)
    assert wire.connections > 1
    assert await stored(connection, queue) == 5000


async def test_client_replaced_half_way_is_followed(
    connection: Connection, queue: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an -ERR the rest goes over the new client."""
    monkeypatch.setattr(publish, "IN_FLIGHT", 1)
    monkeypatch.setattr(connection_module, "REBUILD_DELAYS", (0.05, 0.2))
    messages = [Message(b"%d" % i) for i in range(20)]
    found = publish_all(connection, queue.subject, messages, -1)
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
    monkeypatch.setattr(publish, "AWAY_FOR", 0.2)
    server = new_server()
    async with await Connection.open(Endpoint(urls=(server.url,))) as connection:
        server.kill()
        async with asyncio.timeout(5):
            while connection.is_up:
                await asyncio.sleep(0)

        with pytest.raises(QueueError, match="has been away for"):
            await receipts(connection, names, [Message(b"x")])


async def test_stream_that_is_away_for_a_moment_is_waited_for(
    connection: Connection, names: QueueSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its leader changes a stream looks as if it were not there."""
    monkeypatch.setattr(publish, "REFUSED_PAUSE", 0.05)
    messages = [Message(b"%d" % i, f"id-{i}") for i in range(20)]
    refused = asyncio.Event()

    async def note(_msg: object) -> None:
        refused.set()

    await connection.client.subscribe("_INBOX.>", cb=note)
    publishing = asyncio.ensure_future(receipts(connection, names, messages))
    await asyncio.wait_for(refused.wait(), 5)
    await setup(connection, names)

    assert all(isinstance(outcome, Stored) for outcome in await publishing)
    assert await stored(connection, names) == 20

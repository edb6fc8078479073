"""Records of failures, and which messages are dead, on real servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from queues import deliver, let_one_die, make_consumer, setup
from servers import NatsServer

from bwpool.errors import QueueError
from bwpool.queue.connection import Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.dead import Failed, list_failed
from bwpool.queue.failures import ConverterEnd, FailureRecord, has_record, store
from bwpool.queue.topology import FAILURES_STREAM, wanted
from bwpool.settings import QueueSettings

JOB = b'{"id":"a1","image":"file:///a.jpg"}'
NOON = datetime(2026, 7, 22, 12, tzinfo=UTC)


def record(names: QueueSettings, **fields: Any) -> FailureRecord:
    """Make a record of a last attempt, unless told otherwise."""
    values: dict[str, Any] = {
        "stream": names.stream,
        "consumer": names.consumer,
        "seq": 1,
        "attempt": 5,
        "max_deliver": 5,
        "final": True,
        "kind": "bad-image",
        "reason": "not a picture",
        "subject": names.subject,
        "payload": JOB,
    }
    return FailureRecord(**values | fields)


async def listed(connection: Connection, names: QueueSettings) -> list[Failed]:
    """List the dead messages of a queue."""
    return [row async for row in list_failed(connection, names)]


async def kept(connection: Connection) -> int:
    """Count what the failures stream holds."""
    info = await connection.api(f"STREAM.INFO.{FAILURES_STREAM}")
    return int(info["state"]["messages"])


def test_record_is_written_as_the_contract_says() -> None:
    """Every field by its name, in order, times in UTC with a Z."""
    converter = ConverterEnd(pid=7, signal=9, max_rss_bytes=10, stderr="oops")
    written = record(
        QueueSettings(),
        seq=121,
        time=NOON,
        host="h",
        elapsed=0.02,
        id="a1",
        image="file:///a.jpg",
        converter=converter,
    ).to_json()

    assert written.decode() == (
        '{"v":1,"stream":"IMAGES","consumer":"BW","seq":121,"attempt":5,'
        '"max_deliver":5,"final":true,"kind":"bad-image","reason":"not a picture",'
        '"id":"a1","image":"file:///a.jpg","subject":"IMAGES.blackandwhite",'
        '"payload":"{\\"id\\":\\"a1\\",\\"image\\":\\"file:///a.jpg\\"}",'
        '"time":"2026-07-22T12:00:00Z","host":"h","elapsed":0.02,'
        '"converter":{"pid":7,"exitcode":null,"signal":9,"max_rss_bytes":10,'
        '"stderr":"oops"}}'
    )


def test_payload_that_is_no_text_is_written_as_base64() -> None:
    """What isn't UTF-8 takes `payload_b64` instead of `payload`."""
    written = orjson.loads(record(QueueSettings(), payload=b"\xff\x00").to_json())

    assert written["payload_b64"] == "/wA="
    assert "payload" not in written
    assert (written["id"], written["image"], written["converter"]) == (None,) * 3


def test_surrogates_are_escaped() -> None:
    """Names that are no UTF-8 come with them, and JSON has no way to hold them."""
    converter = ConverterEnd(pid=1, stderr="b\udc80")
    written = record(QueueSettings(), reason="a\udcff", converter=converter)
    read = FailureRecord.from_json(written.to_json())

    assert read == written
    assert read.reason == "a\\udcff"
    assert read.converter is not None
    assert read.converter.stderr == "b\\udc80"


@settings(max_examples=50)
@given(st.none() | st.binary(), st.booleans(), st.text())
def test_records_survive_the_round_trip(payload, has_converter, reason) -> None:
    """What is written is read back as it was."""
    converter = ConverterEnd(pid=1) if has_converter else None
    before = record(
        QueueSettings(),
        payload=payload,
        converter=converter,
        reason=reason,
    )

    assert FailureRecord.from_json(before.to_json()) == before


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"v":1}', b'{"v":2}', b"\xff"])
def test_rubbish_is_no_record(data) -> None:
    """Whatever else is on those subjects is told apart."""
    with pytest.raises(ValueError):  # noqa: PT011 - of whatever kind
        FailureRecord.from_json(data)


async def test_stored_record_is_kept_once(connection, queue) -> None:
    """A repeated store, after a lost confirmation, adds nothing."""
    one = record(queue)
    await store(connection, one)
    await store(connection, one)
    await store(connection, record(queue, attempt=4))

    assert await kept(connection) == 2


async def test_store_without_failures_stream_is_an_error(connection, names) -> None:
    """Where nothing keeps records, that is said with the way out."""
    with pytest.raises(QueueError, match=r"no stream BWPOOL_FAILURES.*bwpool setup"):
        await store(connection, record(names))


async def test_store_that_is_refused_is_an_error(connection, names) -> None:
    """A failures stream that takes nothing more is told in the server's words."""
    full = wanted(names).failures | {"max_msgs": 1, "discard": "new"}
    await connection.api(f"STREAM.CREATE.{FAILURES_STREAM}", full)
    await store(connection, record(names))

    with pytest.raises(QueueError, match="maximum messages exceeded"):
        await store(connection, record(names, attempt=4))


async def test_record_too_long_for_the_server_is_shortened(connection, queue) -> None:
    """Long texts, then the payload, are left out rather than the record."""
    size = connection.client.max_payload
    await connection.request(queue.subject, JOB)
    wordy = ConverterEnd(pid=1, stderr="x" * size + "the end")
    await store(connection, record(queue, converter=wordy, payload=b"\x01" * size))
    answer = await connection.api(
        f"STREAM.MSG.GET.{FAILURES_STREAM}",
        {"last_by_subj": f"bwpool.failures.{queue.stream}.{queue.consumer}.1"},
    )

    assert len(answer["message"]["data"]) < 10_000
    assert await has_record(connection, queue.stream, queue.consumer, 1, 6)


async def test_earlier_attempts_are_known_by_their_records(connection, queue) -> None:
    """Only records of attempts before the given one count."""

    async def known(before_attempt: int) -> bool:
        return await has_record(
            connection, queue.stream, queue.consumer, 1, before_attempt
        )

    await connection.request(queue.subject, JOB)
    nothing = await known(5)
    await store(connection, record(queue, attempt=3))
    after_third = [await known(attempt) for attempt in (3, 4, 5)]
    await store(connection, record(queue, attempt=5))
    after_fifth = [await known(attempt) for attempt in (3, 4, 5)]

    assert not nothing
    assert after_third == [False, True, True]
    assert after_fifth == [False, True, True]


async def test_records_of_a_former_stream_are_not_believed(connection, queue) -> None:
    """A re-created stream counts from 1 again; old records aren't about its jobs."""
    await connection.request(queue.subject, JOB)
    await store(connection, record(queue))
    await connection.api(f"STREAM.DELETE.{queue.stream}")
    await setup(connection, queue)
    await connection.request(queue.subject, JOB)

    before = await has_record(connection, queue.stream, queue.consumer, 1, 6)
    rows = await listed(connection, queue)
    await store(connection, record(queue))

    assert not before
    assert rows == []
    assert await has_record(connection, queue.stream, queue.consumer, 1, 6)


async def test_clock_of_the_supervisor_does_not_matter(connection, queue) -> None:
    """A supervisor whose clock is years behind still leaves valid records."""
    await connection.request(queue.subject, JOB)
    await store(connection, record(queue, time=datetime(1999, 1, 1, tzinfo=UTC)))

    assert await has_record(connection, queue.stream, queue.consumer, 1, 6)


async def test_dead_message_is_listed_with_its_last_record(connection, queue) -> None:
    """Kind and reason from the record, id and image from the message."""
    await connection.request(queue.subject, JOB)
    await store(
        connection, record(queue, attempt=4, final=False, kind="conversion-timeout")
    )
    await deliver(connection, queue)
    retried = await listed(connection, queue)
    await store(connection, record(queue, time=NOON))

    assert retried == []
    assert await listed(connection, queue) == [
        Failed(
            seq=1,
            id="a1",
            image="file:///a.jpg",
            kind="bad-image",
            reason="not a picture",
            attempts=5,
            time="2026-07-22T12:00:00Z",
        )
    ]


async def test_message_that_is_gone_is_not_listed(connection, queue) -> None:
    """A record outlives its message; the list doesn't show it."""
    await connection.request(queue.subject, JOB)
    await deliver(connection, queue)
    await store(connection, record(queue))
    await connection.api(f"STREAM.MSG.DELETE.{queue.stream}", {"seq": 1})

    assert await listed(connection, queue) == []


async def test_dead_without_a_record_is_of_unknown_kind(connection, queue) -> None:
    """Who died under somebody else's worker is listed from the server's advisory."""
    await make_consumer(connection, queue, max_deliver=2)
    await let_one_die(connection, queue)
    await connection.request(queue.subject, JOB)
    await deliver(connection, queue)

    async with asyncio.timeout(5):
        # The advisory is stored a moment after the death.
        while not (rows := await listed(connection, queue)):
            await asyncio.sleep(0.01)

    assert [(row.seq, row.kind, row.attempts, row.id) for row in rows] == [
        (1, "unknown", 2, None)
    ]


async def test_dead_without_record_or_advisory_shows_once_idle(
    connection, names
) -> None:
    """Even where nothing was captured, what is left when all is done is dead."""
    topology = wanted(names)
    await connection.api(f"STREAM.CREATE.{names.stream}", topology.stream)
    await make_consumer(connection, names, max_deliver=2)
    await let_one_die(connection, names)
    await connection.request(names.subject, JOB)

    rows = await listed(connection, names)

    assert [(row.seq, row.kind, row.attempts) for row in rows] == [(1, "unknown", 2)]


async def test_waiting_and_delivered_messages_are_not_listed(connection, queue) -> None:
    """A busy queue without failures has an empty list."""
    for _ in range(3):
        await connection.request(queue.subject, JOB)
    await deliver(connection, queue)

    assert await listed(connection, queue) == []


async def test_many_dead_are_listed_in_order(connection, queue) -> None:
    """More dead than are looked up at once, oldest first, rubbish payloads included."""
    for payload in (JOB, b"{}", b"\xff", b"[1]", b'{"id":5}') * 30:
        await connection.request(queue.subject, payload)
    for seq in range(1, 151):
        await deliver(connection, queue)
        await store(connection, record(queue, seq=seq))

    rows = await listed(connection, queue)

    assert [row.seq for row in rows] == list(range(1, 151))
    assert {row.id for row in rows} == {"a1", None}


async def test_rubbish_on_a_record_subject_is_ignored(connection, queue) -> None:
    """Whoever publishes nonsense there spoils nothing."""
    await connection.request(queue.subject, JOB)
    await deliver(connection, queue)
    subject = f"bwpool.failures.{queue.stream}.{queue.consumer}.1"
    await connection.request(subject, b"nonsense")

    assert await listed(connection, queue) == []
    assert not await has_record(connection, queue.stream, queue.consumer, 1, 6)


async def test_list_without_queue_says_how_to_get_one(connection, names) -> None:
    """Nothing to list on is not an empty list."""
    with pytest.raises(QueueError, match="run bwpool setup"):
        await listed(connection, names)


async def test_dead_stay_listed_after_a_restart(
    new_server: Callable[..., NatsServer], names
) -> None:
    """Servers differ in what becomes of the dead at a restart; the list doesn't."""
    server = new_server()
    endpoint = Endpoint(urls=(server.url,))
    async with await Connection.open(endpoint) as connection:
        await setup(connection, names)
        await make_consumer(connection, names, max_deliver=2)
        await let_one_die(connection, names)
        await store(connection, record(names))
    server.stop()
    server.start()
    async with await Connection.open(endpoint) as connection:
        rows = await listed(connection, names)

    assert [(row.seq, row.kind) for row in rows] == [(1, "bad-image")]

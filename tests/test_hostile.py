"""Deliveries that are not what they should be, by accident or by intent."""

from __future__ import annotations

import signal
from collections import Counter

import orjson
import pytest
from processes import consumer_info, eventually, publish, said, stored, supervise
from queues import change_stream, deliver, make_consumer, setup

from bwpool.queue.dead import list_failed
from bwpool.queue.drift import FAILURES_STREAM
from bwpool.queue.failures import last_record
from bwpool.queue.messages import get_message


def conversions(out):
    """How often each job was converted."""
    return Counter({path.name: len(path.read_text().split()) for path in out.iterdir()})


@pytest.fixture
def out(tmp_path):
    """Where conversions leave their mark."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


async def test_a_payload_garbled_in_transit_costs_one_attempt(
    server, connection, names, out, new_wire
):
    """What was incurable with other bytes is tried again, and done."""
    await setup(connection, names)
    wire = await new_wire(server)
    wire.garble = (b'"id":"ok-1"', b'"id";"ok-1"')
    await publish(connection, names, {"id": "ok-1", "image": "file:///x"})
    async with supervise(wire.url, names, out, burst=True) as supervisor:
        code = await supervisor.wait()

    assert wire.garble is None
    assert b"invalid-job" in supervisor.stderr
    assert code == 0, supervisor.stderr.decode()
    assert Counter({"ok-1": 1}) == conversions(out)
    assert await stored(connection, names) == 0


def nested(field, depth):
    """A job with so many arrays around nothing in one of its fields."""
    fields = {"id": '"x"', "image": '"file:///x"', field: "[" * depth + "]" * depth}
    pairs = [f'"{name}":{value}' for name, value in fields.items()]
    return f"{{{','.join(pairs)}}}".encode()


async def test_what_is_nested_deep_is_an_invalid_job(server, connection, names, out):
    """In whichever field, and as deep as JSON is read at all; the burst ends."""
    await setup(connection, names)
    await change_stream(connection, names.stream, max_msg_size=4096)
    fields = ("id", "image", "advisory", "method", "format", "quality", "else")
    for depth in (400, 700, 1000, 1020, 2000):
        for field in fields:
            await publish(connection, names, nested(field, depth))
    await publish(connection, names, {"id": "ok-1", "image": "file:///x"})
    async with supervise(server.url, names, out, burst=True) as supervisor:
        assert await supervisor.wait(20) == 1
    kinds = Counter([row.kind async for row in list_failed(connection, names)])

    # Of those in a field that is ignored, the last is too deep to be read at all.
    assert Counter({"invalid-job": 5 * len(fields) - 4}) == kinds
    assert b"delivery.bug" not in supervisor.stderr
    assert conversions(out)["ok-1"] == 1


BUGS = [
    "bwpool.lifecycle.parse_job",
    "bwpool.lifecycle.judge",
    "bwpool.deliveries.failure_record",
    "bwpool.deliveries.has_failed",
    "bwpool.deliveries.rescue",
    "bwpool.deliveries.clear_up",
    "bwpool.lifecycle.ClearUp",
    "bwpool.deliveries.Reported",
    "bwpool.deliveries.Settlement",
]


@pytest.mark.parametrize("place", BUGS)
async def test_a_bug_at_any_step_leaves_no_lease_hanging(
    server, connection, names, out, place
):
    """It is told, each job is done or dead, and the burst ends."""
    await setup(connection, names)
    await make_consumer(connection, names, max_deliver=3)
    image = {"image": "file:///x"}
    await publish(connection, names, image | {"id": "ok-innocent"})
    message = await deliver(connection, names)
    await connection.request(message.reply, b"-NAK")
    headers = {"Nats-Msg-Id": "rq:1.AAAAAAAAAAAAAAAA"}
    copy = orjson.dumps(image | {"id": "ok-copy"})
    await connection.request(names.subject, copy, headers=headers)
    for what in ("bad", "ok"):
        await publish(connection, names, image | {"id": f"{what}-1"})
    async with supervise(
        server.url, names, out, burst=True, bugs=[place]
    ) as supervisor:
        assert await supervisor.wait(20) in (0, 1)
    info = await consumer_info(connection, names)
    dead = [row.id async for row in list_failed(connection, names)]

    assert b"delivery.bug" in supervisor.stderr
    assert b"nobody foresaw this" in supervisor.stderr
    assert (info["num_pending"], info["num_ack_pending"]) == (0, 0)
    assert await stored(connection, names) == len(dead)
    assert {"ok-innocent", "ok-copy", "bad-1", "ok-1"} == {*conversions(out), *dead}


@pytest.mark.parametrize(("room", "is_kept"), [(700, True), (100, False)])
async def test_a_record_refused_for_its_size_shrinks_or_is_dropped(
    server, connection, names, out, room, is_kept
):
    """First its payload is left out, then the record; the delivery ends either way."""
    await setup(connection, names)
    await change_stream(connection, FAILURES_STREAM, max_msg_size=room)
    job = {"id": "bad-1", "image": "file:///x", "else": "x" * 400}
    seq = await publish(connection, names, job)
    async with supervise(server.url, names, out, burst=True) as supervisor:
        assert await supervisor.wait(20) == 1
    message = await get_message(connection, names.stream, {"seq": seq})
    record = await last_record(connection, names.stream, names.consumer, message)

    if is_kept:
        assert (record.kind, record.final, record.payload) == ("bad-image", True, None)
    else:
        assert record is None
        assert b"delivery.refused" in supervisor.stderr
        assert b"max_msg_size" in supervisor.stderr


async def test_a_failure_keeps_its_lease_while_records_can_not_be_stored(
    server, connection, names, out
):
    """The failures stream is away for a while: the record comes when it is back."""
    await setup(connection, names)
    await make_consumer(connection, names, max_deliver=1)
    async with supervise(server.url, names, out) as supervisor:
        await supervisor.line()
        await connection.api(f"STREAM.DELETE.{FAILURES_STREAM}")
        seq = await publish(connection, names, {"id": "bad-1", "image": "file:///x"})
        await said(supervisor, "queue.request_failed")
        info = await consumer_info(connection, names)
        await setup(connection, names)
        message = await get_message(connection, names.stream, {"seq": seq})

        async def record():
            names_ = names.stream, names.consumer
            return await last_record(connection, *names_, message)

        kept = await eventually(record)
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait() == 0

    assert info["num_ack_pending"] == 1
    assert (kept.kind, kept.final) == ("bad-image", True)

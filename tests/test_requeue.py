"""Messages put back into the queue, whatever ids others have used."""

from __future__ import annotations

import signal

import orjson
import pytest
from processes import (
    bwpool,
    consumer_info,
    create_seed_topology,
    environment,
    eventually,
    publish,
    said,
    stored,
    supervise,
)
from queues import change_stream, deliver, make_consumer

from bwpool.queue import requeue
from bwpool.queue.dead import list_failed
from bwpool.queue.facts import read_facts
from bwpool.queue.lease import MSG_ID, RESCUED, read_lease
from bwpool.queue.messages import get_message, messages_on, nanoseconds
from bwpool.queue.requeue import put_back, remove_original

JOB = b'{"id":"sleep60-1","image":"file:///x"}'
FORGED = b'{"id":"ok-1","image":"file:///forged"}'


async def publish_as(connection, names, payload, msg_id, **headers):
    """Publish with an id that the publisher has chosen; return the sequence."""
    headers |= {MSG_ID: msg_id}
    reply = await connection.request(names.subject, payload, headers=headers)
    return orjson.loads(reply.data)["seq"]


async def message_at(connection, names, seq):
    return await get_message(connection, names.stream, {"seq": seq})


async def payloads(connection, names):
    """Everything that the stream holds, oldest first."""
    walk = messages_on(connection, names.stream, ">")
    return [message.payload async for message in walk]


async def leased(connection, names):
    msg = await deliver(connection, names)
    return read_lease(msg.subject, msg.data, msg.headers, msg.reply)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("2026-11-24T16:00:00.123456789Z", 1_795_536_000_123_456_789),
        ("2026-11-24T16:00:00.000000001Z", 1_795_536_000_000_000_001),
        ("2026-11-24T17:00:00.1+01:00", 1_795_536_000_100_000_000),
    ],
)
def test_times_are_read_to_the_nanosecond(stamp, expected):
    """With as many digits as the server writes, and whatever its time zone."""
    assert nanoseconds(stamp) == expected


async def test_a_delivery_and_the_stored_message_agree_on_the_time(connection, queue):
    """So both lead to the same id."""
    for number in range(20):
        seq = await publish(connection, queue, {"id": f"{number}"})
        lease = await leased(connection, queue)

        assert (await message_at(connection, queue, seq)).stored == lease.stored


async def test_a_message_put_back_twice_is_stored_once(connection, queue):
    """By whoever knows it from a delivery, and whoever has read it."""
    facts = await read_facts(connection, queue)
    seq = await publish(connection, queue, JOB)
    lease = await leased(connection, queue)
    first = await put_back(connection, facts, lease)
    again = await put_back(connection, facts, await message_at(connection, queue, seq))

    assert (first, again) == (2, 2)
    assert await stored(connection, queue) == 2


@pytest.mark.parametrize("is_there", [True, False], ids=["another", "gone"])
async def test_an_id_that_others_have_used_loses_nothing(connection, queue, is_there):
    """A duplicate that is another message, or no message, is no copy."""
    facts = await read_facts(connection, queue)
    seq = await publish(connection, queue, JOB)
    original = await message_at(connection, queue, seq)
    copy_id = requeue._copy_id(facts, original)
    forged = await publish_as(connection, queue, FORGED, copy_id)
    if not is_there:
        await connection.api(f"STREAM.MSG.DELETE.{queue.stream}", {"seq": forged})
    new = await put_back(connection, facts, original)
    copy = await message_at(connection, queue, new)

    assert new > forged
    assert (copy.payload, copy.headers) == (JOB, {})


async def test_a_copy_leads_to_its_original(connection, queue):
    """What a supervisor left that died after it put the job back is removed."""
    facts = await read_facts(connection, queue)
    seq = await publish(connection, queue, JOB)
    await put_back(connection, facts, await leased(connection, queue))
    copy = await leased(connection, queue)

    assert copy.is_copy
    await remove_original(connection, facts, copy)
    assert await message_at(connection, queue, seq) is None
    assert await message_at(connection, queue, copy.seq) is not None


@pytest.mark.parametrize(
    "msg_id",
    [
        "rq:1",
        "rq:0",
        "rq:-1",
        "rq:99999999999999999999",
        "rq:1.AAAAAAAAAAAAAAAA",
        "rq:2.AAAAAAAAAAAAAAAA",
        "rq:99999999999999999999.AAAAAAAAAAAAAAAA",
    ],
)
async def test_a_forged_id_removes_nothing_and_hangs_nobody(
    server, connection, names, tmp_path, msg_id
):
    """Even with the content of another job, which a supervisor is still doing."""
    await create_seed_topology(connection, names)
    await publish(connection, names, JOB)
    await deliver(connection, names)  # somebody works on it
    ok = JOB.replace(b"sleep60", b"ok")
    await publish_as(connection, names, ok, msg_id)
    async with supervise(server.url, names, tmp_path) as supervisor:
        await supervisor.line()
        await eventually(lambda: is_left(connection, names, [JOB]))
        supervisor.send(signal.SIGTERM)
        assert await supervisor.wait(5) == 0

    assert await payloads(connection, names) == [JOB]


async def is_left(connection, names, expected):
    return await payloads(connection, names) == expected


async def test_requeued_jobs_can_not_be_forged_away(
    server, connection, queue, tmp_path
):
    """Somebody published `rq:1` to `rq:n` before they were put back: none is lost."""
    await make_consumer(connection, queue, max_deliver=1)
    bad = [orjson.dumps({"id": f"bad-{i}", "image": "file:///x"}) for i in range(20)]
    for payload in bad:
        await publish(connection, queue, payload)
    async with supervise(server.url, queue, tmp_path, burst=True) as supervisor:
        await supervisor.wait()
    for seq in range(1, 41):
        await publish_as(connection, queue, FORGED, f"rq:{seq}")
    argv = ("failed", "requeue", "--all")
    async with bwpool(*argv, env=environment(server, queue)) as command:
        assert await command.wait() == 0, command.stderr.decode()

    assert sorted(bad) == sorted(set(await payloads(connection, queue)) - {FORGED})
    assert [row async for row in list_failed(connection, queue)] == []


async def test_what_a_drain_puts_back_can_not_be_forged_away(
    server, connection, names, tmp_path
):
    """The id of a last delivery's copy was taken, by a job that is done and gone."""
    await create_seed_topology(connection, names, max_deliver=1)
    await publish(connection, names, JOB)
    await publish_as(connection, names, FORGED, "rq:1")
    async with supervise(server.url, names, tmp_path, drain_timeout=0.2) as drained:
        await drained.line()
        await eventually(lambda: is_left(connection, names, [JOB]))
        drained.send(signal.SIGTERM)
        assert await drained.wait(15) == 0

    info = await consumer_info(connection, names)
    assert await payloads(connection, names) == [JOB]
    assert info["num_pending"] == 1


async def test_what_a_rescue_puts_back_can_not_be_forged_away(
    server, connection, names, tmp_path
):
    """A job whose supervisors were killed is put back, though its id was taken."""
    await create_seed_topology(connection, names, max_deliver=2, ack_wait=500_000_000)
    innocent = {"id": "begin1-1", "image": "file:///x"}
    await publish(connection, names, innocent)
    await publish_as(connection, names, FORGED, "rq:1")
    async with supervise(server.url, names, tmp_path) as killed:
        await eventually(lambda: is_there(tmp_path / "begun"))
        await killed.kill()
    async with supervise(server.url, names, tmp_path) as survivor:
        rescued = await said(survivor, "job.rescued")
        await eventually(lambda: is_left(connection, names, []))

    assert rescued["new_seq"] > 2
    assert (tmp_path / "begin1-1").exists()


async def is_there(path):
    return path.exists()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (440, {RESCUED, MSG_ID}),
        (460, {RESCUED}),
        (481, {RESCUED}),
        (482, set()),
        (512, set()),
    ],
)
async def test_the_mark_of_a_rescue_goes_before_the_id(
    connection, queue, size, expected
):
    """On a stream of 512-byte messages, what bounds rescues is left out last."""
    await change_stream(connection, queue.stream, max_msg_size=512)
    facts = await read_facts(connection, queue)
    await publish(connection, queue, b"x" * size)
    lease = await leased(connection, queue)
    new = await put_back(connection, facts, lease, {RESCUED: "1"})
    copy = await message_at(connection, queue, new)

    assert copy.payload == b"x" * size
    assert expected == set(copy.headers)

"""Setting up a queue on real servers, and what setup leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from queues import (
    change_stream,
    check,
    consumer_config,
    deliver,
    let_one_die,
    make_consumer,
    setup,
    stream_config,
)
from servers import NatsServer

from bwpool.errors import ConfigError, QueueError
from bwpool.queue.connection import ApiError, Connection
from bwpool.queue.contexts import Endpoint
from bwpool.queue.drift import SECOND
from bwpool.queue.topology import (
    ADVISORIES,
    FAILURES_STREAM,
    apply,
    inspect,
    read_facts,
    wanted,
)
from bwpool.settings import QueueSettings

SEED_STREAM = {
    "name": "IMAGES",
    "subjects": ["IMAGES.>"],
    "retention": "workqueue",
    "max_consumers": -1,
    "max_msgs_per_subject": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msg_size": 512,
    "storage": "file",
    "discard": "old",
    "num_replicas": 1,
    "duplicate_window": 3600000000000,
    "compression": "none",
    "sealed": False,
    "deny_delete": False,
    "deny_purge": False,
    "allow_rollup_hdrs": False,
    "allow_direct": True,
    "mirror_direct": False,
    "consumer_limits": {},
}
SEED_CONSUMER = {
    "ack_policy": "explicit",
    "ack_wait": 30000000000,
    "deliver_policy": "all",
    "durable_name": "BW",
    "name": "BW",
    "filter_subject": "IMAGES.blackandwhite",
    "max_deliver": 5,
    "replay_policy": "instant",
    "num_replicas": 0,
}


def test_wanted_is_what_the_seed_creates() -> None:
    """The two `nats` commands of the seed, field by field."""
    topology = wanted(QueueSettings())

    assert topology.stream == SEED_STREAM
    assert topology.consumer == SEED_CONSUMER


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (QueueSettings(stream="a.b", subject="a.b.c"), "--stream 'a.b'"),
        (QueueSettings(consumer=""), "--consumer ''"),
        (QueueSettings(consumer="B W"), "--consumer 'B W'"),
        (QueueSettings(subject="OTHER.x"), "--subject OTHER.x.*start with IMAGES"),
    ],
)
def test_impossible_names_are_config_errors(names, message) -> None:
    """Names that JetStream refuses are refused before, with the option's name."""
    with pytest.raises(ConfigError, match=message):
        wanted(names)


async def test_empty_server_gets_everything(connection, names) -> None:
    """One stream, one consumer, one failures stream; then nothing is left to do."""
    before = await setup(connection, names)
    after = await check(connection, names)

    assert [str(change).split("  ")[0] for change in before.changes] == [
        f"+ stream {names.stream}",
        f"+ consumer {names.consumer}",
        f"+ stream {FAILURES_STREAM}",
    ]
    assert "max_msg_size 512" in str(before)
    assert "duplicate_window 1 h" in str(before)
    assert after.is_empty
    assert str(after) == ""


async def test_what_the_seed_created_is_left_alone(connection) -> None:
    """A topology made with the `nats` commands needs the failures stream only."""
    await connection.api("STREAM.CREATE.IMAGES", SEED_STREAM)
    body = {
        "stream_name": "IMAGES",
        "config": SEED_CONSUMER | {"pause_until": "0001-01-01T00:00:00Z"},
        "action": "",
    }
    await connection.api("CONSUMER.CREATE.IMAGES.BW.IMAGES.blackandwhite", body)

    todo = await check(connection, QueueSettings())

    assert [change.name for change in todo.changes] == [FAILURES_STREAM]


async def test_racing_setups_agree(connection, names) -> None:
    """Any number of setups at once end in one topology."""
    plans = await asyncio.gather(*(check(connection, names) for _ in range(5)))
    await asyncio.gather(*(apply(connection, todo) for todo in plans))

    assert (await check(connection, names)).is_empty


async def test_setup_that_lost_a_race_goes_on_from_there(connection, names) -> None:
    """What somebody else created meanwhile, differently, is updated instead."""
    todo = await check(connection, names)
    theirs = wanted(names).stream | {"max_msg_size": 100}
    await connection.api(f"STREAM.CREATE.{names.stream}", theirs)
    await apply(connection, todo)

    assert (await check(connection, names)).is_empty


async def test_drift_is_shown_and_repaired_in_place(connection, names) -> None:
    """Values that can be changed are changed back, one line each."""
    await setup(connection, names)
    await change_stream(
        connection,
        names.stream,
        max_msg_size=100,
        duplicate_window=60 * SECOND,
        subjects=[f"{names.stream}.>", "extra"],
    )
    await make_consumer(connection, names, max_deliver=7, ack_wait=5 * SECOND)

    todo = await setup(connection, names)
    after = await check(connection, names)

    assert str(todo).splitlines() == [
        f"~ stream {names.stream}  subjects {names.stream}.>, extra → {names.stream}.>",
        f"~ stream {names.stream}  max_msg_size 100 → 512",
        f"~ stream {names.stream}  duplicate_window 1 min → 1 h",
        f"~ consumer {names.consumer}  ack_wait 5 s → 30 s",
        f"~ consumer {names.consumer}  max_deliver 7 → 5",
    ]
    assert after.is_empty


async def test_repairs_keep_what_the_operator_set(connection, names) -> None:
    """Fields that the seed's flags don't name survive an update of those they do."""
    await setup(connection, names)
    await change_stream(
        connection, names.stream, description="mine", max_msg_size=100, max_consumers=-1
    )
    await make_consumer(
        connection, names, max_ack_pending=7, description="mine too", max_deliver=9
    )
    await setup(connection, names)
    stream = await stream_config(connection, names.stream)
    consumer = await consumer_config(connection, names)

    assert (stream["description"], stream["max_msg_size"]) == ("mine", 512)
    assert consumer["description"] == "mine too"
    assert (consumer["max_ack_pending"], consumer["max_deliver"]) == (7, 5)


async def test_metadata_survives_a_repair(connection, names) -> None:
    """An operator's metadata stays, where the server knows metadata."""
    if connection.server_version < (2, 10, 0):
        pytest.skip("no metadata before 2.10")
    await setup(connection, names)
    await make_consumer(connection, names, metadata={"team": "scan"}, max_deliver=9)
    await setup(connection, names)

    assert (await consumer_config(connection, names))["metadata"]["team"] == "scan"


async def test_filter_list_of_one_is_no_drift(connection, names) -> None:
    """The same filter written as a list is the same filter."""
    if connection.server_version < (2, 10, 0):
        pytest.skip("no filter lists before 2.10")
    await setup(connection, names)
    await make_consumer(
        connection, names, filter_subject=None, filter_subjects=[names.subject]
    )
    same = await check(connection, names)
    await make_consumer(
        connection,
        names,
        filter_subject=None,
        filter_subjects=[names.subject, f"{names.stream}.b"],
    )
    other = await setup(connection, names)

    assert same.is_empty
    assert len(other.changes) == 1
    assert (await check(connection, names)).is_empty


async def test_immutable_drift_blocks_and_the_rest_is_repaired(
    connection, names
) -> None:
    """What can't be changed in place is reported; nothing is ever re-created."""
    theirs = wanted(names).stream | {
        "storage": "memory",
        "retention": "limits",
        "max_msg_size": 100,
    }
    await connection.api(f"STREAM.CREATE.{names.stream}", theirs)
    await make_consumer(connection, names, replay_policy="original")
    created = (await connection.api(f"STREAM.INFO.{names.stream}"))["created"]

    todo = await setup(connection, names)
    after = await check(connection, names)

    assert todo.is_blocked
    assert f"! stream {names.stream}  storage memory → file: can't be" in str(todo)
    assert [change.field for change in after.changes] == [
        "retention",
        "storage",
        "replay_policy",
    ]
    assert (await stream_config(connection, names.stream))["max_msg_size"] == 512
    assert (await connection.api(f"STREAM.INFO.{names.stream}"))["created"] == created


async def test_push_consumer_is_blocked_drift(connection, names) -> None:
    """A consumer that pushes can't be turned into the one we need."""
    await connection.api(f"STREAM.CREATE.{names.stream}", wanted(names).stream)
    await make_consumer(connection, names, deliver_subject="there")

    todo = await setup(connection, names)

    assert "deliver_subject push to there → pull" in str(todo)
    assert todo.is_blocked


async def test_max_deliver_is_raised_only_while_nothing_is_dead(
    connection, names
) -> None:
    """Raising it might bring the dead back, so they have to go before."""
    await setup(connection, names)
    await make_consumer(connection, names, max_deliver=2)
    await let_one_die(connection, names)

    blocked = await setup(connection, names)
    await connection.api(f"STREAM.PURGE.{names.stream}")
    freed = await setup(connection, names)

    assert "max_deliver 2 → 5: 1 failed jobs might come back" in str(blocked)
    assert blocked.is_blocked
    assert str(freed) == f"~ consumer {names.consumer}  max_deliver 2 → 5"
    assert (await check(connection, names)).is_empty


async def test_pending_messages_are_not_dead(connection, names) -> None:
    """Waiting and delivered messages don't keep max_deliver from being raised."""
    await setup(connection, names)
    await make_consumer(connection, names, max_deliver=2)
    for _ in range(3):
        await connection.request(names.subject, b"{}")
    await deliver(connection, names)

    assert not (await check(connection, names)).is_blocked


async def test_captured_advisories_are_left_to_others(connection, names) -> None:
    """Where somebody captures them already, ours does without, and says so."""
    theirs = {"name": "EVENTS", "subjects": ["$JS.EVENT.ADVISORY.CONSUMER.*.X.>"]}
    await connection.api("STREAM.CREATE.EVENTS", theirs)

    todo = await setup(connection, names)
    failures = await stream_config(connection, FAILURES_STREAM)
    after = await check(connection, names)

    assert failures["subjects"] == ["bwpool.failures.>"]
    assert "EVENTS captures them" in str(todo)
    assert after.is_empty
    assert after.notes == todo.notes


async def test_advisories_are_captured_once_they_are_free(connection, names) -> None:
    """An older failures stream gains what it lacks, and keeps what was added."""
    theirs = wanted(names).failures | {"subjects": ["bwpool.failures.>", "mine"]}
    await connection.api(f"STREAM.CREATE.{FAILURES_STREAM}", theirs)
    await setup(connection, names)
    failures = await stream_config(connection, FAILURES_STREAM)

    assert set(failures["subjects"]) == {"bwpool.failures.>", "mine", *ADVISORIES}


async def test_refusal_of_the_server_is_an_error(connection, names) -> None:
    """What the server won't do is told in its words."""
    theirs = {"name": "THEIRS", "subjects": [f"{names.stream}.x"]}
    await connection.api("STREAM.CREATE.THEIRS", theirs)

    with pytest.raises(ApiError, match="subjects overlap"):
        await setup(connection, names)


async def test_limits_are_read_from_what_exists(connection, names) -> None:
    """The numbers that rule come from the server, whoever set them."""
    await setup(connection, names)
    await make_consumer(connection, names, ack_wait=2 * SECOND, max_deliver=-1)

    facts = await read_facts(connection, names)

    assert (facts.ack_wait, facts.max_deliver, facts.max_ack_pending) == (2.0, -1, 1000)
    assert facts.filter_subjects == (names.subject,)
    assert facts.stream_subjects == (f"{names.stream}.>",)
    assert (facts.max_msg_bytes, facts.duplicate_window) == (512, 3600.0)
    assert facts.stream_created.startswith("20")
    assert facts.has_failures


async def test_backoff_of_the_server_shortens_the_ack_wait(connection, names) -> None:
    """A server-side backoff decides when a message comes back."""
    await setup(connection, names)
    await make_consumer(connection, names, backoff=[3 * SECOND, 9 * SECOND])

    assert (await read_facts(connection, names)).ack_wait == 3.0


async def test_missing_topology_says_how_to_get_it(connection, names) -> None:
    """Without stream or consumer, the command that makes them is named."""
    with pytest.raises(QueueError, match=r"no stream .*: run bwpool setup, or add"):
        await read_facts(connection, names)

    await connection.api(f"STREAM.CREATE.{names.stream}", wanted(names).stream)

    with pytest.raises(QueueError, match=r"no consumer .*: run bwpool setup, or add"):
        await read_facts(connection, names)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"deliver_subject": "x"}, "pushes"), ({"ack_policy": "all"}, "'all'")],
)
async def test_unfit_consumers_are_refused(connection, names, fields, message) -> None:
    """A consumer that can't be shared job by job is no queue of ours."""
    stream = wanted(names).stream | {"retention": "limits"}
    await connection.api(f"STREAM.CREATE.{names.stream}", stream)
    await make_consumer(connection, names, **fields)

    with pytest.raises(QueueError, match=message):
        await read_facts(connection, names)


async def test_server_without_jetstream_says_so(
    new_server: Callable[..., NatsServer], names
) -> None:
    """A plain NATS server is told apart from an empty one."""
    server = new_server("jetstream: disabled")

    async with await Connection.open(Endpoint(urls=(server.url,))) as connection:
        with pytest.raises(QueueError, match="JetStream is not enabled"):
            await inspect(connection, names)

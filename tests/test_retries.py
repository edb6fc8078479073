"""Retries that wait on the server, and the room they leave to others."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest
from processes import eventually, publish, publish_all, supervise
from queues import make_consumer, setup

from bwpool.policy import LONGEST_DELAY, UNLIMITED
from bwpool.waiting import Waiting


def test_few_retries_wait_as_long_as_they_should():
    """While they take less than a quarter of the places."""
    waiting = Waiting()

    assert [waiting.admit(8.0, 1000, now=0.0) for _ in range(249)] == [8.0] * 249


def test_more_retries_wait_ever_shorter():
    """From a quarter of the places on, down to nothing at half of them."""
    waiting = Waiting()
    delays = [waiting.admit(8.0, 1000, now=0.0) for _ in range(600)]

    assert delays == sorted(delays, reverse=True)
    assert 0 < delays[400] < 4.0
    assert {0.0} == set(delays[499:])


@pytest.mark.parametrize("places", [1, 2, 3, 10, 1000])
def test_waiting_retries_never_take_more_than_half_of_the_places(places):
    """However many fail at once, and however few places there are."""
    waiting = Waiting()
    for number in range(3 * places):
        now = number / 1000
        waiting.admit(LONGEST_DELAY, places, now)

        assert waiting.count(now) <= places / 2


def test_places_are_free_again_when_the_wait_is_over():
    """Each counts for as long as it waits."""
    waiting = Waiting()
    for _ in range(100):
        waiting.admit(4.0, 40, now=0.0)

    assert waiting.count(now=3.9) > 0
    assert waiting.count(now=4.0) == 0
    assert waiting.admit(4.0, 40, now=4.0) == 4.0


def test_what_others_hold_is_left_to_them():
    """Half of what is left may wait; nothing where nothing is left."""
    waiting = Waiting()
    waiting.elsewhere = 900
    delays = [waiting.admit(8.0, 1000, now=0.0) for _ in range(60)]
    waiting.elsewhere = 1000

    assert sum(delay > 0 for delay in delays) == 49
    assert waiting.admit(8.0, 1000, now=0.0) == 0.0


def test_without_a_limit_nothing_shrinks():
    """A consumer may have as many deliveries under way as it likes."""
    waiting = Waiting()

    assert {8.0} == {waiting.admit(8.0, UNLIMITED, now=0.0) for _ in range(5000)}


async def is_there(path):
    return path.exists()


@pytest.mark.parametrize(
    ("places", "supervisors"),
    [
        (200, 1),
        (200, 2),
        pytest.param(1000, 1, marks=pytest.mark.slow),
        pytest.param(1000, 2, marks=pytest.mark.slow),
    ],
)
async def test_jobs_that_wait_for_their_retry_do_not_delay_the_others(
    server, connection, names, tmp_path, places, supervisors
):
    """More missing sources than places, and behind them a good job, done soon.

    Were all places taken, it would wait for what the retries wait, 15 s together.
    """
    await setup(connection, names)
    await make_consumer(connection, names, max_ack_pending=places)
    count = places * 3 // 2
    missing = [{"id": f"missing-{i}", "image": "file:///x"} for i in range(count)]
    await publish_all(connection, names, missing)
    await publish(connection, names, {"id": "ok-1", "image": "file:///x"})
    async with AsyncExitStack() as stack:
        for _ in range(supervisors):
            supervisor = supervise(server.url, names, tmp_path)
            await (await stack.enter_async_context(supervisor)).line()
        started = time.monotonic()
        await eventually(lambda: is_there(tmp_path / "ok-1"), 60)
        took = time.monotonic() - started

    assert took < 8

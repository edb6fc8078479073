"""How many jobs are held, by table."""

from __future__ import annotations

import pytest

from bwpool.pool.pace import LOOK_AHEAD, Pace


def paced(seconds: float, jobs: int = 100) -> Pace:
    """A pace after jobs that took so long each."""
    pace = Pace()
    for _ in range(jobs):
        pace.note(seconds)
    return pace


def test_nothing_is_looked_ahead_for_before_a_job_is_done():
    """The first jobs may be long ones: others shall have them."""
    pace = Pace()

    assert pace.depth == 1
    assert pace.places(16, 0, round_trip=0.9, most=250) == 16


@pytest.mark.parametrize(
    ("seconds", "round_trip", "places"),
    [
        (4.0, 0.0, 2),
        (4.0, 0.2, 2),
        (0.02, 0.0, 6),
        (0.02, 0.05, 12),
        (0.02, 0.2, 26),
        (0.0013, 0.0, 78),
        (0.0013, 0.05, 154),
        (0.0013, 0.2, 250),
        (0.0, 0.0, 250),
    ],
)
def test_places_cover_the_way_to_the_server(seconds, round_trip, places):
    """Work for the look-ahead and a round trip, and never more than allowed."""
    assert paced(seconds).places(2, 0, round_trip, 250) == pytest.approx(places, abs=2)
    assert paced(seconds).places(2, 0, round_trip, 250) <= 250


def test_two_for_each_slot_are_always_allowed():
    """A small limit, meant for all supervisors together, must not leave slots idle."""
    assert paced(0.001).places(16, 0, 0.2, most=2) == 32


def test_nobody_waits_behind_what_takes_long():
    """A slot whose job turned out to be long has no place for another one."""
    assert paced(0.001).places(2, 2, 0.2, most=250) == 2


def test_several_questions_are_under_way_over_a_distance():
    """Near, half of what is held is asked for at once; from afar, a small part."""
    pace = Pace()

    assert pace.step(80, 0.0) == 40
    assert pace.step(80, 3 * LOOK_AHEAD) == 10

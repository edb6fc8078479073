"""The policy, by table."""

from __future__ import annotations

import pytest

from bwpool.errors import (
    JOB_ERRORS,
    BadImage,
    ConversionFailed,
    SourceMissing,
    StorageUnavailable,
)
from bwpool.job import Converted
from bwpool.policy import (
    LONGEST_DELAY,
    UNLIMITED,
    Completed,
    Failed,
    Retried,
    Spent,
    Stalled,
    Terminated,
    backoff,
    judge,
)

DONE = Converted("out", 1, 1, 1)


@pytest.mark.parametrize(
    ("outcome", "attempt", "max_deliver", "verdict"),
    [
        (DONE, 1, 5, Completed),
        (DONE, 5, 5, Completed),
        (SourceMissing("x"), 1, 5, Retried),
        (SourceMissing("x"), 4, 5, Retried),
        (SourceMissing("x"), 5, 5, Failed),
        (ConversionFailed("x"), 1, 1, Failed),
        (ConversionFailed("x"), 900, UNLIMITED, Retried),
        (BadImage("x"), 1, 5, Spent),
        (BadImage("x"), 5, 5, Failed),
        (BadImage("x"), 1, UNLIMITED, Terminated),
        (StorageUnavailable("x"), 1, 5, Stalled),
        (StorageUnavailable("x"), 5, 5, Stalled),
        (StorageUnavailable("x"), 1, UNLIMITED, Stalled),
    ],
)
def test_verdicts(outcome, attempt, max_deliver, verdict):
    """An outcome, a delivery's number and the limit make the verdict."""
    assert verdict is type(judge(outcome, attempt, max_deliver))


@pytest.mark.parametrize(
    ("attempt", "delay"), [(1, 1), (2, 2), (3, 4), (4, 8), (99, 60)]
)
def test_delays_double_up_to_a_ceiling(attempt, delay):
    """The delay doubles with each attempt, give or take a tenth."""
    assert 0.9 * delay <= backoff(attempt) <= 1.1 * min(delay, LONGEST_DELAY)


def test_every_kind_is_in_the_contract():
    """The kinds are the contract's, no more and no fewer."""
    assert {
        "invalid-job",
        "source-refused",
        "source-missing",
        "bad-image",
        "limit-exceeded",
        "storage-unavailable",
        "conversion-timeout",
        "converter-crashed",
        "conversion-failed",
    } == set(JOB_ERRORS)

"""What follows from the outcome of one attempt: pure, so that a table can test it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from bwpool.errors import JobError, StorageUnavailable
from bwpool.job import Converted

FIRST_DELAY = 1.0
"""Seconds before the second attempt; doubled for each further one."""

LONGEST_DELAY = 60.0
"""The ceiling of that."""

JITTER = 0.1
"""The share by which delays differ, so that failures do not come back in step."""

UNLIMITED = -1
"""JetStream's word for a consumer that delivers for ever."""


@dataclass(frozen=True, slots=True)
class Completed:
    """Tell those who want to know, then acknowledge."""

    converted: Converted


@dataclass(frozen=True, slots=True)
class Retried:
    """Record, then hand back, to be delivered again after `delay` seconds."""

    error: JobError
    delay: float


@dataclass(frozen=True, slots=True)
class Spent:
    """No retry can cure it: record, then use up the deliveries that are left."""

    error: JobError


@dataclass(frozen=True, slots=True)
class Failed:
    """No attempt is left: record it durably, then let JetStream declare it dead."""

    error: JobError


@dataclass(frozen=True, slots=True)
class Terminated:
    """Hopeless on a consumer that never gives up: record it, then remove it."""

    error: JobError


@dataclass(frozen=True, slots=True)
class Stalled:
    """Our own storage is in trouble: keep the job until that is over."""

    error: JobError


@dataclass(frozen=True, slots=True)
class HandedBack:
    """Not tried here, or not to its end: somebody else shall have it, uncharged."""


Verdict = Completed | Retried | Spent | Failed | Terminated | Stalled | HandedBack


def judge(outcome: Converted | JobError, attempt: int, max_deliver: int) -> Verdict:
    """Decide what follows from `outcome` at delivery number `attempt`.

    Five cases of failure, the first that holds: our storage's fault, hopeless without
    a limit, the last delivery, hopeless, and worth another try.
    """
    if isinstance(outcome, Converted):
        return Completed(outcome)
    if isinstance(outcome, StorageUnavailable):
        return Stalled(outcome)
    if not outcome.retryable and max_deliver == UNLIMITED:
        return Terminated(outcome)
    if is_last(attempt, max_deliver):
        return Failed(outcome)
    if not outcome.retryable:
        return Spent(outcome)
    return Retried(outcome, backoff(attempt))


def is_last(attempt: int, max_deliver: int) -> bool:
    """Whether JetStream will not deliver the message again."""
    return max_deliver != UNLIMITED and attempt >= max_deliver


def may_return(attempt: int, max_deliver: int) -> bool:
    """Whether a delivery may be handed back for others to have, though that uses it up.

    At most half of a job's deliveries go that way; the others are for its failures.
    """
    return max_deliver == UNLIMITED or 2 * attempt <= max_deliver


def backoff(attempt: int) -> float:
    """Seconds to wait after the failure of delivery number `attempt`."""
    # The exponent's own ceiling keeps an unlimited consumer from overflowing.
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(attempt - 1, 16))


def shrunk(delay: float, waiting: int, places: int) -> float:
    """Shorten a retry's delay by how many wait already of those that may.

    Waiting retries may take half of the `places` that deliveries have. While they take
    less than half of that, the delay is what it was; from there it shrinks to nothing.
    """
    share = 2 * (waiting + 1) / places if places else 1.0
    return delay * min(1.0, max(0.0, 2 * (1 - share)))


def with_jitter(delay: float) -> float:
    """Make a delay differ a little from that of its neighbours."""
    return delay * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret

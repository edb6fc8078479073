"""A queue, a pool and a storage in miniature, for what becomes of deliveries.

`World` hands events to `lifecycle.step` and carries the actions out on numbers, and
holds every action against what a supervisor must never do. It needs no server, no
process and no clock, so that thousands of sequences can be tried.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import orjson

from bwpool.delivery import (
    NOTHING_PAST,
    Ack,
    Acked,
    Ask,
    ClearUp,
    Complain,
    Convert,
    Delivered,
    Delivery,
    Disowned,
    Facts,
    Keep,
    Nak,
    Past,
    PutBack,
    RecordFailure,
    Redelivered,
    Remember,
    Reported,
    Requeue,
    Settle,
    State,
    Term,
    Thrown,
)
from bwpool.errors import (
    BadImage,
    ConversionFailed,
    JobError,
    SourceMissing,
    StorageUnavailable,
)
from bwpool.job import Converted
from bwpool.lifecycle import step
from bwpool.policy import Completed, Failed, Retried, Spent, Terminated, is_last

CHARGES = (Retried, Spent, Failed, Terminated)
"""The verdicts that a job is blamed with."""


@dataclass
class Message:
    """A message in the queue, and what really happened to its job."""

    payload: bytes
    attempt: int = 0
    is_stored: bool = False
    """Whether its output is."""
    is_queued_anew: bool = False
    """Whether its job is in the queue under another sequence."""
    is_removed: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    failures: int = 0
    """Attempts that failed by the job itself."""
    past: Past = NOTHING_PAST


@dataclass
class Journey:
    """One delivery under way."""

    message: Message
    delivery: Delivery
    pending: list[object] = field(default_factory=list)
    """Actions whose event is still to come."""
    may_be_charged: bool = False
    is_let_go: bool = False
    """Whether it was acknowledged, handed back or terminated."""
    settlements: int = 0


FOLLOWED = (Ask, Convert, Keep, RecordFailure, Requeue, Ack, ClearUp)
"""The actions after which an event must come, or the lease would hang."""


class World:
    """Deliveries, the messages they are of, and what must hold at each action."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.journeys: list[Journey] = []
        self.is_broken = False
        """Whether something happened that must not; what follows means nothing."""

    def deliver(self, message: Message, lease) -> Journey:
        """Have the consumer deliver a message that is not held."""
        message.attempt = lease.attempt
        journey = Journey(message, Delivery(lease))
        journey.may_be_charged = not is_job(message.payload) or bool(
            message.past.digest
        )
        self.journeys.append(journey)
        self.tell(journey, Delivered(message.past))
        return journey

    def redeliver(self, journey: Journey, lease) -> None:
        """Have it deliver one that is held, since its ack wait lapsed."""
        journey.message.attempt = lease.attempt
        self.tell(journey, Redelivered(lease))

    def follow(self, journey: Journey, action: object, event: object) -> None:
        """Let the event come that follows an action."""
        journey.pending.remove(action)
        match event:
            case Reported(report):
                self._note_outcome(journey, report.outcome)
            case PutBack():
                journey.message.is_queued_anew = True
            case Acked():
                journey.message.is_removed = True
            case Thrown():
                journey.may_be_charged = True
        self.tell(journey, event)

    def tell(self, journey: Journey, event: object) -> None:
        """Take one step, and carry its actions out."""
        try:
            self._tell(journey, event)
        except AssertionError:
            self.is_broken = True
            raise

    def _tell(self, journey: Journey, event: object) -> None:
        journey.delivery, actions = step(journey.delivery, event, self.facts)
        for action in actions:
            self._carry_out(journey, action)
        if journey.delivery.state is State.GONE:
            if not isinstance(event, Disowned):
                assert journey.is_let_go, "gone, and its lease is still open"
            self.journeys.remove(journey)
        else:
            assert journey.pending, "nothing will ever happen to it again"

    def _note_outcome(self, journey: Journey, outcome: object) -> None:
        message = journey.message
        if isinstance(outcome, Converted):
            message.is_stored = True
        elif isinstance(outcome, JobError):
            journey.may_be_charged = not isinstance(outcome, StorageUnavailable)
            message.failures += journey.may_be_charged

    def _carry_out(self, journey: Journey, action: object) -> None:
        message = journey.message
        assert not isinstance(action, Complain), action
        if isinstance(action, FOLLOWED) and action not in journey.pending:
            journey.pending.append(action)
        match action:
            case Ack():
                is_safe = message.is_stored or message.is_queued_anew
                assert is_safe, "acknowledged, though nobody has done it"
                journey.is_let_go = True
            case Nak():
                assert not journey.is_let_go, "let go of twice"
                journey.is_let_go = True
                if is_last(journey.delivery.lease.attempt, self.max_deliver):
                    verdict = journey.delivery.verdict
                    assert isinstance(verdict, Failed), "killed by being handed back"
            case Term():
                assert not journey.is_let_go, "let go of twice"
                journey.is_let_go = True
                assert isinstance(journey.delivery.verdict, Terminated)
            case RecordFailure(verdict) if isinstance(verdict, CHARGES):
                assert journey.may_be_charged, "charged for what was not tried"
            case Remember(past):
                message.past = past
                assert not past.is_acked or message.is_removed
            case Settle(verdict):
                journey.settlements += 1
                assert journey.settlements == 1, "settled twice"
                assert message.is_stored or not isinstance(verdict, Completed)
                if isinstance(verdict, CHARGES):
                    assert journey.may_be_charged, "charged for what was not tried"

    @property
    def max_deliver(self) -> int:
        """The consumer's limit."""
        return self.facts.consumer.max_deliver


def is_job(payload: bytes) -> bool:
    """Whether a payload of these tests is a job."""
    return payload != b"{}"


def job_payload(number: int) -> bytes:
    """Write a job."""
    return orjson.dumps({"id": f"p{number}", "image": "file:///x", "advisory": "a.b"})


OUTCOMES = [
    Converted("out", 1, 1, 1),
    SourceMissing("not there"),
    BadImage("no picture"),
    ConversionFailed("not today"),
    StorageUnavailable("full"),
]

"""A delivery as a value: its state, what can happen to it, what follows from that.

The words that `lifecycle` speaks, which has the rules, and `deliveries`, which carries
the actions out. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from bwpool.errors import JobError
from bwpool.job import Job
from bwpool.policy import Verdict
from bwpool.pool.report import Report
from bwpool.queue.facts import ConsumerFacts
from bwpool.queue.lease import Lease


class State(Enum):
    """Where a delivery is on its way."""

    RECEIVED = "received"
    ASKING = "asking"
    """Near its last delivery: did an earlier one fail by itself, or only crash?"""
    CONVERTING = "converting"
    """The pool has it, waiting for a converter or in one."""
    KEPT = "kept"
    """Its output could not be stored, by no fault of its own."""
    RECORDING = "recording"
    """Its failure is being stored, before anything is settled."""
    HANDING_BACK = "handing back"
    """Its job is being put back into the queue as new."""
    COMPLETING = "completing"
    """Its ack is sent and not confirmed yet."""
    CLEARING = "clearing"
    """The message that its job was copied from is being removed."""
    GONE = "gone"


# ── What can happen ──────────────────────────────────────────────────────────────


class Past(NamedTuple):
    """What is remembered of a message whose last delivery here is gone."""

    is_acked: bool = False
    """It left the queue, as far as we know."""
    digest: bytes = b""
    """Of the payload, where that is what failed for good."""
    job: Job | None = None
    report: Report | None = None
    """How it failed; None if it did not."""


NOTHING_PAST = Past()


class Delivered(NamedTuple):
    """The consumer delivered a message that is not held."""

    past: Past = NOTHING_PAST


class Redelivered(NamedTuple):
    """The consumer delivered a message that is held; this delivery counts now."""

    lease: Lease


class Answered(NamedTuple):
    """The failures stream said whether an earlier delivery failed by itself."""

    has_failed: bool


class Reported(NamedTuple):
    """The pool is done with the job, or hands it back."""

    report: Report


class StorageBack(NamedTuple):
    """Outputs can be stored again, or this one shall show whether they can."""


class HandOver(NamedTuple):
    """Another supervisor shall have it, whose storage may be well."""


class Leaving(NamedTuple):
    """The supervisor drains."""


class Recorded(NamedTuple):
    """The failure is stored, or can't be for good."""


class PutBack(NamedTuple):
    """The job is stored as a new message."""


class Acked(NamedTuple):
    """The server has confirmed the ack."""


class Cleared(NamedTuple):
    """The message that the job was copied from is gone."""


class Disowned(NamedTuple):
    """The stream is gone, and under its name may be another."""


class Thrown(NamedTuple):
    """An action, or a rule, ended with an exception that nobody foresaw."""

    error: Exception


# ── What follows ─────────────────────────────────────────────────────────────────


class Ask(NamedTuple):
    """Ask the failures stream about earlier deliveries; `Answered` follows."""


class Convert(NamedTuple):
    """Give the job to the pool; `Reported` follows."""

    job: Job
    is_first: bool
    """Before all that wait: no other supervisor will get it."""
    returns: bool = False
    """Whether others may get it where it would wait for long."""


class Keep(NamedTuple):
    """Wait for the storage; `StorageBack`, `HandOver` or `Leaving` follows."""

    error: JobError


class Publish(NamedTuple):
    """Tell whoever the job names that its output is stored."""

    subject: str
    job_id: str


class Ack(NamedTuple):
    """Acknowledge until the server confirms it; `Acked` follows."""


class Nak(NamedTuple):
    """Hand the delivery back, to be made again after `delay` seconds."""

    delay: float = 0.0


class Term(NamedTuple):
    """Have the message removed, undone."""


class RecordFailure(NamedTuple):
    """Store the failure; `Recorded` follows."""

    verdict: Verdict


class Requeue(NamedTuple):
    """Put the job back into the queue as new; `PutBack` follows."""


class ClearUp(NamedTuple):
    """Remove the message that the job was copied from; `Cleared` follows."""


class Remember(NamedTuple):
    """Keep this in mind, in case the message is delivered again."""

    past: Past


class Settle(NamedTuple):
    """Tell the listeners how the delivery ended."""

    verdict: Verdict


class Complain(NamedTuple):
    """Log that this should not have happened."""

    event: object


Event = (
    Delivered
    | Redelivered
    | Answered
    | Reported
    | StorageBack
    | HandOver
    | Leaving
    | Recorded
    | PutBack
    | Acked
    | Cleared
    | Disowned
    | Thrown
)
Action = (
    Ask
    | Convert
    | Keep
    | Publish
    | Ack
    | Nak
    | Term
    | RecordFailure
    | Requeue
    | ClearUp
    | Remember
    | Settle
    | Complain
)

# ── The delivery itself ──────────────────────────────────────────────────────────


class Delivery(NamedTuple):
    """One delivery on its way; a value, replaced at each step."""

    lease: Lease
    state: State = State.RECEIVED
    job: Job | None = None
    """None until it is read, and where it can't be."""
    report: Report | None = None
    """What the pool said last."""
    verdict: Verdict | None = None
    """How it ends, once that is known."""
    past: Past = NOTHING_PAST


@dataclass(slots=True)
class Facts:
    """What holds for all deliveries at the moment; changed by `deliveries` only."""

    consumer: ConsumerFacts
    advisory_prefixes: tuple[str, ...] = ()
    """Subjects that advisories must be below; none given: any will do."""
    is_leaving: bool = False
    """Whether all that arrives is handed back."""

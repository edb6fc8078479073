"""The life of a delivery: what becomes of it at each event, as a table of rules.

    received ─▶ converting ─▶ completing ─▶ gone

is the way of most; `RULES` has the others. Pure: `step` takes a delivery and an event
and returns the next delivery and the actions to carry out. It does no I/O, reads no
clock and draws no lots. Called by `deliveries`, which carries the actions out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bwpool.delivery import (
    NOTHING_PAST,
    Ack,
    Acked,
    Action,
    Answered,
    Ask,
    Cleared,
    ClearUp,
    Complain,
    Convert,
    Delivered,
    Delivery,
    Disowned,
    Event,
    Facts,
    HandOver,
    Keep,
    Leaving,
    Nak,
    Past,
    Publish,
    PutBack,
    Recorded,
    RecordFailure,
    Redelivered,
    Remember,
    Reported,
    Requeue,
    Settle,
    State,
    StorageBack,
    Term,
    Thrown,
)
from bwpool.errors import ConversionFailed, JobError
from bwpool.job import parse_job
from bwpool.policy import (
    Completed,
    Failed,
    HandedBack,
    Retried,
    Spent,
    Stalled,
    Terminated,
    is_last,
    judge,
    may_return,
)
from bwpool.pool.report import NotBegun, Report
from bwpool.queue.lease import Lease

Step = tuple[Delivery, tuple[Action, ...]]
Rule = Callable[[Delivery, Any, Facts], Step]


def step(delivery: Delivery, event: Event, facts: Facts) -> Step:
    """Say what becomes of `delivery` at `event`, and what is to be done."""
    rule = RULES.get((delivery.state, type(event)))
    if rule is None:
        return delivery, (Complain(event),)
    return rule(delivery, event, facts)


# ── The rules ────────────────────────────────────────────────────────────────────


def _receive(delivery: Delivery, event: Delivered, facts: Facts) -> Step:
    """Decide about a new delivery.

    Five cases, the first that holds: done here before; we are leaving; known to be
    hopeless; near its end, perhaps by crashes alone; a job to be done.
    """
    past = event.past
    delivery = delivery._replace(past=past)
    if past.is_acked:
        return _to(delivery, State.COMPLETING, Ack())
    if facts.is_leaving:
        return _hand_back(delivery, facts)
    if past.digest and past.digest == delivery.lease.digest:
        assert past.report is not None
        return _judge(delivery._replace(job=past.job), past.report, facts)
    if past.report is None and _may_be_innocent(delivery.lease, facts):
        return _to(delivery, State.ASKING, Ask())
    return _begin(delivery, facts)


def _may_be_innocent(lease: Lease, facts: Facts) -> bool:
    """Whether crashes of supervisors may have used up the message's deliveries.

    That is asked at the last delivery and at the one before, since a crash on the way
    leaves another chance; and no more than once a job.
    """
    is_late = is_last(lease.attempt + 1, facts.consumer.max_deliver)
    return is_late and lease.attempt > 1 and not lease.is_rescued


def _answered(delivery: Delivery, event: Answered, facts: Facts) -> Step:
    if not event.has_failed:
        return _to(delivery, State.HANDING_BACK, Requeue())
    if facts.is_leaving:
        return _hand_back(delivery, facts)
    return _begin(delivery, facts)


def _begin(delivery: Delivery, facts: Facts) -> Step:
    """Read the job and have it converted; last deliveries go first."""
    lease, consumer = delivery.lease, facts.consumer
    subjects, prefixes = consumer.stream_subjects, facts.advisory_prefixes
    try:
        job = parse_job(lease.payload, subjects, prefixes)
    except JobError as error:
        return _judge(delivery, Report(error, 0.0), facts)
    is_first = is_last(lease.attempt, consumer.max_deliver)
    returns = may_return(lease.attempt, consumer.max_deliver)
    delivery = delivery._replace(job=job)
    return _to(delivery, State.CONVERTING, Convert(job, is_first, returns))


def _reported(delivery: Delivery, event: Reported, facts: Facts) -> Step:
    """Judge what the pool says of a job."""
    report = event.report
    if isinstance(report.outcome, NotBegun):
        return _hand_back(delivery, facts)
    return _judge(delivery, report, facts)


def _judge(delivery: Delivery, report: Report, facts: Facts) -> Step:
    """Go by the verdict; a failure is recorded before anything is settled."""
    lease, consumer = delivery.lease, facts.consumer
    assert not isinstance(report.outcome, NotBegun)
    verdict = judge(report.outcome, lease.attempt, consumer.max_deliver)
    delivery = delivery._replace(report=report, verdict=verdict)
    match verdict:
        case Completed():
            return _complete(delivery)
        case Stalled(error) if not facts.is_leaving:
            return _to(delivery, State.KEPT, Keep(error))
        case Spent() if delivery.past.digest:
            return _recorded(delivery, Recorded(), facts)  # as its last delivery was
        case _:
            return _to(delivery, State.RECORDING, RecordFailure(verdict))


def _complete(delivery: Delivery) -> Step:
    """Tell whoever asked for it, then acknowledge."""
    job = delivery.job
    assert job is not None
    if job.advisory is None:
        return _to(delivery, State.COMPLETING, Ack())
    return _to(delivery, State.COMPLETING, Publish(job.advisory, job.id), Ack())


def _storage_back(delivery: Delivery, _: StorageBack, facts: Facts) -> Step:
    assert delivery.job is not None
    is_first = is_last(delivery.lease.attempt, facts.consumer.max_deliver)
    return _to(delivery, State.CONVERTING, Convert(delivery.job, is_first))


def _handed_over(delivery: Delivery, _: HandOver, facts: Facts) -> Step:
    return _hand_back(delivery, facts)


def _not_kept(delivery: Delivery, _: Leaving, __: Facts) -> Step:
    """Record the trouble, so that somebody learns of it, and hand back."""
    assert delivery.verdict is not None
    return _to(delivery, State.RECORDING, RecordFailure(delivery.verdict))


def _recorded(delivery: Delivery, _: Recorded, facts: Facts) -> Step:
    """Let go of a delivery that failed, as the verdict says."""
    if _is_outdated(delivery, facts):
        assert delivery.report is not None
        return _judge(delivery, delivery.report, facts)
    job, report = delivery.job, delivery.report
    match delivery.verdict:
        case Retried(_, delay):
            past = Past(job=job, report=report)
            return _gone(delivery, Nak(delay), Remember(past))
        case Spent():
            # The next deliveries come at once, and to whoever pulls.
            past = Past(digest=delivery.lease.digest, job=job, report=report)
            return _gone(delivery, Nak(), Remember(past))
        case Failed():
            return _gone(delivery, Nak(), Remember(NOTHING_PAST))
        case Terminated():
            return _gone(delivery, Term())
        case _:
            return _hand_back(delivery, facts)


def _is_outdated(delivery: Delivery, facts: Facts) -> bool:
    """Whether a redelivery under way, perhaps the last, makes it another verdict."""
    report, verdict = delivery.report, delivery.verdict
    assert report is not None
    assert not isinstance(report.outcome, NotBegun)
    attempt, max_deliver = delivery.lease.attempt, facts.consumer.max_deliver
    return type(judge(report.outcome, attempt, max_deliver)) is not type(verdict)


def _hand_back(delivery: Delivery, facts: Facts) -> Step:
    """Give the delivery to the others at once, without killing its job by that."""
    delivery = delivery._replace(verdict=HandedBack())
    if is_last(delivery.lease.attempt, facts.consumer.max_deliver):
        return _to(delivery, State.HANDING_BACK, Requeue())
    return _gone(delivery, Nak())


def _put_back(delivery: Delivery, _: PutBack, __: Facts) -> Step:
    return _to(delivery._replace(verdict=HandedBack()), State.COMPLETING, Ack())


def _acked(delivery: Delivery, _: Acked, __: Facts) -> Step:
    if delivery.lease.is_copy:
        return _to(delivery, State.CLEARING, Remember(Past(is_acked=True)), ClearUp())
    return _gone(delivery, Remember(Past(is_acked=True)))


def _cleared(delivery: Delivery, _: Cleared, __: Facts) -> Step:
    return _gone(delivery)


def _redelivered(delivery: Delivery, event: Redelivered, _: Facts) -> Step:
    return delivery._replace(lease=event.lease), ()


def _acked_in_vain(delivery: Delivery, event: Redelivered, _: Facts) -> Step:
    """Acknowledge the delivery that counts now."""
    return delivery._replace(lease=event.lease), (Ack(),)


def _disowned(delivery: Delivery, _: Disowned, __: Facts) -> Step:
    return delivery._replace(state=State.GONE), ()


# What an exception that nobody foresaw leads to depends on how far the job was.


def _bug(delivery: Delivery, event: Thrown, facts: Facts) -> Step:
    """Charge the job: it may be what the exception comes from."""
    error = event.error
    failure = ConversionFailed(f"{type(error).__name__}: {error}")
    return _judge(delivery, Report(failure, 0.0), facts)


def _begin_anyway(delivery: Delivery, _: Thrown, facts: Facts) -> Step:
    return _begin(delivery, facts)


def _without_record(delivery: Delivery, _: Thrown, facts: Facts) -> Step:
    return _recorded(delivery, Recorded(), facts)


def _ack_anyway(delivery: Delivery, _: Thrown, __: Facts) -> Step:
    """Acknowledge, perhaps again, and wait for nothing more."""
    return _gone(delivery, Ack())


def _done_anyway(delivery: Delivery, _: Thrown, __: Facts) -> Step:
    return _gone(delivery)


def _to(delivery: Delivery, state: State, *actions: Action) -> Step:
    return delivery._replace(state=state), actions


def _gone(delivery: Delivery, *actions: Action) -> Step:
    """End the way of a delivery; it is settled if it came to a verdict."""
    delivery = delivery._replace(state=State.GONE)
    if delivery.verdict is None:
        return delivery, actions
    return delivery, (*actions, Settle(delivery.verdict))


RULES: dict[tuple[State, type[Event]], Rule] = {
    (State.RECEIVED, Delivered): _receive,
    (State.RECEIVED, Thrown): _bug,
    (State.ASKING, Answered): _answered,
    (State.ASKING, Thrown): _begin_anyway,
    (State.CONVERTING, Reported): _reported,
    (State.CONVERTING, Thrown): _bug,
    (State.KEPT, StorageBack): _storage_back,
    (State.KEPT, HandOver): _handed_over,
    (State.KEPT, Leaving): _not_kept,
    (State.KEPT, Thrown): _bug,
    (State.RECORDING, Recorded): _recorded,
    (State.RECORDING, Thrown): _without_record,
    (State.HANDING_BACK, PutBack): _put_back,
    (State.HANDING_BACK, Thrown): _bug,
    (State.COMPLETING, Acked): _acked,
    (State.COMPLETING, Redelivered): _acked_in_vain,
    (State.COMPLETING, Thrown): _ack_anyway,
    (State.CLEARING, Cleared): _cleared,
    (State.CLEARING, Thrown): _done_anyway,
    **{
        (state, Redelivered): _redelivered
        for state in State
        if state not in (State.RECEIVED, State.COMPLETING, State.GONE)
    },
    **{(state, Disowned): _disowned for state in State if state is not State.GONE},
}
"""Every state, what can happen in it, and the rule that says what follows."""

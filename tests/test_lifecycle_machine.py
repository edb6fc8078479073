"""No sequence of events makes a lifecycle lose, double or charge what it must not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from lifecycle_world import OUTCOMES, Message, World, job_payload

from bwpool import lifecycle
from bwpool.delivery import (
    Ack,
    Acked,
    Answered,
    Ask,
    Cleared,
    ClearUp,
    Convert,
    Delivered,
    Disowned,
    Facts,
    HandOver,
    Keep,
    Leaving,
    Nak,
    PutBack,
    Recorded,
    RecordFailure,
    Redelivered,
    Reported,
    Requeue,
    Settle,
    State,
    StorageBack,
    Thrown,
)
from bwpool.policy import HandedBack
from bwpool.pool.report import NotBegun, Report
from bwpool.queue.facts import ConsumerFacts
from bwpool.queue.lease import MSG_ID, RESCUED, Lease

ANSWERS = {
    Ask: lambda draw: Answered(draw(st.booleans())),
    Convert: lambda draw: Reported(
        Report(draw(st.sampled_from([NotBegun(), *OUTCOMES])), 0.0)
    ),
    Keep: lambda draw: draw(st.sampled_from([StorageBack(), HandOver(), Leaving()])),
    RecordFailure: lambda _: Recorded(),
    Requeue: lambda _: PutBack(),
    Ack: lambda _: Acked(),
    ClearUp: lambda _: Cleared(),
}
"""What follows on each action, if nothing is thrown."""


def consumer(max_deliver):
    return ConsumerFacts(
        stream="S",
        name="C",
        subject="S.x",
        ack_wait=30.0,
        max_deliver=max_deliver,
        max_ack_pending=1000,
        filter_subjects=("S.x",),
        stream_subjects=("S.>",),
        max_msg_bytes=512,
        duplicate_window=60.0,
        stream_created="2026-01-01T00:00:00Z",
        created="2026-01-01T00:00:00Z",
        has_failures=True,
    )


class Lives(RuleBasedStateMachine):
    """Messages are delivered, and all that may happen to them does, in any order."""

    journeys = Bundle("journeys")

    @initialize(max_deliver=st.sampled_from([1, 2, 5, -1]))
    def begin(self, max_deliver):
        """Start with an empty queue; the consumer gives up soon, late or never."""
        self.world = World(Facts(consumer(max_deliver)))
        self.messages = []

    def lease(self, number, attempt, headers):
        """Make a delivery of a message."""
        return Lease(
            seq=number,
            stored=number,
            attempt=attempt,
            reply=f"reply.{number}.{attempt}",
            subject="S.x",
            payload=self.messages[number].payload,
            headers=headers,
        )

    @rule(
        is_job=st.booleans(),
        attempt=st.integers(1, 5),
        headers=st.sampled_from([{}, {MSG_ID: "rq:1"}, {RESCUED: "1"}]),
    )
    def deliver(self, is_job, attempt, headers):
        """A new message comes, at any of its deliveries."""
        number = len(self.messages)
        payload = job_payload(number) if is_job else b"{}"
        self.messages.append(Message(payload, headers=headers))
        attempt = min(attempt, self.world.max_deliver) if attempt > 0 else attempt
        limit = self.world.max_deliver
        self.world.deliver(
            self.messages[number],
            self.lease(number, attempt if limit < 0 else min(attempt, limit), headers),
        )

    @precondition(lambda self: self.again())
    @rule(data=st.data())
    def deliver_again(self, data):
        """A message that was let go of, or whose ack got lost, comes once more."""
        number = data.draw(st.sampled_from(self.again()))
        message = self.messages[number]
        lease = self.lease(number, message.attempt + 1, message.headers)
        self.world.deliver(message, lease)

    @precondition(lambda self: self.world.journeys)
    @rule(data=st.data())
    def redeliver(self, data):
        """A message that is held comes again, its ack wait having lapsed."""
        journey = data.draw(st.sampled_from(self.world.journeys))
        lease = journey.delivery.lease
        if self.has_deliveries_left(lease.attempt):
            number = self.messages.index(journey.message)
            self.world.redeliver(
                journey, self.lease(number, lease.attempt + 1, lease.headers)
            )

    @precondition(lambda self: self.world.journeys)
    @rule(data=st.data(), is_thrown=st.integers(0, 9).map(lambda n: n == 0))
    def go_on(self, data, is_thrown):
        """Something that is waited for happens, or ends with an exception."""
        journey = data.draw(st.sampled_from(self.world.journeys))
        action = data.draw(st.sampled_from(journey.pending))
        event = ANSWERS[type(action)](data.draw)
        if is_thrown and not isinstance(action, Keep):
            event = Thrown(RecursionError("foreseen by nobody"))
        self.world.follow(journey, action, event)

    @rule()
    def leave(self):
        """The supervisor is told to drain."""
        self.world.facts.is_leaving = True
        for journey in list(self.world.journeys):
            for action in list(journey.pending):
                if isinstance(action, Keep):
                    self.world.follow(journey, action, Leaving())

    @precondition(lambda self: self.world.journeys)
    @rule(data=st.data())
    def disown(self, data):
        """The stream is made anew."""
        journey = data.draw(st.sampled_from(self.world.journeys))
        self.world.tell(journey, Disowned())

    def again(self):
        """Number the messages that are in the queue and not held."""
        held = [journey.message for journey in self.world.journeys]
        return [
            number
            for number, message in enumerate(self.messages)
            if not any(message is other for other in held)
            and self.has_deliveries_left(message.attempt)
            and not message.is_removed
        ]

    def has_deliveries_left(self, attempt):
        """Whether the consumer will deliver a message once more."""
        return self.world.max_deliver < 0 or attempt < self.world.max_deliver

    def teardown(self):
        """Whatever happened before, a drain ends every delivery that is held."""
        if not hasattr(self, "world") or self.world.is_broken:
            return
        self.leave()
        for journey in list(self.world.journeys):
            for _ in range(20):
                if journey.pending and journey.delivery.state is not State.GONE:
                    action = journey.pending[-1]
                    self.world.follow(journey, action, QUIETLY[type(action)]())
        assert not self.world.journeys


QUIETLY = {
    Ask: lambda: Answered(has_failed=True),
    Convert: lambda: Reported(Report(NotBegun(), 0.0)),
    Keep: Leaving,
    RecordFailure: Recorded,
    Requeue: PutBack,
    Ack: Acked,
    ClearUp: Cleared,
}


def tried(examples, *, phases=tuple(Phase), derandomize=False):
    """Try so many sequences; an AssertionError tells the shortest that goes wrong."""
    run_state_machine_as_test(
        Lives,
        settings=settings(
            max_examples=examples,
            phases=phases,
            derandomize=derandomize,
            database=None,
            stateful_step_count=30,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_no_sequence_of_events_loses_doubles_or_charges():
    """Some hundred sequences; the long run has twenty thousand."""
    tried(300)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_sequence_of_events_loses_doubles_or_charges_at_length():
    """Twenty thousand sequences."""
    tried(20_000)


# ── The machine is held against faults put in by hand ────────────────────────────


def ack_at_once(delivery, event, facts):
    """Acknowledge a job before its output is stored."""
    after, actions = lifecycle._receive(delivery, event, facts)
    return after, (*actions, Ack())


def keep_in_a_drain(delivery, event, facts):
    """Lose what a converter hands back in a drain."""
    if isinstance(event.report.outcome, NotBegun):
        return delivery._replace(state=State.GONE), ()
    return lifecycle._reported(delivery, event, facts)


def settle_a_redelivery(delivery, event, facts):
    """Settle a delivery again because it comes again."""
    lease = event.lease
    return delivery._replace(lease=lease), (Ack(), Settle(HandedBack()), Nak())


def charge_the_withdrawn(delivery, event, facts):
    """Charge a job that was handed back."""
    report = event.report
    if isinstance(report.outcome, NotBegun):
        report = Report(OUTCOMES[3], 0.0)
    return lifecycle._judge(delivery, report, facts)


@pytest.mark.parametrize(
    ("place", "fault", "complaint"),
    [
        ((State.RECEIVED, Delivered), ack_at_once, "nobody has done it"),
        ((State.CONVERTING, Reported), keep_in_a_drain, "lease is still open"),
        (
            (State.COMPLETING, Redelivered),
            settle_a_redelivery,
            "let go of twice|settled twice",
        ),
        ((State.CONVERTING, Reported), charge_the_withdrawn, "not tried"),
    ],
    ids=["early-ack", "lost-hand-back", "double-settle", "charged-unbegun"],
)
def test_the_machine_finds_faults_put_in_by_hand(place, fault, complaint, monkeypatch):
    """Each of the four faults that matter most is found within the suite's share."""
    monkeypatch.setitem(lifecycle.RULES, place, fault)

    # The first sequence that shows it will do; there is no need for the shortest.
    with pytest.raises(AssertionError, match=complaint):
        tried(2000, phases=[Phase.generate], derandomize=True)

"""How a delivery ended, what is counted of it, and the record of what went wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from bwpool.delivery import Delivery
from bwpool.errors import JobError
from bwpool.job import Job, names_of
from bwpool.policy import (
    Completed,
    Failed,
    HandedBack,
    Retried,
    Spent,
    Stalled,
    Terminated,
    Verdict,
)
from bwpool.pool.report import Report
from bwpool.queue.facts import ConsumerFacts
from bwpool.queue.lease import Lease
from bwpool.queue.records import ConverterEnd, FailureRecord

_EVENTS: dict[type[Verdict], str] = {
    Retried: "job.retried",
    Spent: "job.spent",
    Failed: "job.failed",
    Terminated: "job.terminated",
    Stalled: "job.kept",
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one delivery ended, for whoever wants to count, show or keep it."""

    lease: Lease
    job: Job | None
    """None where the payload could not be read."""
    verdict: Verdict
    report: Report | None
    """What the pool said; None where it was not asked."""


Listener = Callable[[Settlement], None]
"""Is told of every settlement, in the event loop; it must not block."""


@dataclass(slots=True)
class Tally:
    """What one supervisor has done so far; a listener."""

    converted: int = 0
    retried: int = 0
    failed: int = 0
    handed_back: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    pixels: int = 0

    def __call__(self, settlement: Settlement) -> None:
        """Count a settlement."""
        match settlement.verdict:
            case Completed(converted):
                self.converted += 1
                self.bytes_in += converted.bytes_in
                self.bytes_out += converted.bytes_out
                self.pixels += converted.pixels
            case Retried():
                self.retried += 1
            case Failed() | Terminated():
                self.failed += 1
            case HandedBack():
                self.handed_back += 1


def log_completion(settlement: Settlement) -> None:
    """Write the line of a job that is done; a listener."""
    if not isinstance(settlement.verdict, Completed):
        return
    job, lease, report = settlement.job, settlement.lease, settlement.report
    assert job is not None
    assert report is not None
    log.info(
        "job.completed",
        job_id=job.id,
        seq=lease.seq,
        attempt=lease.attempt,
        elapsed=round(report.elapsed, 4),
    )


def log_failure(delivery: Delivery, record: FailureRecord) -> None:
    """Write the line of an attempt that failed."""
    assert delivery.verdict is not None
    log.warning(
        _EVENTS[type(delivery.verdict)],
        job_id=record.id,
        seq=record.seq,
        attempt=record.attempt,
        kind=record.kind,
        reason=record.reason,
    )


def failure_record(consumer: ConsumerFacts, delivery: Delivery) -> FailureRecord:
    """Describe a failure as the failures stream keeps it."""
    lease, report = delivery.lease, delivery.report
    assert report is not None
    error = report.outcome
    assert isinstance(error, JobError)
    job_id, image = names_of(lease.payload)
    return FailureRecord(
        stream=consumer.stream,
        consumer=consumer.name,
        seq=lease.seq,
        attempt=lease.attempt,
        max_deliver=consumer.max_deliver,
        final=isinstance(delivery.verdict, Failed | Terminated),
        kind=error.kind,
        reason=error.reason,
        id=job_id,
        image=image,
        subject=lease.subject,
        payload=lease.payload,
        elapsed=round(report.elapsed, 3),
        converter=_converter_end(report),
    )


def _converter_end(report: Report) -> ConverterEnd | None:
    """What is known of the converter: all of it if it died, else which one it was."""
    if report.pid is None:
        return None
    death = report.death
    if death is None:
        return ConverterEnd(pid=report.pid)
    return ConverterEnd(
        pid=report.pid,
        exitcode=death.exitcode,
        signal=death.signal,
        max_rss_bytes=death.doing.max_rss_bytes,
        stderr=death.stderr,
    )

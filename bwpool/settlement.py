"""How one delivery ended, and the record of it where it did not end well."""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from bwpool.errors import JobError
from bwpool.job import Job
from bwpool.policy import Failed, Terminated, Verdict
from bwpool.pool.report import Report
from bwpool.queue.facts import ConsumerFacts
from bwpool.queue.lease import Lease
from bwpool.queue.records import ConverterEnd, FailureRecord


@dataclass(frozen=True, slots=True)
class Settlement:
    """How one delivery ended, for whoever wants to count, show or keep it."""

    lease: Lease
    job: Job | None
    """None where the payload could not be read."""
    verdict: Verdict


def failure_record(
    consumer: ConsumerFacts, settlement: Settlement, report: Report
) -> FailureRecord:
    """Describe a failure as the failures stream keeps it."""
    lease, error = settlement.lease, report.outcome
    assert isinstance(error, JobError)
    job_id, image = _names(settlement)
    return FailureRecord(
        stream=consumer.stream,
        consumer=consumer.name,
        seq=lease.seq,
        attempt=lease.attempt,
        max_deliver=consumer.max_deliver,
        final=isinstance(settlement.verdict, Failed | Terminated),
        kind=error.kind,
        reason=error.reason,
        id=job_id,
        image=image,
        subject=lease.subject,
        payload=lease.payload,
        elapsed=round(report.elapsed, 3),
        converter=_converter_end(report),
    )


def _names(settlement: Settlement) -> tuple[str | None, str | None]:
    """The job's id and source, read leniently from a payload that is no job."""
    if settlement.job is not None:
        return settlement.job.id, settlement.job.image
    try:
        fields = orjson.loads(settlement.lease.payload)
    except orjson.JSONDecodeError:
        return None, None
    if not isinstance(fields, dict):
        return None, None
    job_id, image = fields.get("id"), fields.get("image")
    return (
        job_id if isinstance(job_id, str) else None,
        image if isinstance(image, str) else None,
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

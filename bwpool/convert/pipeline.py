"""The steps of a conversion, in order, and what surrounds them.

Called by the converter's loop. Whatever foreign a step lets through is classified
here, so that callers see job errors only.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from bwpool.convert import bilevel, complaints, encode, general, inspection
from bwpool.convert.classify import classify, is_truncation, system_trouble
from bwpool.convert.plan import BUFFERED_BYTES, Plan, Stages
from bwpool.errors import BadImage, ConversionFailed, CutShort, JobError
from bwpool.job import Converted, Job
from bwpool.settings import ConvertSettings
from bwpool.storage import AWAY, Pending, Source, open_source, parse_uri

STEPS: tuple[tuple[str, Callable[[Plan, Any], Any]], ...] = (
    ("decode", inspection.decode),  # picture → gray pages
    ("bilevel", bilevel.bilevel),  # gray pages → pages of black and white
    ("encode", encode.encode),  # pages → chunks of a file
    ("write", encode.write),  # chunks → an output that wants its name
)
"""What happens to a picture after `open` and `inspect`. Pages and chunks are made as
they are asked for, so that a picture larger than memory passes through in strips."""


def prepare(settings: ConvertSettings) -> None:
    """Make this process ready to convert; once, before the first picture."""
    general.prepare()
    bilevel.prepare(settings.method)


def convert(
    job: Job,
    settings: ConvertSettings,
    *,
    on_stage: Callable[[str], None] = lambda _: None,
) -> tuple[Converted, Pending]:
    """Convert one picture, up to an output that only wants its name.

    `on_stage` is told of each stage as it begins. The caller commits or discards the
    pending output, on any thread. Raises job errors only, each with its stage.
    """
    stages = Stages(on_stage)
    stages.enter("open")
    try:
        roots, found = settings.source_root, settings.found
        path = parse_uri(job.image)
        with open_source(path, roots, found.sources, found.mounts) as source:
            try:
                return _convert(job, settings, source, stages)
            except Exception as error:  # noqa: BLE001 - the boundary to all libraries
                # Without names for them, the errors don't keep the picture in memory.
                raise _explain(error, stages.current, source) from (
                    error.__cause__ if isinstance(error, JobError) else error
                )
    except JobError as error:
        error.stage = error.stage or stages.current
        raise


def _convert(
    job: Job, settings: ConvertSettings, source: Source, stages: Stages
) -> tuple[Converted, Pending]:
    complaints.take()  # what came before is no longer of interest
    stages.enter("inspect")
    plan = inspection.plan(job, settings, source)
    value: Any = plan.picture
    for name, step in STEPS:
        value = stages.run(name, step, plan, value)
    pending: Pending = value
    stages.enter("")
    if source.is_changed():
        pending.discard()
        raise ConversionFailed("the source changed while it was read")
    return (
        Converted(
            output=pending.path,
            bytes_in=source.size,
            bytes_out=pending.size,
            pixels=plan.picture.pixels,
            stages=stages.seconds,
            warnings=complaints.take(),
        ),
        pending,
    )


def _explain(error: Exception, stage: str, source: Source) -> JobError:
    """Turn what went wrong into a job error, knowing that writers take their time."""
    number = system_trouble(error, stage)
    if number in AWAY:
        return source.explain(OSError(number, os.strerror(number), source.path))
    known = classify(error, stage)
    if not isinstance(known, BadImage):
        return known
    if source.is_changed():
        return ConversionFailed(f"the source changed while it was read: {known.reason}")
    if not is_truncation(known.reason):
        return known
    if source.size > BUFFERED_BYTES:  # what could not be read looks like an end
        try:
            source.read_through()
        except JobError as unreadable:
            return unreadable
    reason = f"{known.reason}; it may still be on its way"
    return CutShort(reason, source.seen)

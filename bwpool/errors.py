"""Every error bwpool raises, named by the decision that it forces.

Foreign exceptions are turned into these once, at the boundary that imports their
library. Only the command line turns them into exit codes.
"""

from __future__ import annotations

from typing import ClassVar


class BwpoolError(Exception):
    """Something bwpool can explain; its text says what is wrong and what to do."""


class ConfigError(BwpoolError):
    """The command can't start as it was called: exit code 2."""


class QueueError(BwpoolError):
    """The server, the stream or the consumer can't be used; never charged to a job."""


class JobError(BwpoolError):
    """A job that could not be done this time.

    `kind` is the contract's word for it. `stage` is the step of the conversion that
    raised it, where one did.
    """

    kind: ClassVar[str]
    retryable: ClassVar[bool] = True

    def __init__(self, reason: str, *, stage: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stage = stage


class InvalidJob(JobError):
    """The payload can't be read as a job, or asks for something impossible."""

    kind = "invalid-job"
    retryable = False


class SourceRefused(JobError):
    """The source's scheme, folder or file type is not allowed here."""

    kind = "source-refused"
    retryable = False


class SourceMissing(JobError):
    """No such source; retried, since shared storage may lag behind the queue."""

    kind = "source-missing"


class BadImage(JobError):
    """The source can't be decoded: not a picture, damaged, or cut short."""

    kind = "bad-image"
    retryable = False


class CutShort(BadImage):
    """The source ends too early, and may still be on its way: retried for that.

    `seen` is its size in bytes and its mtime in nanoseconds. Whoever sees the same
    again after a while knows that nobody writes to it any more.
    """

    retryable = True

    def __init__(
        self, reason: str, seen: tuple[int, int], *, stage: str | None = None
    ) -> None:
        super().__init__(reason, stage=stage)
        self.seen = seen


class LimitExceeded(JobError):
    """The source has more bytes, pixels or pages than the settings allow."""

    kind = "limit-exceeded"
    retryable = False


class StorageUnavailable(JobError):
    """Outputs can't be stored, or sources not be read: the supervisor's trouble."""

    kind = "storage-unavailable"


class ConversionTimeout(JobError):
    """The conversion ran past its time and its converter was killed."""

    kind = "conversion-timeout"


class ConverterCrashed(JobError):
    """The converter died under the job."""

    kind = "converter-crashed"


class ConversionFailed(JobError):
    """Anything unclassified."""

    kind = "conversion-failed"


JOB_ERRORS: dict[str, type[JobError]] = {
    error.kind: error
    for error in (
        InvalidJob,
        SourceRefused,
        SourceMissing,
        BadImage,
        LimitExceeded,
        StorageUnavailable,
        ConversionTimeout,
        ConverterCrashed,
        ConversionFailed,
    )
}
"""The job errors by kind, for what comes back from a converter."""

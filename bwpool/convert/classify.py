"""Tells a broken picture from a trouble of ours, by what the libraries say.

The one place that knows their messages. Called at the pipeline's boundary.
"""

from __future__ import annotations

import errno
import logging
import struct

import pyvips

from bwpool.errors import BadImage, ConversionFailed, JobError, LimitExceeded

_log = logging.getLogger(__name__)

_READING = ("inspect", "decode")
_DECODERS = (
    pyvips.Error,
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    struct.error,
)
"""What libvips, Pillow and simplejpeg raise about a source that they can't read."""
_MEMORY = (
    "out of memory",
    "insufficient memory",
    "memory allocation",
    "cannot allocate",
    "unable to allocate",
)
_SYSTEM = {
    "input/output error": errno.EIO,
    "stale file handle": errno.ESTALE,
    "connection timed out": errno.ETIMEDOUT,
    "transport endpoint is not connected": errno.ENOTCONN,
    "too many open files": errno.EMFILE,
    "creating thread": errno.EAGAIN,
}
"""What libvips passes on of the system's troubles, which are not the picture's."""
_TRUNCATION = (
    "premature end",  # libjpeg, in libvips' words and its own
    "truncated",  # Pillow, libspng, libwebp
    "ends too early",
    "unable to parse image",  # libwebp
    "broken data stream",  # Pillow, of JPEG 2000
    "end of file",
    "end of stream",
    "unexpected end",
    "out of data",
    "not enough data",
    "read error",  # libtiff, libspng
    "read gave",
    "is empty",
)


def classify(error: Exception, stage: str) -> JobError:
    """Name the job error that `error`, raised in `stage`, amounts to."""
    if isinstance(error, JobError):
        return error
    reason = _reason(error)
    lowered = reason.lower()
    if isinstance(error, MemoryError) or any(word in lowered for word in _MEMORY):
        return LimitExceeded(f"the picture needs too much memory ({reason})")
    if stage in _READING and _is_decoders(error, stage):
        return BadImage(reason)
    _log.error("unclassified, in stage %s", stage, exc_info=error)  # perhaps a bug
    return ConversionFailed(f"{type(error).__name__}: {reason}")


def is_truncation(reason: str) -> bool:
    """Whether a decoder's complaint is that the file ends too early."""
    lowered = reason.lower()
    return any(words in lowered for words in _TRUNCATION)


def system_trouble(error: Exception, stage: str) -> int:
    """Return the number of the system's error if reading failed with one, else 0."""
    if isinstance(error, JobError) or stage not in _READING:
        return 0
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    said = _reason(error).lower()
    return next((number for words, number in _SYSTEM.items() if words in said), 0)


def _is_decoders(error: Exception, stage: str) -> bool:
    return isinstance(error, _DECODERS) and not system_trouble(error, stage)


def _reason(error: Exception) -> str:
    if not isinstance(error, pyvips.Error):
        return str(error) or type(error).__name__
    lines = dict.fromkeys(line.strip() for line in error.detail.splitlines())
    return "; ".join(filter(None, lines)) or error.message

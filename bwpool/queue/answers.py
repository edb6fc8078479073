"""JetStream's answers to requests, checked before anybody reads a field of them.

Owns which fields we rely on, and of what type they are. Called by `connection` for
requests to the API, and by whoever publishes for the stream's confirmations.
"""

from __future__ import annotations

from typing import Any

import orjson

from bwpool.errors import QueueError
from bwpool.queue.shapes import Shape, check

_STREAM: Shape = {
    "created": str,
    "config": {
        "name": str,
        "retention?": str,
        "storage?": str,
        "discard?": str,
        "subjects?": [str],
        "max_msgs?": int,
        "max_bytes?": int,
        "max_age?": int,
        "max_msg_size?": int,
        "num_replicas?": int,
        "duplicate_window?": int,
        "metadata?": {str: str},
    },
    "state": {"messages": int, "last_seq": int, "subjects?": {str: int}},
    "total?": int,
}

_CONSUMER: Shape = {
    "created": str,
    "config": {
        "ack_policy?": str,
        "replay_policy?": str,
        "deliver_policy?": str,
        "deliver_subject?": str,
        "ack_wait?": int,
        "backoff?": [int],
        "max_deliver?": int,
        "max_ack_pending?": int,
        "filter_subject?": str,
        "filter_subjects?": [str],
        "metadata?": {str: str},
    },
    "delivered": {"stream_seq": int},
    "num_pending": int,
    "num_ack_pending": int,
    "num_waiting": int,
    "paused?": bool,
}

_MESSAGE: Shape = {
    "message": {"seq": int, "subject": str, "time": str, "data?": str, "hdrs?": str}
}

_SHAPES: dict[str, Shape] = {
    "STREAM.INFO": _STREAM,
    "STREAM.CREATE": _STREAM,
    "STREAM.UPDATE": _STREAM,
    "STREAM.NAMES": {"streams?": [str]},
    "STREAM.MSG.GET": _MESSAGE,
    "CONSUMER.INFO": _CONSUMER,
    "CONSUMER.CREATE": _CONSUMER,
}
"""By the first words of the request; other answers only have to be objects."""

_REFUSAL: Shape = {"error?": {"code?": int, "err_code?": int, "description?": str}}

CONFIRMATION: Shape = {"seq": int, "duplicate?": bool}
"""What a stream says of a message that it has stored."""


def shape_of(suffix: str) -> Shape:
    """Return what the answer to an API request, such as `STREAM.INFO.X`, looks like."""
    words = suffix.split(".")
    return _SHAPES.get(".".join(words[:2])) or _SHAPES.get(".".join(words[:3]), {})


def read_answer(subject: str, data: bytes, shape: Shape) -> dict[str, Any]:
    """Read the answer to a request to `subject`: a refusal, or of the given shape.

    Raises QueueError, naming the request, for anything else.
    """
    try:
        answer: dict[str, Any] = orjson.loads(data)
        check(answer, _REFUSAL)
        if answer.get("error") is None:
            check(answer, shape)
    except ValueError as error:
        raise malformed(subject, error) from None
    return answer


def malformed(subject: str, error: ValueError) -> QueueError:
    """Explain what is wrong with an answer to a request to `subject`."""
    return QueueError(f"the answer to {subject} makes no sense: {error}")

"""Messages read straight out of a stream, without a consumer.

Owns how JetStream's MSG.GET is asked and read. Called by `failures`; imports only
`connection` here.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bwpool.queue.connection import ApiError, Connection

_NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message as the stream keeps it."""

    seq: int
    subject: str
    payload: bytes
    time: datetime
    """When the server stored it, by the server's clock."""


async def get_message(
    connection: Connection, stream: str, query: dict[str, Any]
) -> StoredMessage | None:
    """Return the message that `query` names; None if there is none, or no stream.

    Queries: `{"seq": n}`, `{"last_by_subj": s}`, `{"seq": n, "next_by_subj": s}`.
    """
    try:
        answer = await connection.api(f"STREAM.MSG.GET.{stream}", query)
    except ApiError as error:
        if error.code != _NOT_FOUND:
            raise
        return None
    message = answer["message"]
    return StoredMessage(
        seq=message["seq"],
        subject=message["subject"],
        payload=base64.b64decode(message.get("data", "")),
        time=datetime.fromisoformat(message["time"]),
    )


async def messages_on(
    connection: Connection, stream: str, subject: str, up_to: int | None = None
) -> AsyncIterator[StoredMessage]:
    """Yield what is stored on `subject`, oldest first, up to a sequence."""
    seq = 1
    while up_to is None or seq <= up_to:
        query = {"seq": seq, "next_by_subj": subject}
        message = await get_message(connection, stream, query)
        if message is None or (up_to is not None and message.seq > up_to):
            return
        yield message
        seq = message.seq + 1

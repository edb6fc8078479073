"""Putting a job back into the queue as if it were new, without losing it on the way."""

from __future__ import annotations

from nats import errors as nats_errors
from nats.js import errors as js_errors

from bwpool.errors import QueueError
from bwpool.queue.connection import Connection
from bwpool.queue.lease import RESCUED, Lease

MSG_ID = "Nats-Msg-Id"

_BLOCK_BYTES = len(b"NATS/1.0\r\n\r\n")
_LINE_BYTES = len(b": \r\n")


def header_bytes(headers: dict[str, str]) -> int:
    """Count what `headers` add to a message; JetStream's size limit includes it."""
    if not headers:
        return 0
    lines = (len(k.encode()) + len(v.encode()) + _LINE_BYTES for k, v in headers.items())
    return _BLOCK_BYTES + sum(lines)


async def put_back(connection: Connection, lease: Lease, max_msg_size: int) -> int:
    """Publish a lease's job anew, marked as rescued, and return its new sequence.

    The old message is left to be acknowledged. The id is made from the old sequence, so
    that doing this twice stores one copy; headers that would break the size limit are
    left out. Raises QueueError while it is not known to be stored.
    """
    headers = {MSG_ID: f"rq:{lease.seq}", RESCUED: "1"}
    for name in list(headers):
        if 0 <= max_msg_size < header_bytes(headers) + len(lease.payload):
            del headers[name]
    try:
        stored = await connection.client.jetstream().publish(
            lease.subject, lease.payload, headers=headers or None
        )
    except (nats_errors.Error, js_errors.Error) as error:
        raise QueueError(f"can't put message {lease.seq} back: {error}") from error
    if stored.duplicate and stored.seq == lease.seq:
        raise QueueError(f"message {lease.seq} was taken for its own copy")
    return stored.seq

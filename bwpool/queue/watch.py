"""Listening to plain NATS subjects, across reconnects and rebuilds of the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from nats import errors as nats_errors
from nats.aio.msg import Msg

from bwpool.background import Background
from bwpool.queue.connection import Connection


@asynccontextmanager
async def watching(
    connection: Connection, subject: str, tell: Callable[[bytes], None]
) -> AsyncIterator[None]:
    """Call `tell` with the payload of each message on `subject`, within the block.

    What is published while the connection is down is missed.
    """

    async def receive(msg: Msg) -> None:
        tell(msg.data)

    client = connection.client
    subscription = await client.subscribe(subject, cb=receive)
    background = Background()

    async def renew() -> None:
        nonlocal client, subscription
        if connection.client is not client:
            client = connection.client
            subscription = await client.subscribe(subject, cb=receive)

    def on_up() -> None:
        background.start(renew())

    connection.on_up.append(on_up)
    try:
        yield
    finally:
        connection.on_up.remove(on_up)
        await background.close()
        if not client.is_closed:
            # The connection's end would be the subscription's as well.
            with suppress(TimeoutError, nats_errors.Error):
                await asyncio.wait_for(subscription.unsubscribe(), 1.0)

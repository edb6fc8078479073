"""Queues on a real server, handled as operators and plain workers do."""

from __future__ import annotations

from typing import Any

from nats.aio.msg import Msg

from bwpool.queue.connection import Connection
from bwpool.queue.topology import Plan, apply, inspect, plan, wanted
from bwpool.settings import QueueSettings


async def check(connection: Connection, names: QueueSettings) -> Plan:
    """Compare the server with what the seed's commands make."""
    return plan(await inspect(connection, names), wanted(names))


async def setup(connection: Connection, names: QueueSettings) -> Plan:
    """Bring the server in line; return what was planned."""
    todo = await check(connection, names)
    await apply(connection, todo)
    return todo


async def stream_config(connection: Connection, stream: str) -> dict[str, Any]:
    """Read a stream's configuration."""
    config: dict[str, Any] = (await connection.api(f"STREAM.INFO.{stream}"))["config"]
    return config


async def change_stream(connection: Connection, stream: str, **fields: Any) -> None:
    """Change a stream as an operator would."""
    config = await stream_config(connection, stream)
    await connection.api(f"STREAM.UPDATE.{stream}", config | fields)


async def consumer_config(
    connection: Connection, names: QueueSettings
) -> dict[str, Any]:
    """Read the consumer's configuration."""
    answer = await connection.api(f"CONSUMER.INFO.{names.stream}.{names.consumer}")
    config: dict[str, Any] = answer["config"]
    return config


async def make_consumer(
    connection: Connection, names: QueueSettings, **fields: Any
) -> None:
    """Make or change the consumer as an operator would."""
    config = (wanted(names).consumer or {}) | fields
    config = {name: value for name, value in config.items() if value is not None}
    body = {"stream_name": names.stream, "config": config}
    subject = f"CONSUMER.CREATE.{names.stream}.{names.consumer}"
    if "filter_subject" in config:
        subject += f".{config['filter_subject']}"
    await connection.api(subject, body)


async def deliver(
    connection: Connection, names: QueueSettings, body: bytes = b""
) -> Msg:
    """Pull one message as the seed's loop does."""
    suffix = f"CONSUMER.MSG.NEXT.{names.stream}.{names.consumer}"
    # The reply carries the stream's subject: nats-py finds it only in the old style.
    return await connection.client.request(
        connection.api_subject(suffix), body, timeout=2, old_style=True
    )


async def let_one_die(connection: Connection, names: QueueSettings) -> None:
    """Use up a message's deliveries."""
    await connection.request(names.subject, b"{}")
    for _ in range((await consumer_config(connection, names))["max_deliver"]):
        message = await deliver(connection, names)
        await connection.request(message.reply, b"-NAK")
    # The last nak shows once somebody asks for more.
    await deliver(connection, names, b'{"batch":1,"expires":50000000}')

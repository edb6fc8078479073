"""bwpool in processes of its own, as its users run it, and the seed's topology."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson

from bwpool.queue.connection import Connection
from bwpool.settings import QueueSettings

TESTS = Path(__file__).parent

SEED_STREAM = {
    "retention": "workqueue",
    "max_consumers": -1,
    "max_msgs_per_subject": -1,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_age": 0,
    "max_msg_size": 512,
    "storage": "file",
    "discard": "old",
    "num_replicas": 1,
    "duplicate_window": 3600_000_000_000,
    "allow_direct": True,
}
"""What the seed's `nats stream add` creates, but for the names."""

SEED_CONSUMER = {
    "ack_policy": "explicit",
    "ack_wait": 30_000_000_000,
    "deliver_policy": "all",
    "max_deliver": 5,
    "replay_policy": "instant",
    "num_replicas": 0,
}
"""What the seed's `nats consumer add` creates, but for the names."""


async def create_seed_topology(
    connection: Connection, names: QueueSettings, **consumer
) -> None:
    """Create a stream and a consumer as the seed's two commands do."""
    subjects = [f"{names.stream}.>"]
    stream = SEED_STREAM | {"name": names.stream, "subjects": subjects}
    await connection.api(f"STREAM.CREATE.{names.stream}", stream)
    config = SEED_CONSUMER | {
        "durable_name": names.consumer,
        "name": names.consumer,
        "filter_subject": names.subject,
    }
    await connection.api(
        f"CONSUMER.CREATE.{names.stream}.{names.consumer}.{names.subject}",
        {"stream_name": names.stream, "config": config | consumer, "action": ""},
    )


async def publish(connection: Connection, names: QueueSettings, job) -> int:
    """Publish a job by NATS request, as the seed does; return its sequence."""
    payload = job if isinstance(job, bytes) else orjson.dumps(job)
    reply = await connection.request(names.subject, payload)
    return orjson.loads(reply.data)["seq"]


async def publish_all(connection: Connection, names: QueueSettings, jobs) -> None:
    """Publish many."""
    await asyncio.gather(*(publish(connection, names, job) for job in jobs))


async def consumer_info(connection: Connection, names: QueueSettings) -> dict:
    """What the server says of the consumer."""
    return await connection.api(f"CONSUMER.INFO.{names.stream}.{names.consumer}")


async def stored(connection: Connection, names: QueueSettings) -> int:
    """How many messages the stream holds."""
    info = await connection.api(f"STREAM.INFO.{names.stream}")
    return info["state"]["messages"]


async def eventually(condition, timeout=10.0):
    """Wait until the coroutine function `condition` returns something true."""
    async with asyncio.timeout(timeout):
        while not (result := await condition()):
            await asyncio.sleep(0.02)
        return result


class Program:
    """A process, its output collected; killed at the end of the test."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stdout = b""
        self.stderr = b""

    @property
    def pid(self) -> int:
        """Its process id, and its group's."""
        return self.process.pid

    async def line(self, timeout=20.0) -> str:
        """Wait for the next line on stdout."""
        async with asyncio.timeout(timeout):
            return (await self.process.stdout.readline()).decode().rstrip()

    async def error_line(self, timeout=20.0) -> str:
        """Wait for the next line on stderr."""
        async with asyncio.timeout(timeout):
            line = await self.process.stderr.readline()
        self.stderr += line
        if not line:
            raise RuntimeError(f"it ended: {self.stderr.decode()}")
        return line.decode().rstrip()

    async def wait(self, timeout=60.0) -> int:
        """Wait for its end, and return its exit code."""
        async with asyncio.timeout(timeout):
            stdout, stderr = await self.process.communicate()
        self.stdout += stdout
        self.stderr += stderr
        return self.process.returncode

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        self.process.send_signal(number)

    def send_group(self, number: signal.Signals) -> None:
        """Send a signal to its whole process group, as a terminal does."""
        os.killpg(self.pid, number)

    async def kill(self) -> None:
        """Kill it, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.wait()


@contextlib.asynccontextmanager
async def program(
    *argv, env=None, cwd=None, stdin=None, is_open=False
) -> AsyncIterator[Program]:
    """Run `argv` in a process group of its own; `is_open`: more stdin might come."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "BWPOOL"))
    }
    clean.pop("OUTDIR", None)
    process = await asyncio.create_subprocess_exec(
        *map(str, argv),
        env=clean | (env or {}),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        limit=1 << 24,
    )
    if stdin is not None:
        process.stdin.write(stdin)
        if not is_open:
            process.stdin.close()
    running = Program(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await running.wait()


def bwpool(*argv, **options):
    """Run the command line."""
    return program(sys.executable, "-m", "bwpool", *argv, **options)


def supervise(url, names: QueueSettings, out, **options):
    """Run a supervisor whose converters misbehave on demand; see `supervise.py`."""
    queue = {
        "stream": names.stream,
        "consumer": names.consumer,
        "subject": names.subject,
    }
    given = json.dumps({"queue": queue, "out": str(out), **options})
    return program(sys.executable, TESTS / "supervise.py", url, given)


def environment(server, names):
    """The variables that name a server and a queue."""
    return {
        "NATS_URL": server.url,
        "BWPOOL_STREAM": names.stream,
        "BWPOOL_CONSUMER": names.consumer,
        "BWPOOL_SUBJECT": names.subject,
    }


async def said(program, event):
    """Wait until a program logs an event, and return its fields."""
    while True:
        line = await program.error_line()
        with contextlib.suppress(orjson.JSONDecodeError):
            fields = orjson.loads(line)
            if fields["event"] == event:
                return fields


async def create_consumer(connection, names, **fields):
    """Create a consumer like the seed's, but for `fields`."""
    config = {
        "durable_name": names.consumer,
        "ack_policy": "explicit",
        "ack_wait": 30_000_000_000,
        "max_deliver": 5,
        "filter_subject": names.subject,
    }
    await connection.api(
        f"CONSUMER.CREATE.{names.stream}.{names.consumer}.{names.subject}",
        {"stream_name": names.stream, "config": config | fields, "action": ""},
    )

"""How fast a worker is that does exactly what the seed's does, in Python.

One job at a time: NEXT request with an empty body, one command a picture, advisory,
ack without confirmation. Called as `python -m benchmarks.peers.seed URL OUT COMMAND…`,
where the command is `convert` with its option, or another with the same arguments.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlparse

import nats
from nats.aio.client import Client

NEXT = "$JS.API.CONSUMER.MSG.NEXT.IMAGES.BW"


def convert(command: list[str], job: dict[str, str], out: Path) -> None:
    """Convert one picture by a program of its own."""
    source = Path(unquote(urlparse(job["image"]).path))
    target = out / f"{job['id']}{source.suffix}"
    subprocess.run([*command, str(source), str(target)], check=True, timeout=30)


async def process_next(client: Client, command: list[str], out: Path) -> None:
    """Ask for a job, do it, say so, acknowledge it."""
    # The old style keeps the subject that the reply came on, where acks go.
    message = await client.request(NEXT, b"", timeout=60, old_style=True)
    job = json.loads(message.data)
    convert(command, job, out)
    if job.get("advisory"):
        await client.publish(job["advisory"], json.dumps({"id": job["id"]}).encode())
    await client.publish(message.reply, b"")


async def main(url: str, out: str, *command: str) -> None:
    """Work for ever."""
    client = await nats.connect(url)
    while True:
        await process_next(client, list(command), Path(out))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

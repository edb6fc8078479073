"""Jobs that nobody means well with, and a look at what came of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from benchmarks.fault_rig import NAMES, Rig
from bwpool.queue.connection import Connection

ALLOWED = "allowed"
INBOX = "_INBOX.forged"
"""Allowed as well: whoever submits a job may want to be told in its inbox."""

SERVERS = ("$JS.", "_INBOX.", "$SYS.", f"{NAMES.stream}.", "bwpool.failures.")
"""Begin the subjects on which supervisor and server speak with each other."""

IDS = [
    *("../up", "a/../../up", "/etc/up", "a//b", ".hidden", "a/.b", "~/up", "a\\b"),
    *("x" * 201, "x" * 200, "ü" * 130, "a\0b", "a\nb", "\x1b[2J", "con:", "", "-rf"),
    *("a/" * 90 + "b", "lost+found/x", "\u202eevil", "😀", "a" * 251, ".", "..", "/"),
]
SUBJECTS = [
    *("allowed.x", "allowed.y.z", "$JS.API.STREAM.DELETE.IMAGES", "$SYS.REQ.SERVER"),
    *("IMAGES.blackandwhite", "IMAGES.other", "bwpool.failures.IMAGES.BW.1", "a b"),
    *(
        "*",
        ">",
        "allowed.*",
        "allowed.>",
        "a..b",
        ".a",
        "a.",
        "x" * 256,
        "a\r\nPUB b 0",
    ),
    *("\t", "$JS.ACK.IMAGES.BW.1.2.3.4.5", INBOX, "", "bwpool", "$"),
]
URIS = [
    *("file:///etc/passwd", "file:///dev/zero", "file:///proc/self/mem", "file://"),
    *("http://127.0.0.1/x.jpg", "ftp://x/y", "s3://bucket/key", "gopher://x", "x.jpg"),
    *(
        "file://host/x.jpg",
        "file:///%",
        "file:///%zz",
        "file:///a%00b",
        "file:///a?b#c",
    ),
    *("FILE:///etc/hosts", "file:/etc/hosts", "file:///..%2f..%2fetc/passwd", "\ud7ff"),
    *("file:///dev/stdin", "file:///proc/self/fd/0", "data:image/png;base64,AAAA"),
]
PAYLOADS = [
    *(b"", b"{}", b"[]", b"null", b"1", b'"x"', b"{", b"\xff\xfe", b"\0" * 400),
    *(b"[" * 500, b'{"id":' * 80, b'{"id":1e999}', b'{"id":NaN}', b"nul", b" "),
    b'{"id":"a","id":"../b","image":"file:///etc/passwd"}',
]
HEADERS = [
    {"Bwpool-Rescued": "1"},
    {"Nats-Msg-Id": "rq:1"},
    {"Nats-Msg-Id": "rq:-1"},
    {"Nats-Msg-Id": "rq:999999999999999999999"},
    {"Nats-Msg-Id": "rq:٣"},
    {"Status": "503"},
    {"Status": "100", "Description": "Idle Heartbeat"},
    {"Nats-Rollup": "sub"},
    {"X": "y" * 200},
]


async def hostile_jobs(rig: Rig, folder: Path, count: int, rng: random.Random) -> None:
    """Publish so many jobs, some with headers that mean something to somebody."""
    for start in range(0, count, 100):
        await asyncio.gather(
            *(_publish(rig, folder, rng) for _ in range(min(100, count - start)))
        )


async def _publish(rig: Rig, folder: Path, rng: random.Random) -> None:
    headers = rng.choice(HEADERS) if rng.random() < 0.2 else None
    subject = NAMES.subject
    payload = _payload(folder, rng)[:500]
    inbox = rig.connection.client.new_inbox()
    with contextlib.suppress(ValueError):
        await rig.connection.client.publish(subject, payload, inbox, headers)


def _payload(folder: Path, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return rng.choice(PAYLOADS)
    sources = [(folder / name).as_uri() for name in ("whole.jpg", "truncated.jpg")]
    job: dict[str, Any] = {
        "id": _one(rng, IDS, lambda: f"fine-{rng.randrange(1000)}"),
        "image": _one(rng, URIS, lambda: rng.choice(sources)),
        "advisory": _one(rng, SUBJECTS, lambda: f"{ALLOWED}.{rng.randrange(9)}"),
    }
    for name, values in (
        ("method", ["otsu", "gray", "sauvola", "", 1, "__import__", None]),
        ("format", ["png", "tiff", "webp", "exe", [], "same", "jpg\0"]),
        ("quality", [1, 100, 0, 101, -1, 2**70, "75", True, 1.5]),
        (rng.choice(IDS), ["unknown"]),
    ):
        if rng.random() < 0.2:
            job[name] = rng.choice(values)
    if rng.random() < 0.2:
        job[rng.choice(list(job))] = rng.choice([None, [], {}, 1, 1.5, True, [[[]]]])
    data = json.dumps(job).encode()
    if rng.random() < 0.1:
        at = rng.randrange(len(data))
        data = data[:at] + rng.randbytes(rng.randrange(4)) + data[at + 1 :]
    return data


def _one(rng: random.Random, bad: list[str], good: Callable[[], str]) -> str:
    return rng.choice(bad) if rng.random() < 0.4 else good()


def snapshot(folder: Path, out: Path) -> set[str]:
    """Return the files around the output folder, and near where ids might lead."""
    inner = (path for path in folder.iterdir() if path not in (out, folder / "server"))
    near = [*folder.parent.rglob("*.jpg"), *Path("/etc").rglob("up*")]
    return {
        str(path)
        for path in [*inner, *near]
        if out not in path.parents and path.suffix != ".log"
    }


class Listener:
    """Hears every message, and keeps the subjects that no job may reach."""

    def __init__(self, connection: Connection) -> None:
        self.forbidden: set[str] = set()
        self._connection = connection
        self._subscription: Subscription

    async def __aenter__(self) -> Self:
        self._subscription = await self._connection.client.subscribe(">", cb=self._hear)
        await self._connection.flush()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._connection.flush()
        await self._subscription.unsubscribe()

    async def _hear(self, msg: Msg) -> None:
        is_fine = msg.subject.startswith((ALLOWED, INBOX))
        if not is_fine and not _is_advisory(msg.data):
            is_fine = msg.subject.startswith(SERVERS)
        if not is_fine:
            self.forbidden.add(msg.subject)


def _is_advisory(data: bytes) -> bool:
    """Whether it is what is told of a job that was done."""
    try:
        return set(orjson.loads(data)) == {"id"}
    except (ValueError, TypeError):
        return False

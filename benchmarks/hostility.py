"""Messages that nobody means well with, drawn by a seed."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fault_rig import NAMES
from benchmarks.raw import Raw

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
    *(b"X", b"NATS/1.0", b"NATS/1.0\r", b"NATS/1.0\r\n", b"", b"\r\n", b"\0\0\0\0"),
    *(b"NATS/1.0 503\r\n\r\n", b"NATS/1.0 408 \xff\r\n\r\n", b"NATS/1.0 \xff\xff\r\n"),
    *(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", b"NATS/1.0 409 Consumer Deleted\r\n"),
    *(b"HTTP/1.1 200 OK\r\n\r\n", b"NATS/1.0\n\nA: b\n\n", b"NATS/9.9\r\nA: b\r\n\r\n"),
]
"""Blocks of headers, as they are."""

LINES = [
    *(b"Bwpool-Rescued: 1", b"Nats-Msg-Id: rq:0", b"Nats-Msg-Id: rq:1", b"Status: 503"),
    *(b"Nats-Msg-Id: rq:-1", b"Nats-Msg-Id: rq:99999999999999999999", b":", b": x"),
    *(b"Nats-Msg-Id: rq:" + b"9" * 5000, b"Nats-Msg-Id: rq:\xd9\xa3", b"Nats-Msg-Id:"),
    *(b"Nats-Msg-Id: rq:1.AAAAAAAAAAAAAAAA", b"Nats-Msg-Id: rq:0.AAAAAAAAAAAAAAAA"),
    *(
        b"Nats-Rollup: sub",
        b"Nats-Expected-Last-Sequence: 1",
        b"Nats-TTL: 1s",
        b"\xff: x",
    ),
    *(b"Status: 100\r\nDescription: Idle Heartbeat", b"X: " + b"y" * 200, b"\0: \xff"),
    *(b"A: \xff\xfe", b"A : b", b"A\tB: c", b"Nats-Msg-Id: \x1b[2J", b"no colon"),
]
"""Lines of headers that mean something to somebody, or nothing to anybody."""


def strangers_message(folder: Path, rng: random.Random) -> Raw:
    """Draw one message that nobody means well with."""
    draw = rng.random()
    if draw < 0.6:
        payload = _payload(folder, rng)
    elif draw < 0.75:
        payload = rng.randbytes(rng.randrange(600))
    elif draw < 0.85:
        payload = _nested(rng)
    elif draw < 0.86:
        payload = _long(folder, rng)
    elif draw < 0.93:
        return _word_to_others(rng)
    else:
        payload = b"{}"
    return Raw(_subject(rng), payload, _headers(rng))


def _subject(rng: random.Random) -> bytes:
    """Draw a subject that the consumer gets."""
    if rng.random() < 0.7:
        return NAMES.subject.encode()
    odd = [
        b"\xff",
        b"\x0b1",
        b"\x0c",
        b"\x00",
        b"\x1b[2J",
        b"\xc2\x85",
        b"..",
        b".",
        b"*",
    ]
    end = rng.choice(odd) + rng.randbytes(rng.randrange(8)).translate(None, b" \t\r\n")
    return NAMES.stream.encode() + b"." + end


def _headers(rng: random.Random) -> bytes | None:
    """Draw a block of headers, none at all at times."""
    draw = rng.random()
    if draw < 0.5:
        return None
    if draw < 0.7:
        return rng.choice(HEADERS)
    if draw < 0.8:
        return rng.randbytes(rng.randrange(1, 60))
    lines = rng.sample(LINES, rng.randrange(1, 4))
    if rng.random() < 0.2:
        lines.append(b"Nats-Msg-Id: rq:%d" % rng.randrange(60_000))
    return b"NATS/1.0\r\n" + b"\r\n".join(lines) + b"\r\n\r\n"


def _nested(rng: random.Random) -> bytes:
    """Draw a job with a field that is nested deeply."""
    depth = rng.choice([100, 400, 1000, 1020, 1030, 5000])
    field = rng.choice(["id", "image", "method", "format", "quality", "advisory", "x"])
    begin, end = rng.choice([("[", "]"), ('{"a":', "}")])
    job = {"id": "nested", "image": "file:///x"}
    inner = ",".join(f'"{name}":"{job[name]}"' for name in job if name != field)
    return f'{{{inner},"{field}":{begin * depth}1{end * depth}}}'.encode()


def _long(folder: Path, rng: random.Random) -> bytes:
    """Draw a job of many bytes, one of which makes it none."""
    size = rng.choice([5000, 60_000, 900_000])
    job = {"id": "long", "image": (folder / "whole.jpg").as_uri()}
    field = rng.choice(["id", "image", "method", "x"])
    return json.dumps(
        job | {field: rng.choice(["y", "\x1b", "\ud800"]) * size}
    ).encode()


def _word_to_others(rng: random.Random) -> Raw:
    """Draw what poses as a record of a failure, or as JetStream's own word."""
    queue, seq = f"{NAMES.stream}.{NAMES.consumer}", rng.randrange(60_000)
    record: dict[str, Any] = {
        "v": 1,
        "stream": NAMES.stream,
        "consumer": NAMES.consumer,
        "seq": seq,
        "stream_seq": seq,
        "attempt": 5,
        "deliveries": 5,
        "max_deliver": 5,
        "final": True,
        "kind": "forged\x1b[2J",
        "reason": "\x1b]0;owned\x07",
        "id": "good-1",
        "image": "file:///x",
        "subject": NAMES.subject,
        "payload": "{}",
        "type": "io.nats.jetstream.advisory.v1.max_deliver",
        "time": "2026-01-01T00:00:00Z",
        "timestamp": "2026-01-01T00:00:00Z",
        "host": "x",
        "elapsed": 0,
    }
    odd = rng.choice([None, [], {}, "\x1b[2J", -1, 1.5, 2**64, [[[]]]])
    record[rng.choice(list(record))] = odd
    del record[rng.choice(["v", "stream", "seq", "kind", "time", "final", "reason"])]
    data = rng.choice([json.dumps(record).encode(), rng.randbytes(40)])
    places = (f"bwpool.failures.{queue}.{seq}", f"bwpool.failures.{queue}.\x0b")
    deaths = (f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{queue}",)
    return Raw(rng.choice(places + deaths).encode(), data, _headers(rng))


def _payload(folder: Path, rng: random.Random) -> bytes:
    if rng.random() < 0.15:
        return rng.choice(PAYLOADS)
    names = ("whole.jpg", "truncated.jpg", "missing.jpg")
    sources = [(folder / name).as_uri() for name in names]
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
        # Before the advisory: one that is garbled may be a subject of anybody's.
        at = rng.randrange((data.find(b'"advisory"') + 1 or len(data) + 1) - 1)
        data = data[:at] + rng.randbytes(rng.randrange(4)) + data[at + 1 :]
    return data


def _one(rng: random.Random, bad: list[str], good: Callable[[], str]) -> str:
    return rng.choice(bad) if rng.random() < 0.4 else good()

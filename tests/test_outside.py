"""What strangers wrote: read without belief, and shown without effect."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal

import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from lies import EVIL, ODD, damaged
from processes import bwpool, environment
from queues import let_one_die, setup

from bwpool.backfill.account import read_failure
from bwpool.cli.common import (
    CommonSettings,
    as_json_line,
    configure_logging,
    printable_lines,
)
from bwpool.job import converted_id
from bwpool.queue import dead
from bwpool.queue.advisories import read_advisory
from bwpool.queue.failures import FailureRecord, has_record
from bwpool.settings import QueueSettings

# ── Failure records and advisories ───────────────────────────────────────────────

RECORD = {
    "v": 1,
    "stream": "IMAGES",
    "consumer": "BW",
    "seq": 1,
    "attempt": 5,
    "max_deliver": 5,
    "final": True,
    "kind": "bad-image",
    "reason": "no picture",
    "id": "a",
    "image": "file:///a",
    "subject": "IMAGES.blackandwhite",
    "payload": "{}",
    "time": "2026-01-01T00:00:00Z",
    "host": "here",
    "elapsed": 0.1,
    "converter": {"pid": 1, "exitcode": None, "signal": 9, "stderr": "oh"},
}
ADVISORY = {
    "type": "io.nats.jetstream.advisory.v1.max_deliver",
    "id": "x",
    "timestamp": "2026-01-01T00:00:00Z",
    "stream": "IMAGES",
    "consumer": "BW",
    "stream_seq": 1,
    "deliveries": 5,
}
TIMES = ["", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59Z", "2026-01-01", "now"]


def test_a_damaged_record_is_none_or_whole():
    """What `from_json` returns can be written, and has every field's type."""
    lies = damaged(RECORD) + [RECORD | {"time": time} for time in TIMES]
    read = 0
    for lie in lies:
        try:
            record = FailureRecord.from_json(orjson.dumps(lie))
        except ValueError:
            continue
        read += 1
        assert FailureRecord.from_json(record.to_json()) == record
        assert {type(record.kind), type(record.reason), type(record.host)} == {str}
        assert record.time.astimezone().tzinfo is not None
        assert isinstance(record.elapsed + record.attempt, int | float)

    assert 0 < read < len(lies) / 2


def test_a_damaged_advisory_is_none_or_whole():
    """The same for the server's own word."""
    for lie in damaged(ADVISORY) + [ADVISORY | {"timestamp": time} for time in TIMES]:
        with contextlib.suppress(ValueError):
            advisory = read_advisory(orjson.dumps(lie))
            assert {type(advisory.id), type(advisory.stream)} == {str}
            assert type(advisory.seq + advisory.deliveries) is int
            assert advisory.time.astimezone().tzinfo is not None


def test_a_backfill_believes_no_nonsense():
    """Neither a record nor an advisory that is none counts for one of its inputs."""
    told = {read_failure({"a": "file:///a"}, orjson.dumps(RECORD))}
    for lie in ODD:
        for part in ("v", "seq", "time", "reason", "kind", "converter"):
            wrong = RECORD | {part: lie if lie != "" else 7.5}
            told.add(read_failure({"a": "file:///a"}, orjson.dumps(wrong)))
        told.add(read_failure({"a": "file:///a"}, orjson.dumps(lie)))
    payloads = [b"\xff", b"{", *(orjson.dumps(lie) for lie in ODD)]
    ids = {converted_id(payload) for payload in payloads}
    ids |= {converted_id(orjson.dumps({"id": lie})) for lie in ODD}

    assert {str} == {type(text) for each in told if each for text in each}
    assert ids == {None, "", "\x1b[2J"}


def hostile_records(names: QueueSettings) -> list[bytes]:
    """Records about the first message: one whole and evil, the others damaged."""
    about = RECORD | {"stream": names.stream, "consumer": names.consumer}
    evil = about | dict.fromkeys(
        ("kind", "reason", "id", "image", "subject", "host"), EVIL
    )
    evil["converter"] = {"pid": 1, "stderr": EVIL}
    lies = [*damaged(about), evil]
    return [b"nonsense", b"\xff", b"\x1b[2J", *map(orjson.dumps, lies)]


@pytest.mark.parametrize(
    "argv", [("list",), ("list", "--json"), ("show", "1"), ("show", "1", "--json")]
)
async def test_records_of_strangers_do_nothing_to_a_terminal(
    argv, server, connection, queue
):
    """Whatever they hold is listed and shown escaped, or passed over."""
    await let_one_die(connection, queue)
    subject = f"bwpool.failures.{queue.stream}.{queue.consumer}.1"
    await asyncio.gather(
        *(connection.request(subject, record) for record in hostile_records(queue))
    )
    async with bwpool("failed", *argv, env=environment(server, queue)) as command:
        code = await command.wait()

    assert code == 0, command.stderr
    assert command.stderr == b""
    assert printable_lines(command.stdout.decode()) == command.stdout.decode()
    assert r"\x1b]0;owned" in command.stdout.decode().replace(r"\u001b", r"\x1b")


async def test_nonsense_after_a_record_hides_nothing(connection, queue):
    """A death stays explained, and known for its own, whatever is stored there next."""
    await let_one_die(connection, queue)
    about = RECORD | {"stream": queue.stream, "consumer": queue.consumer, "attempt": 1}
    subject = f"bwpool.failures.{queue.stream}.{queue.consumer}.1"
    for stored in (orjson.dumps(about), b"{}", orjson.dumps(about | {"seq": 2})):
        await connection.request(subject, stored)

    assert [job.kind async for job in dead.list_failed(connection, queue)] == [
        "bad-image"
    ]
    assert await has_record(connection, queue.stream, queue.consumer, 1, 2)


async def test_events_and_waiting_survive_strangers(
    server, connection, names, tmp_path
):
    """`events` and `submit --wait` go on, and show what they show escaped."""
    await setup(connection, names)
    env = environment(server, names)
    records = f"bwpool.failures.{names.stream}.{names.consumer}"
    deaths = f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{names.stream}"
    about = ADVISORY | {"stream": names.stream, "consumer": names.consumer}
    lies = [
        *damaged(about),
        about | {"id": EVIL, "stream": "a b"},
        about | {"id": EVIL},
    ]
    image = tmp_path / "x.jpg"
    submit = ("submit", image, "--wait", "--id", "a", "--advisory", "told")
    async with (
        bwpool("events", env=env) as text,
        bwpool("events", "--json", "--log-level", "info", env=env) as json,
        bwpool(*submit, env=env) as waiting,
    ):
        await text.line()
        await json.error_line()
        await waiting.line()
        for lie in hostile_records(names):
            await connection.publish(f"{records}.1", lie)
        for lie in [b"nonsense", *map(orjson.dumps, lies)]:
            await connection.publish(f"{deaths}.{names.consumer}", lie)
            await connection.publish("told", lie)
        mine = RECORD | {"stream": names.stream, "consumer": names.consumer}
        failed = mine | {"reason": EVIL, "image": image.as_uri()}
        await connection.publish(f"{records}.1", orjson.dumps(failed))
        code = await waiting.wait(10)
        last = mine | {"reason": "the last"}
        await connection.publish(f"{records}.1", orjson.dumps(last))
        said = ""
        for each in (text, json):
            while "the last" not in (line := await each.line()):
                said += line + "\n"
            each.send(signal.SIGINT)
            assert await each.wait() == 0, each.stderr
    said += (waiting.stdout + waiting.stderr).decode()

    assert code == 1
    assert printable_lines(said) == said
    assert b"Traceback" not in waiting.stderr + text.stderr + json.stderr
    assert r"\x1b]0;owned" in said


# ── Escaping itself ──────────────────────────────────────────────────────────────


@given(st.text())
def test_json_is_escaped_and_still_json(text):
    """Nothing is lost by it, whatever the characters."""
    line = as_json_line({text: [text]})

    assert line.isprintable()
    assert orjson.loads(line) == {text: [text]}


@pytest.mark.parametrize("form", ["text", "json"])
def test_logged_exceptions_are_escaped(form, capsys):
    """A traceback keeps its lines, and nothing else that moves a cursor."""
    try:
        configure_logging(CommonSettings(log_format=form))
        raise_and_log()
        logging.getLogger("nats").error("said %s", EVIL)
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers.clear()
    said = capsys.readouterr().err

    assert "owned" in said
    assert "raise_and_log" in said
    assert printable_lines(said) == said


def fail() -> None:
    raise ValueError(EVIL)


def raise_and_log() -> None:
    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("bug", said=EVIL)

"""`bwpool failed` and `bwpool events`, as their users run them."""

from __future__ import annotations

import signal

import orjson
import pytest
from processes import (
    bwpool,
    create_seed_topology,
    publish,
    publish_all,
    stored,
    supervise,
)
from queues import setup

from bwpool.queue.dead import list_failed


def environment(server, names):
    """The variables that name a server and a queue."""
    return {
        "NATS_URL": server.url,
        "BWPOOL_STREAM": names.stream,
        "BWPOOL_CONSUMER": names.consumer,
        "BWPOOL_SUBJECT": names.subject,
    }


@pytest.fixture
async def env(server, connection, queue, tmp_path):
    """A queue with three dead jobs: two bad pictures and one that is no job."""
    await publish_all(connection, queue, [job("bad-1"), job("bad-2")])
    await publish(connection, queue, b'{"id":"\x1b[2J"}')
    await supervise_once(server, queue, tmp_path)
    return environment(server, queue)


def job(what):
    return {"id": what, "image": "file:///x"}


async def supervise_once(server, names, out):
    async with supervise(server.url, names, out, burst=True, procs=1) as supervisor:
        await supervisor.wait()


async def run(env, *argv):
    """Run `bwpool failed`; return its exit code, lines and complaints."""
    async with bwpool("failed", *argv, env=env) as command:
        code = await command.wait()
    return code, command.stdout.decode().splitlines(), command.stderr.decode()


async def listed(connection, names):
    return [row.seq async for row in list_failed(connection, names)]


async def test_failures_are_grouped_and_filtered_by_kind(env):
    """The text groups and counts, `--kind` filters, a terminal is safe."""
    code, lines, _ = await run(env, "list")
    _, filtered, _ = await run(env, "list", "--kind", "bad-image", "--json")
    wrong, _, complaint = await run(env, "list", "--kind", "bad-weather")

    assert code == 0
    assert [lines[0], lines[1], lines[3]] == [
        "bad-image: 2 jobs",
        "  1  bad-1: no picture",
        "invalid-job: 1 job",
    ]
    assert "\x1b" not in lines[4]
    assert [orjson.loads(line)["seq"] for line in filtered] == [1, 2]
    assert wrong == 2
    assert "bad-image" in complaint


async def test_one_failure_is_shown_with_its_attempts(env):
    """The message and a record of each attempt that was made."""
    code, lines, _ = await run(env, "show", "1")
    _, (shown,), _ = await run(env, "show", "1", "--json")
    unknown, _, complaint = await run(env, "show", "99")

    known = orjson.loads(shown)
    assert code == 0
    assert lines[0] == "1  bad-image  bad-1: no picture"
    assert orjson.loads(known["payload"]) == job("bad-1")
    assert [record["final"] for record in known["records"]] == [False, True]
    assert unknown == 1
    assert "99 is not a failed job" in complaint


async def test_requeued_jobs_start_afresh(env, server, connection, queue, tmp_path):
    """New messages without a past take the place of the old, and all deliveries."""
    code, lines, _ = await run(env, "requeue", "--kind", "bad-image", "--json")
    moved = [orjson.loads(line) for line in lines]
    answer = await connection.api(f"STREAM.MSG.GET.{queue.stream}", {"seq": 4})
    again = await listed(connection, queue)
    await supervise_once(server, queue, tmp_path)

    assert code == 0
    assert moved == [{"seq": 1, "new_seq": 4}, {"seq": 2, "new_seq": 5}]
    assert "hdrs" in answer["message"]
    assert again == [3]
    assert await listed(connection, queue) == [3, 4, 5]
    assert await stored(connection, queue) == 3


async def test_only_failed_jobs_are_requeued_or_dropped(env, connection, queue):
    """What waits or is not there is left alone, and said; exit code 1."""
    waiting = await publish(connection, queue, job("ok-1"))
    requeued, lines, complaint = await run(env, "requeue", "1", f"{waiting}", "99")
    dropped, _, _ = await run(env, "drop", f"{waiting}")

    assert (requeued, dropped) == (1, 1)
    assert lines == ["1 job put back into the queue"]
    assert f"{waiting} is not a failed job" in complaint
    assert "99 is not a failed job" in complaint
    assert await stored(connection, queue) == 4


async def test_dropped_jobs_are_gone(env, connection, queue):
    """From the queue and from the list; the others stay."""
    code, lines, _ = await run(env, "drop", "1", "3", "--json")

    assert code == 0
    assert lines == ['{"seq":1}', '{"seq":3}']
    assert await listed(connection, queue) == [2]


@pytest.mark.parametrize("argv", [[], ["1", "--all"], ["--all", "--kind", "unknown"]])
async def test_a_choice_has_to_be_made(argv):
    """Neither nothing nor two things at once; exit code 2."""
    code, _, complaint = await run({}, "requeue", *argv)

    assert code == 2
    assert "say which" in complaint


async def test_events_are_printed_as_nats_prints_them(
    server, connection, names, tmp_path
):
    """The advisory as in the `nats` command line, with the reason besides."""
    await setup(connection, names)
    env = environment(server, names)
    async with (
        bwpool("events", env=env) as text,
        bwpool("events", "--json", "--log-level", "info", env=env) as json,
    ):
        assert "Listening for Advisories on $JS.EVENT.ADVISORY" in await text.line()
        assert "events.listening" in await json.error_line()
        await publish(connection, names, b"{}")
        await supervise_once(server, names, tmp_path)
        blocks = [await block(text) for _ in range(3)]
        events = [orjson.loads(await json.line()) for _ in range(3)]
        text.send(signal.SIGINT)
        json.send(signal.SIGTERM)
        assert (await text.wait(), await json.wait()) == (0, 0)

    title, *rows = blocks[2]
    assert title.endswith("] Delivery Attempts Exceeded")
    assert rows == [
        "",
        f"          Consumer: {names.stream} > {names.consumer}",
        "   Stream Sequence: 1",
        "        Deliveries: 5",
        "               Job: (unreadable)",
        "            Reason: invalid-job: the job has no id",
    ]
    assert [event["type"] for event in events] == [
        "bwpool.failure",
        "bwpool.failure",
        "io.nats.jetstream.advisory.v1.max_deliver",
    ]
    assert (events[2]["kind"], events[2]["deliveries"]) == ("invalid-job", 5)


async def block(program):
    """The next lines of a program up to the empty line that ends them."""
    lines = [await program.line() or await program.line()]
    lines.append(await program.line())
    while line := await program.line():
        lines.append(line)
    return lines


async def test_the_store_of_a_backfill_can_be_looked_into(tmp_path):
    """`--out` works on the store of a backfill, without a server."""
    (tmp_path / "broken.jpg").write_text("no picture")
    async with bwpool("backfill", "broken.jpg", "--out", "o", cwd=tmp_path) as first:
        assert await first.wait() == 1
    out = ("--out", str(tmp_path / "o"))
    _, lines, _ = await run({}, "requeue", "--all", *out)
    _, left, _ = await run({}, "list", *out)

    assert lines == ["1 job put back into the queue"]
    assert left == ["no job has failed"]


async def test_no_topology_is_explained(server, connection, names):
    """Exit code 1, and the command that creates it."""
    env = environment(server, names)
    await create_seed_topology(connection, names)
    await connection.api(f"CONSUMER.DELETE.{names.stream}.{names.consumer}")
    code, _, complaint = await run(env, "requeue", "--all")

    assert code == 1
    assert "bwpool setup" in complaint

"""What a backfill publishes, and what it makes of what an earlier one left."""

from __future__ import annotations

import orjson
import pytest
from queues import deliver, let_one_die

from bwpool.backfill.account import Account
from bwpool.backfill.book import Book
from bwpool.backfill.feed import fill, resume
from bwpool.backfill.inputs import Input, Inputs, Seen
from bwpool.backfill.ledger import Ledger
from bwpool.backfill.ledger_file import LedgerFile
from bwpool.backfill.past import force
from bwpool.queue.facts import read_depth, read_facts
from bwpool.queue.messages import delete_message, messages_on
from bwpool.settings import ConvertSettings


@pytest.fixture
def account(tmp_path):
    """An account of two inputs that are to be converted."""
    out = tmp_path / "out"
    pictures = [picture(tmp_path, name) for name in ("one", "two")]
    with LedgerFile(tmp_path / "ledger.db") as file:
        book = Book(file, ConvertSettings(out=str(out)))
        yield Account(Ledger(), Inputs(pictures=pictures), force(pictures), book)


def picture(tmp_path, name):
    """An input."""
    source, output = tmp_path / f"{name}.jpg", tmp_path / "out" / f"{name}.jpg"
    return Input(source, name, output, output.name, source.as_uri(), Seen(1, 1))


async def stored_jobs(connection, names):
    """The ids and images that the stream holds, by sequence."""
    walk = messages_on(connection, names.stream, names.subject)
    return {m.seq: orjson.loads(m.payload) async for m in walk}


async def submit(connection, names, job_id, image):
    await connection.request(
        names.subject, orjson.dumps({"id": job_id, "image": image})
    )


async def test_a_duplicate_that_is_gone_is_published_again(connection, queue, account):
    """The server remembers an id for longer than the message it came with."""
    facts = await read_facts(connection, queue)
    pictures = list(account.pictures.values())
    await fill(connection, facts, pictures, account, "run")
    await delete_message(connection, queue.stream, 1)
    await fill(connection, facts, pictures, account, "run")

    jobs = await stored_jobs(connection, queue)
    assert {seq: job["id"] for seq, job in jobs.items()} == {2: "two", 3: "one"}


async def test_what_is_left_is_told_from_what_was_replaced(connection, queue):
    """Another image under an id of ours goes, as does what is done or doubled."""
    facts = await read_facts(connection, queue)
    for job_id, image in (
        ("ours", "file:///ours"),
        ("taken", "file:///theirs"),
        ("done", "file:///done"),
        ("foreign", "file:///foreign"),
        ("ours", "file:///ours"),
    ):
        await submit(connection, queue, job_id, image)
    images = {name: f"file:///{name}" for name in ("ours", "taken", "done")}
    left = await resume(connection, facts, images, {"ours", "taken"})

    assert left == {"ours": "file:///ours", "foreign": "file:///foreign"}
    assert sorted(await stored_jobs(connection, queue)) == [1, 4]


async def test_what_was_delivered_is_new_again(connection, queue):
    """Whoever held it is gone; nobody waits until the server notices."""
    facts = await read_facts(connection, queue)
    await submit(connection, queue, "foreign", "file:///foreign")
    await submit(connection, queue, "ours", "file:///ours")
    for _ in range(2):
        await deliver(connection, queue)
    left = await resume(connection, facts, {"ours": "file:///ours"}, {"ours"})

    assert left.keys() == {"ours", "foreign"}
    assert (await read_depth(connection, facts)).waiting == 2


async def test_the_dead_of_others_stay_dead(connection, queue):
    """A dead job is tried again if it is an input of this run, and only then."""
    facts = await read_facts(connection, queue)
    await let_one_die(connection, queue)
    left = await resume(connection, facts, {"ours": "file:///ours"}, {"ours"})
    depth = await read_depth(connection, facts)

    assert left == {}
    assert depth.is_empty
    assert list(await stored_jobs(connection, queue)) == [1]

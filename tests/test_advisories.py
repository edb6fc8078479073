"""Where advisories may go, as an operator decides it."""

from __future__ import annotations

from pictures import photo
from processes import bwpool, create_seed_topology, environment, publish_all
from queues import setup

from bwpool.queue.dead import list_failed


async def test_advisories_go_only_below_the_prefixes_that_are_given(
    server, connection, names, tmp_path
):
    """`--advisory-prefix` can be repeated; any other advisory is an invalid job."""
    await create_seed_topology(connection, names, max_deliver=1)
    await setup(connection, names)
    told = []

    async def receive(msg):
        told.append(msg.subject)

    await connection.client.subscribe(">", cb=receive)
    image = tmp_path / "photo.jpg"
    photo().save(image)
    subjects = ["told", "told.a", "also.told.b", "_INBOX.a", "also", None]
    jobs = [
        {"id": f"job-{i}", "image": image.as_uri(), "advisory": subject}
        for i, subject in enumerate(subjects)
    ]
    await publish_all(connection, names, jobs)
    prefixes = ("--advisory-prefix", "told", "--advisory-prefix", "also.told")
    argv = ("run", "--burst", "--procs", "1", "--out", tmp_path / "out", *prefixes)
    async with bwpool(*argv, env=environment(server, names)) as supervisor:
        code = await supervisor.wait()
    await connection.client.flush()
    dead = {row.id: row async for row in list_failed(connection, names)}

    assert code == 1, supervisor.stderr.decode()
    assert {"job-3", "job-4"} == set(dead)
    assert {"invalid-job"} == {row.kind for row in dead.values()}
    assert {"told", "told.a", "also.told.b"} == set(told) & {*subjects}
    assert len(list((tmp_path / "out").glob("job-*"))) == 4


async def test_a_prefix_that_is_no_subject_is_a_usage_error(tmp_path):
    """Exit code 2, with the option's name."""
    argv = ("run", "--out", tmp_path / "out", "--advisory-prefix", "told.>")
    async with bwpool(*argv) as supervisor:
        assert await supervisor.wait() == 2

    assert "--advisory-prefix" in supervisor.stderr.decode()

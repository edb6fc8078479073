"""Deliveries that are not what they should be, by accident or by intent."""

from __future__ import annotations

from collections import Counter

import pytest
from processes import publish, stored, supervise
from queues import setup


def conversions(out):
    """How often each job was converted."""
    return Counter({path.name: len(path.read_text().split()) for path in out.iterdir()})


@pytest.fixture
def out(tmp_path):
    """Where conversions leave their mark."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


async def test_a_payload_garbled_in_transit_costs_one_attempt(
    server, connection, names, out, new_wire
):
    """What was incurable with other bytes is tried again, and done."""
    await setup(connection, names)
    wire = await new_wire(server)
    wire.garble = (b'"id":"ok-1"', b'"id";"ok-1"')
    await publish(connection, names, {"id": "ok-1", "image": "file:///x"})
    async with supervise(wire.url, names, out, burst=True) as supervisor:
        code = await supervisor.wait()

    assert wire.garble is None
    assert b"invalid-job" in supervisor.stderr
    assert code == 0, supervisor.stderr.decode()
    assert Counter({"ok-1": 1}) == conversions(out)
    assert await stored(connection, names) == 0

"""The connection against real servers, a dead network, and an ill-mannered peer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

import pytest
from nats.aio.msg import Msg
from servers import NatsServer, Wire

from bwpool.errors import ConfigError, QueueError
from bwpool.queue import client as client_module
from bwpool.queue import connection as connection_module
from bwpool.queue.connection import ApiError, Connection, NoResponders, RequestTimeout
from bwpool.queue.contexts import Credentials, Endpoint

NewServer = Callable[..., NatsServer]
NewWire = Callable[[NatsServer], Awaitable[Wire]]

TWO_USERS = """authorization {
  users = [
    { user: boss, password: secret }
    { user: guest, password: guest, permissions: {
        publish: { deny: ["$JS.API.STREAM.CREATE.>"] } } }
    { user: deaf, password: deaf, permissions: { subscribe: { allow: ["mine.>"] } } }
  ]
}"""


@pytest.fixture(autouse=True)
def fast_rebuilds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Come back within the patience of a test."""
    monkeypatch.setattr(connection_module, "REBUILD_DELAYS", (0.05, 0.2))
    monkeypatch.setattr(client_module, "RECONNECT_WAIT", 0.05)


def at(url: str, **credentials: str) -> Endpoint:
    """Describe a server by URL and user."""
    return Endpoint(urls=(url,), credentials=Credentials(**credentials))


def up_event(connection: Connection) -> asyncio.Event:
    """Return an event that the next connect sets."""
    event = asyncio.Event()
    connection.on_up.append(event.set)
    return event


async def down(connection: Connection) -> None:
    """Wait until a connection has noticed its loss."""
    async with asyncio.timeout(5):
        while connection.is_up:
            await asyncio.sleep(0)


async def flood(connection: Connection, up: asyncio.Event) -> None:
    """Publish until nothing more can be kept, or the connection is back."""
    with contextlib.suppress(QueueError):
        while not up.is_set():
            await connection.publish("flood", bytes(1_000_000))


async def within(seconds: float, awaitable: Awaitable[object]) -> None:
    """Wait for something that has to happen soon."""
    await asyncio.wait_for(awaitable, seconds)


async def test_no_server_is_one_helpful_line_soon() -> None:
    """A refused connection names the address and the ways out."""
    started = time.monotonic()

    with pytest.raises(QueueError) as caught:
        await Connection.open(at("nats://127.0.0.1:1"))

    assert time.monotonic() - started < 1
    assert str(caught.value) == (
        "no NATS server answers at nats://127.0.0.1:1: start one (nats-server -js, "
        "or bwpool dev), or name yours with --server"
    )


async def test_silent_listener_counts_as_no_server() -> None:
    """A port that accepts and says nothing is given up within 3 s."""
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(
        lambda _reader, writer: held.append(writer), "127.0.0.1", 0
    )
    port = silent.sockets[0].getsockname()[1]
    started = time.monotonic()

    with pytest.raises(QueueError, match="no NATS server answers"):
        await Connection.open(at(f"nats://127.0.0.1:{port}"))

    assert time.monotonic() - started < 3.5
    silent.close()
    for writer in held:
        writer.close()


async def test_second_server_is_used_when_first_is_gone(server: NatsServer) -> None:
    """One answering server out of several is enough."""
    endpoint = Endpoint(urls=("nats://127.0.0.1:1", server.url))

    async with await Connection.open(endpoint) as connection:
        await connection.flush()

        assert connection.is_up


async def test_credentials_are_asked_for_and_refused(new_server: NewServer) -> None:
    """No credentials, wrong ones and right ones are three different things."""
    url = new_server(TWO_USERS).url

    with pytest.raises(QueueError, match="wants credentials"):
        await Connection.open(at(url))
    with pytest.raises(QueueError, match="refuses these credentials") as caught:
        await Connection.open(at(url, user="boss", password="wrong"))
    async with await Connection.open(at(url, user="boss", password="secret")) as right:
        assert right.is_up

    assert "wrong" not in str(caught.value)


async def test_tls_url_never_falls_back_to_plain_text(server: NatsServer) -> None:
    """A server without TLS gets no credentials from somebody who asked for it."""
    with pytest.raises(QueueError, match="no TLS with the NATS server"):
        await Connection.open(at(server.url.replace("nats:", "tls:")))


async def test_missing_creds_file_is_a_config_error(tmp_path, server) -> None:
    """An unreadable file is named."""
    credentials = Credentials(creds=tmp_path / "missing.creds")

    with pytest.raises(ConfigError, match=r"missing\.creds"):
        await Connection.open(Endpoint(urls=(server.url,), credentials=credentials))


async def test_api_answers_and_refusals_are_typed(connection: Connection) -> None:
    """JetStream's answer is a dict, its refusal an ApiError with both codes."""
    info = await connection.api("INFO")

    with pytest.raises(ApiError) as caught:
        await connection.api("STREAM.INFO.NOPE")

    assert info["type"].endswith("account_info_response")
    assert (caught.value.code, caught.value.err_code) == (404, 10059)
    assert "stream not found" in caught.value.description


async def test_api_honours_a_prefix(server: NatsServer) -> None:
    """The endpoint's API prefix is where requests go."""
    endpoint = Endpoint(urls=(server.url,), api_prefix="$JS.far.API")

    async with await Connection.open(endpoint) as connection:
        with pytest.raises(QueueError, match="JetStream is not enabled"):
            await connection.api("INFO")


async def test_request_without_listener_and_without_answer(
    connection: Connection,
) -> None:
    """Nobody there and nobody answering are told apart."""
    await connection.client.subscribe("deaf.ear")

    with pytest.raises(NoResponders):
        await connection.request("nobody.home")
    with pytest.raises(RequestTimeout, match=r"no answer from deaf\.ear"):
        await connection.request("deaf.ear", timeout=0.05)


async def test_forbidden_requests_say_so(new_server: NewServer) -> None:
    """A timeout that is really a missing permission is explained."""
    url = new_server(TWO_USERS).url

    async with await Connection.open(at(url, user="guest", password="guest")) as guest:
        with pytest.raises(QueueError, match=r"may not publish to \$JS\.API\.STREAM"):
            await guest.api("STREAM.CREATE.X", {"name": "X"}, timeout=0.2)
    async with await Connection.open(at(url, user="deaf", password="deaf")) as deaf:
        with pytest.raises(QueueError, match=r"may not subscribe to _INBOX"):
            await deaf.api("INFO", timeout=0.2)


async def test_flush_follows_what_was_published(
    server: NatsServer, new_wire: NewWire
) -> None:
    """The PING of a flush leaves after everything published before it."""
    wire = await new_wire(server)

    async with await Connection.open(at(wire.url)) as connection:
        wire.sent.clear()
        for i in range(50):
            await connection.publish("order", b"%d" % i)
        await connection.flush()

        assert wire.sent.count(b"PUB order") == 50
        assert wire.sent.rindex(b"PUB order") < wire.sent.index(b"PING")


async def test_drained_subscription_has_seen_everything(
    connection: Connection,
) -> None:
    """What was published before a subscription drains is still delivered."""
    seen: list[Msg] = []

    async def see(message: Msg) -> None:
        seen.append(message)

    subscription = await connection.client.subscribe("drained", cb=see)
    for _ in range(1000):
        await connection.publish("drained")
    await subscription.drain()

    assert len(seen) == 1000


async def test_cancelled_flush_leaves_connection_alive(
    server: NatsServer, new_wire: NewWire
) -> None:
    """The PONG of a flush that nobody waits for any more does no harm."""
    wire = await new_wire(server)

    async with await Connection.open(at(wire.url)) as connection:
        wire.go_dead()
        with pytest.raises(QueueError):
            await connection.flush(timeout=0.05)
        wire.come_back()
        await within(2, connection.flush())

        assert connection.is_up


async def test_flush_while_disconnected_is_an_error(
    server: NatsServer, new_wire: NewWire
) -> None:
    """A barrier that can't be one says so."""
    wire = await new_wire(server)

    async with await Connection.open(at(wire.url)) as connection:
        await wire.close()
        await down(connection)

        with pytest.raises(QueueError):
            await connection.flush()


async def test_listeners_hear_of_every_reconnect(
    server: NatsServer, new_wire: NewWire
) -> None:
    """A cut connection comes back and tells; a listener's bug is contained."""
    wire = await new_wire(server)

    async with await Connection.open(at(wire.url)) as connection:
        connection.on_up.append(lambda: 1 / 0)
        for _ in range(2):
            up = up_event(connection)
            wire.cut()
            await within(3, up.wait())

            assert connection.is_up


async def test_killed_server_is_waited_for(new_server: NewServer) -> None:
    """Whatever was published meanwhile arrives once the server is back."""
    server = new_server()

    async with await Connection.open(at(server.url)) as connection:
        up = up_event(connection)
        subscription = await connection.client.subscribe("later")
        server.kill()
        await down(connection)
        await connection.publish("later", b"kept")
        server.start()
        await within(5, up.wait())
        message = await subscription.next_msg(timeout=2)

        assert message.data == b"kept"


async def test_client_closed_for_good_is_replaced(
    server: NatsServer,
) -> None:
    """An -ERR ends nats-py's client; the connection builds another."""
    async with await Connection.open(at(server.url)) as connection:
        first = connection.client
        up = up_event(connection)
        first._transport.write(b"NONSENSE\r\n")
        await within(5, up.wait())

        assert connection.client is not first
        assert connection.is_up
        assert (await connection.api("INFO"))["type"].endswith("account_info_response")


async def test_rebuild_outlasts_refused_credentials(
    new_server: NewServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Credentials revoked and restored cost a pause, not the process."""
    server = new_server("authorization { user: a, password: b }")

    async with await Connection.open(at(server.url, user="a", password="b")) as one:
        refused = asyncio.Event()
        monkeypatch.setattr(
            connection_module.log, "warning", lambda *_a, **_k: refused.set()
        )
        server.stop()
        server.extra = "authorization { user: a, password: c }"
        server.start()
        await within(5, refused.wait())
        server.stop()
        up = up_event(one)
        server.extra = "authorization { user: a, password: b }"
        server.start()
        await within(10, up.wait())

        assert one.is_up


async def test_dead_network_is_left_even_with_full_buffers(
    server: NatsServer, new_wire: NewWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that neither reads nor closes is left after missed pings."""
    monkeypatch.setattr(client_module, "PING_INTERVAL", 0.1)
    monkeypatch.setattr(client_module, "FLUSH_TIMEOUT", 0.2)
    wire = await new_wire(server)

    async with await Connection.open(at(wire.url)) as connection:
        up = up_event(connection)
        wire.go_dead()
        await flood(connection, up)
        await within(10, up.wait())


async def test_close_gives_up_on_a_dead_peer(
    server: NatsServer, new_wire: NewWire
) -> None:
    """Closing takes seconds at most, whatever the other side does."""
    wire = await new_wire(server)
    connection = await Connection.open(at(wire.url))
    wire.go_dead()
    for _ in range(7):
        await connection.publish("flood", bytes(1_000_000))
    started = time.monotonic()

    await connection.close()

    assert time.monotonic() - started < 3
    with pytest.raises(QueueError):
        await connection.publish("late")


async def test_server_version_is_numbers(connection: Connection) -> None:
    """Features are gated by the version."""
    assert connection.server_version >= (2, 9, 0)

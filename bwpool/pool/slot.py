"""A slot: the place of one converter, and everything known about it.

Each slot owns a `ProcessPoolExecutor` of a single process, which starts the converter
and reports its death, and a socket of its own, over which jobs travel. So a crash, a
kill or a recycling touches this slot's jobs and no others. Called by `pool`.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import BinaryIO, cast

from bwpool.pool.converter import IGNORED_SIGNALS, Load, enlist, serve
from bwpool.pool.page import PAGE_BYTES, Doing, Page
from bwpool.pool.spawning import shut_out_the_working_folder
from bwpool.pool.wear import peak_memory_of
from bwpool.pool.wire import Message, Order, decode_message, encode_order
from bwpool.settings import ConvertSettings

STDERR_TAIL_BYTES = 2000
"""How much of a dead converter's stderr is told."""


@dataclass(frozen=True, slots=True)
class Death:
    """A converter's end: what it was doing, and what ended it."""

    pid: int
    exitcode: int | None
    """As `multiprocessing` has it: minus the signal's number if one killed it."""
    doing: Doing
    stderr: str
    """The last it said there."""

    @property
    def signal(self) -> int | None:
        """The number of the signal that killed it."""
        if self.exitcode is None or self.exitcode >= 0:
            return None
        return -self.exitcode

    def __str__(self) -> str:
        if self.exitcode is None:
            return f"converter {self.pid} gave up"
        how = f"exit code {self.exitcode}"
        if self.signal is not None:
            how = signal.strsignal(self.signal) or f"signal {self.signal}"
            how = f"signal {self.signal} ({how})"
            if self.signal == signal.SIGKILL:
                how += ", not by us: perhaps the machine is out of memory,"
        where = f" in stage {self.doing.stage}" if self.doing.stage else ""
        return f"converter {self.pid} died by {how}{where}"


class _Channel(asyncio.Protocol):
    """Cuts the stream from a converter into messages."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._on_message(decode_message(line))


class Slot:
    """One converter, from its start to its death. A replacement is a new slot.

    `on_message` gets what the converter says, `on_death` that it is gone; both are
    called in the event loop, with the slot.
    """

    def __init__(
        self,
        on_message: Callable[[Slot, Message], None],
        on_death: Callable[[Slot, Death], None],
    ) -> None:
        self._on_message = on_message
        self._on_death = on_death
        self.orders: dict[int, Order] = {}
        """What it was given and has not answered, oldest first."""
        self.is_ready = False
        self.was_ready = False
        self.is_stopping = False
        self.is_retiring = False
        """Whether it ends once it has answered everything; its successor is there."""
        self._peak = 0
        self._transport: asyncio.WriteTransport | None = None
        """The way to the converter; None until it is connected."""
        self.is_slow = False
        """Whether the order under way takes so long that none should wait behind it."""
        self.heard = time.monotonic()
        """When it last said something, or was given its first order."""

    async def start(self, load: Load, settings: ConvertSettings) -> None:
        """Start the process; it says Ready once it has loaded its libraries."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        self._stderr = cast("BinaryIO", tempfile.TemporaryFile(buffering=0))  # noqa: SIM115 - closed in `_served`
        self._page = _share_files(ours, self._stderr)
        shut_out_the_working_folder()
        self._executor = ProcessPoolExecutor(
            max_workers=1,
            # fork hangs libvips, and a forkserver's death would end every slot.
            mp_context=multiprocessing.get_context("spawn"),
            initializer=enlist,
            initargs=(theirs,),
        )
        with _signals_blocked():
            serving = self._executor.submit(serve, load, settings)
        theirs.close()
        self._process = _only_process(self._executor)
        self.pid = self._process.pid or 0
        serving.add_done_callback(lambda done: _call_in(loop, self._served, done))
        self._transport, _ = await loop.create_unix_connection(
            lambda: _Channel(self._hear), sock=ours
        )
        if self.is_stopping:
            self._transport.close()

    @property
    def process(self) -> BaseProcess:
        """The converter's process, dead or alive."""
        return self._process

    @property
    def takes_orders(self) -> bool:
        """Whether it is ready and nobody has told it to end."""
        return self.is_ready and not self.is_stopping and not self.is_retiring

    def room(self, depth: int) -> int:
        """How many more orders it takes where a slot may hold `depth`."""
        if not self.takes_orders:
            return 0
        return self.places(depth) - len(self.orders)

    def places(self, depth: int) -> int:
        """How many orders it holds when it is full, where a slot may hold `depth`."""
        return 1 if self.is_slow else depth

    def give(self, orders: Sequence[Order]) -> None:
        """Send orders; they are done one after the other."""
        if not self.orders:
            self.heard = time.monotonic()
        for order in orders:
            self.orders[order.tag] = order
        assert self._transport is not None
        self._transport.write(b"".join(map(encode_order, orders)))

    def doing(self) -> Doing:
        """Read what the converter is doing."""
        return self._page.read()

    def revoke(self) -> list[Order]:
        """Take back what the converter has not begun, newest first.

        Orders go in the sequence of their tags, so one number revokes them all.
        """
        if not self.orders:
            return []
        self._page.revoke(next(reversed(self.orders)))
        # What was begun may be over but for its way to the disk.
        begun = self._page.read().begun
        revoked = [tag for tag in reversed(self.orders) if tag > begun]
        return [self.orders.pop(tag) for tag in revoked]

    def retire(self) -> None:
        """Let the converter end by itself once it has answered everything."""
        self.is_retiring = True
        if not self.orders and not self.is_stopping:
            self.close()

    def close(self) -> None:
        """Let the converter end by itself; answers on their way are lost."""
        self.is_stopping = True
        self.heard = time.monotonic()
        if self._transport is not None:
            self._transport.close()

    def kill(self) -> None:
        """End the converter now; `on_death` follows when it is verified."""
        self.is_stopping = True
        self.note_memory()
        self._process.kill()

    def note_memory(self) -> None:
        """Learn how much memory the converter takes, while there is one to ask."""
        self._peak = max(self._peak, peak_memory_of(self.pid))

    def _hear(self, message: Message) -> None:
        self.heard = time.monotonic()
        self.is_slow = False
        self._on_message(self, message)

    def _served(self, serving: Future[None]) -> None:
        """The serving loop is over: it returned, raised, or its process died."""
        self.is_ready = False
        if self._transport is not None:
            self._transport.close()
        failure = serving.exception()
        has_died = isinstance(failure, BrokenExecutor)
        if not has_died:
            if failure is not None:
                self._stderr.write(f"{type(failure).__name__}: {failure}\n".encode())
            # Nothing is left for it to do, and one that can't end would block ours.
            self._process.kill()
        # The executor's thread reaps the process, and only then is there an exit code
        # for anybody else. It also has to be gone before the interpreter ends, since
        # it races with the exit hook; the loop waits for this when it is closed.
        loop = asyncio.get_running_loop()
        reaping = loop.run_in_executor(None, self._executor.shutdown)
        reaping.add_done_callback(lambda _: self._bury(has_died=has_died))

    def _bury(self, *, has_died: bool) -> None:
        """Tell what is known of the converter, now that its process is gone."""
        doing = self._page.read()
        if self._peak > doing.max_rss_bytes:
            doing = replace(doing, max_rss_bytes=self._peak)
        exitcode = self._process.exitcode if has_died else None
        death = Death(self.pid, exitcode, doing, self._tail_of_stderr())
        self._page.close()
        self._stderr.close()
        self._on_death(self, death)

    def _tail_of_stderr(self) -> str:
        size = os.fstat(self._stderr.fileno()).st_size
        self._stderr.seek(max(0, size - STDERR_TAIL_BYTES))
        return self._stderr.read().decode(errors="replace").strip()


def _share_files(ours: socket.socket, stderr: BinaryIO) -> Page:
    """Send a new page and the stderr file ahead of all orders; return the page."""
    with tempfile.TemporaryFile() as file:
        file.truncate(PAGE_BYTES)
        socket.send_fds(ours, [b"\0"], [file.fileno(), stderr.fileno()])
        return Page(file.fileno())


def _only_process(executor: ProcessPoolExecutor) -> BaseProcess:
    """The executor's process, kept because only it knows the exit code.

    There is no public way to it, in any Python up to 3.14.
    """
    (process,) = executor._processes.values()
    return process


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Have a process started that no signal ends before `enlist` ignores them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _call_in(
    loop: asyncio.AbstractEventLoop,
    callback: Callable[[Future[None]], None],
    done: Future[None],
) -> None:
    """Call back in the loop, unless that has closed meanwhile."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback, done)

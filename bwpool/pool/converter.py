"""The converter's side: a loop that takes orders from its slot until that closes.

Runs in a child process and nowhere else. The supervisor submits `serve` to an
executor, and thereby imports this module: so the image libraries are imported inside
the functions, and nothing else here is heavy.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bwpool.errors import ConversionFailed, JobError, LimitExceeded
from bwpool.job import Converted, Job
from bwpool.pool.page import Page
from bwpool.pool.wear import Wear
from bwpool.pool.wire import (
    Answer,
    Message,
    Order,
    Ready,
    Tired,
    Unstarted,
    decode_order,
    encode_message,
)
from bwpool.settings import ConvertSettings

GATHER = 0.005
"""Seconds that an output waits at the most for those of the orders at hand: together
they take one sync of their folder, and one answer."""

STDERR_BYTES = 64 * 1024
"""How much of a converter's stderr is kept before it starts over."""

IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What asks the supervisor to end, and reaches its converters as well."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a converter does. Outputs pass through it unseen, from one to the other."""

    convert: Callable[[Job, Callable[[str], None]], tuple[Converted, Any]]
    """Does one job up to an output that only wants its name, or None where nothing is
    to be committed, telling each stage it enters; raises JobError."""
    commit: Callable[[Sequence[Any]], Sequence[JobError | None]]
    """Makes several outputs durable; returns an error or None for each."""


Load = Callable[[ConvertSettings], Work]
"""Makes ready for work, in the converter; picklable, so a module's function."""


def load_conversion(settings: ConvertSettings, mark: str = "") -> Work:
    """Load libvips and the conversion, which only a converter may do.

    `mark` tells whose temporary files are whose.
    """
    from bwpool import convert, storage

    if mark:
        storage.mark_temporaries(mark)
    convert.prepare(settings)

    def convert_one(
        job: Job, on_stage: Callable[[str], None]
    ) -> tuple[Converted, storage.Pending]:
        return convert.convert(job, settings, on_stage=on_stage)

    return Work(convert_one, storage.commit_all)


_channel: socket.socket
"""The way to the slot; set once by `enlist`, since only what is given to a process at
its start can carry a socket without help from a third party."""


def enlist(channel: socket.socket) -> None:
    """Prepare a new process to be a converter (the executor's initializer).

    Ctrl-C reaches the whole process group, and systemd signals the whole unit, yet the
    supervisor wants to drain: so a converter ends by SIGKILL, or when its slot closes.
    """
    global _channel  # noqa: PLW0603 - see its docstring
    for number in IGNORED_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The slot has started this process with these blocked.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    _die_with_the_supervisor()
    _channel = channel


def serve(load: Load, settings: ConvertSettings) -> None:
    """Take orders and answer them until the slot closes the channel."""
    page, stderr = _receive_shared_files(_channel)
    os.dup2(stderr, 2)
    if settings.max_memory is not None:
        _limit_memory(settings.max_memory)
    work = load(settings)
    answers = _Answers(_channel)
    commits = _Commits(answers, work, is_durable=settings.sync)
    answers.send(Ready())
    wear = Wear(settings)
    for order in _orders(_channel, on_idle=commits.hurry):
        _trim(stderr)
        page.begin(order.tag)
        if page.is_revoked(order.tag):
            answers.send(Unstarted(order.tag))
        else:
            _convert(order, work, page, commits)
        page.end()
        if wear.is_due():
            answers.send(Tired())
    commits.close()
    _exit_if_orphaned()


def _convert(order: Order, work: Work, page: Page, commits: _Commits) -> None:
    """Do one order; whatever goes wrong becomes its answer."""
    started = time.perf_counter()
    try:
        converted, output = work.convert(order.job, page.enter)
    except Exception as error:  # noqa: BLE001 - a bug must cost one job, not the loop
        elapsed = time.perf_counter() - started
        commits.answer(Answer(order.tag, elapsed, _job_error(error)))
    else:
        elapsed = time.perf_counter() - started
        commits.add(Answer(order.tag, elapsed, converted), output)


def _job_error(error: Exception) -> JobError:
    """Say what an exception means for the job; one that nobody foresaw is a bug."""
    if isinstance(error, JobError):
        return error
    if isinstance(error, MemoryError):
        return LimitExceeded("the picture needs more memory than a converter may use")
    traceback.print_exception(error)
    return ConversionFailed(f"{type(error).__name__}: {error}")


class _Answers:
    """Sends messages to the slot, from any thread."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._lock = threading.Lock()

    def send(self, *messages: Message) -> None:
        lines = b"".join(map(_line, messages))
        # A slot that is gone reads no answers; the loop ends by itself.
        with self._lock, contextlib.suppress(OSError):
            self._channel.sendall(lines)


def _line(message: Message) -> bytes:
    try:
        return encode_message(message)
    except Exception as error:
        if not isinstance(message, Answer):
            raise
        return encode_message(replace(message, outcome=_job_error(error)))


class _Commits:
    """Puts outputs in their place, on a thread, while the next one is converted.

    Waiting for the disk leaves a core idle; this way it isn't. An answer is sent only
    when its output is durable; one without an output is sent at once. Outputs that
    follow a commit closely wait for each other as long as further orders are at hand,
    and no longer than `GATHER`.
    """

    def __init__(self, answers: _Answers, work: Work, *, is_durable: bool) -> None:
        self.answer = answers.send
        self._commit_all = work.commit
        self._queue: queue.SimpleQueue[tuple[Answer, Any] | None]
        self._queue = queue.SimpleQueue()
        self._is_idle = threading.Event()
        """Whether no order is at hand whose output would be worth waiting for."""
        self._thread: threading.Thread | None = None
        if is_durable:
            self._thread = threading.Thread(target=self._run, name="commit")
            self._thread.start()

    def add(self, answer: Answer, output: Any) -> None:
        """Commit `output`, then send `answer`, or what went wrong."""
        if output is None:
            self.answer(answer)
        elif self._thread is None:
            self._commit([(answer, output)])
        else:
            self._is_idle.clear()
            self._queue.put((answer, output))

    def hurry(self) -> None:
        """Commit what was added: nothing more will come for now."""
        self._is_idle.set()

    def close(self) -> None:
        """Wait until all that was added is answered."""
        self.hurry()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        ended = -math.inf
        while (first := self._queue.get()) is not None:
            if time.monotonic() - ended < GATHER:
                self._is_idle.wait(GATHER)
            self._commit([first, *self._gathered()])
            ended = time.monotonic()

    def _gathered(self) -> Iterator[tuple[Answer, Any]]:
        while not self._queue.empty():
            added = self._queue.get()
            if added is None:  # `close` waits for the end
                self._queue.put(None)
                return
            yield added

    def _commit(self, batch: list[tuple[Answer, Any]]) -> None:
        errors: Sequence[JobError | None]
        try:
            errors = self._commit_all([output for _, output in batch])
        except Exception as error:  # noqa: BLE001 - the thread must live on
            errors = [_job_error(error)] * len(batch)
        answers = [
            answer if error is None else replace(answer, outcome=error)
            for (answer, _), error in zip(batch, errors, strict=True)
        ]
        self.answer(*answers)


def _orders(channel: socket.socket, on_idle: Callable[[], None]) -> Iterator[Order]:
    """Yield orders as they come, until the other side closes.

    `on_idle` is called before waiting for the next one.
    """
    rest = b""
    while chunk := _receive(channel, on_idle):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield decode_order(line)


def _receive(channel: socket.socket, on_idle: Callable[[], None]) -> bytes:
    try:
        with contextlib.suppress(BlockingIOError):
            return channel.recv(1 << 16, socket.MSG_DONTWAIT)
        on_idle()
        return channel.recv(1 << 16)
    except ConnectionError:
        return b""


def _receive_shared_files(channel: socket.socket) -> tuple[Page, int]:
    """Receive the status page and the file that stderr goes to."""
    _, (page, stderr), _, _ = socket.recv_fds(channel, 1, 2)
    shared = Page(page)
    os.close(page)
    return shared, stderr


def _trim(stderr: int) -> None:
    """Let a chatty library's stderr start over, so that it can't fill the disk."""
    if os.fstat(stderr).st_size > STDERR_BYTES:
        os.ftruncate(stderr, 0)
        os.lseek(stderr, 0, os.SEEK_SET)


def _limit_memory(limit: int) -> None:
    """Cap the memory this process may allocate, mapped files not counted."""
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def _die_with_the_supervisor() -> None:
    """Have the kernel kill this process when the supervisor dies, even by SIGKILL."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _exit_if_orphaned()


def _exit_if_orphaned() -> None:
    """Leave at once if the supervisor is gone: the executor would wait for ever."""
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(0)

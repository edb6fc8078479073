"""The pool: all slots, who has which job, and what happens when a converter ends.

The supervisor submits jobs and gets a future for each; it never sees a process. The
rules are in small synchronous methods that change only the pool's own state; starting
and killing is left to the slots.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bwpool.background import Background, first_of
from bwpool.errors import (
    BwpoolError,
)
from bwpool.job import Job
from bwpool.pool.converter import Load, load_conversion
from bwpool.pool.pace import Pace
from bwpool.pool.report import NotBegun, Report, report_of
from bwpool.pool.slot import Death, Slot
from bwpool.pool.wire import Answer, Message, Order, Ready, Tired, Unstarted
from bwpool.settings import ConvertSettings

CHECK_EVERY = 0.2
"""Seconds between two looks at the status pages for overdue conversions."""

IMPATIENCE = 0.2
"""Seconds of work on one job after which those ordered behind it go elsewhere."""

HOARD = 2.0
"""Seconds that a job waits in the pool, with as much work before it, until it is handed
back: jobs have become longer since it was asked for, and somebody else may be idle."""

SILENCE_FACTOR = 3
"""A slot with orders that has said nothing for so many timeouts is killed, whatever
its status page says: a broken converter may have broken its page as well."""

END_WITHIN = 5.0
"""Seconds that a converter may take to end by itself."""

MAX_RERUNS = 3
"""How often a job is run again, uncharged, because its converter died while it was the
oldest and none was under way. Past that it is charged, so that nothing goes on for
ever; one that stood behind another never is."""

MOST = 1_000
"""Jobs here and on their way at the most, unless the caller knows better."""

MAX_FAILED_STARTS = 3
"""Converters in a row that end before they are ready, until the pool gives up."""

CHILD_ENVIRONMENT = {
    # Several converters share the cores already.
    "VIPS_CONCURRENCY": "1",
    "VIPS_BLOCK_UNTRUSTED": "1",
    # Threads that each keep an arena look like a leak.
    "MALLOC_ARENA_MAX": "2",
    # Reuse big buffers, where glibc would fault them in again for every picture.
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "268435456",
}
"""Set for the converters, where the user has not set it already."""


class PoolError(BwpoolError):
    """The converters do not start."""


@dataclass(slots=True)
class _Held:
    """A job in the pool, waiting or ordered."""

    job: Job
    done: asyncio.Future[Report]
    returns: bool
    """Whether it may be handed back before it is begun."""
    since: float = field(default_factory=time.monotonic)
    """When it came."""
    reruns: int = 0


class Pool:
    """`procs` converters behind one queue. Use `start`, then `close` in any case."""

    def __init__(
        self,
        procs: int,
        settings: ConvertSettings,
        *,
        timeout: float,
        load: Load = load_conversion,
    ) -> None:
        self._procs = procs
        self._settings = settings
        self._timeout = timeout
        self._load = load
        self._slots: set[Slot] = set()
        self._waiting: deque[_Held] = deque()
        self._ordered: dict[int, _Held] = {}
        self._tags = itertools.count(1)
        self._pace = Pace()
        self._taking = self._slow = self._idle = 0
        """Slots that take orders, as of the last assignment; those of them whose order
        takes long, and those that have none."""
        self._overdue: set[Slot] = set()
        self._tired: deque[Slot] = deque()
        """Converters to be replaced, one at a time, so that the others go on."""
        self._failed_starts = 0
        self._is_closing = False
        self._is_arranging = False
        self._is_withdrawn = False
        self._background = Background()
        self._ready = asyncio.Event()
        self._empty = asyncio.Event()
        self.broken: asyncio.Future[None]
        """Gets a PoolError when the converters do not start."""
        self.on_room: Callable[[], None] = lambda: None
        """Called when there may be room for more jobs."""
        self.on_death: Callable[[str, Death], None] = lambda _cause, _death: None
        """Called when a converter is gone: `crash`, `timeout`, `recycle` or `stop`."""

    def __repr__(self) -> str:
        ready = sum(slot.is_ready for slot in self._slots)
        return (
            f"<Pool [Slots: {ready} ready, {len(self._slots) - ready} other | "
            f"Jobs: {len(self._ordered)} ordered, {len(self._waiting)} waiting]>"
        )

    async def start(self) -> None:
        """Start all converters at once and return when every one is ready.

        Raises PoolError if they can't be started.
        """
        self.broken = asyncio.get_running_loop().create_future()
        for name, value in CHILD_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        await asyncio.gather(*(self._add_slot() for _ in range(self._procs)))
        self._background.start(self._look_after_slots())
        await first_of(self._ready.wait(), self.broken)
        if self.broken.done():
            self.broken.result()

    def room(self, asked: int, round_trip: float = 0.0, most: int = MOST) -> int:
        """How many more jobs to bring now, where `asked` are on their way.

        They come from `round_trip` seconds away, and no more than `most` are to be
        here or on their way. Many short jobs are asked for together, since each asking
        costs more than a job. Below 0: so many too many were asked for, because jobs
        have become much longer.
        """
        held = len(self._ordered) + len(self._waiting)
        places = self._pace.places(self._taking, self._slow, round_trip, most)
        room = places - held - asked
        is_idle = self._idle > len(self._waiting) + asked and room >= asked
        if is_idle or room >= max(1.0, self._pace.step(places, round_trip)):
            return room
        # A bit too many is nothing: the mean changes all the time.
        return min(0, room + places)

    @property
    def ready_slots(self) -> int:
        """How many converters wait for orders or work on one."""
        return sum(slot.takes_orders for slot in self._slots)

    def submit(
        self, job: Job, *, first: bool = False, returns: bool = False
    ) -> asyncio.Future[Report]:
        """Have a job done; never refuses.

        `first`: before all that wait. `returns`: it may be handed back by `share`.
        """
        held = _Held(job, asyncio.get_running_loop().create_future(), returns)
        if first:
            self._waiting.appendleft(held)
        else:
            self._waiting.append(held)
        self._arrange()
        return held.done

    def withdraw(self) -> None:
        """Hand back every job that no converter has begun: their futures get None."""
        self._is_withdrawn = True
        for slot in self._slots:
            self._take_back(slot)
        for held in self._waiting:
            _resolve(held, Report(NotBegun(), 0.0))
        self._waiting.clear()

    def share(self) -> int:
        """Hand back what others could do sooner; return how many jobs.

        Those which have waited for so long that there was no reason to fetch them.
        """
        jobs = len(self._ordered) + len(self._waiting)
        is_stuck = 0 < self._slow == self._taking
        if not is_stuck and self._pace.takes(jobs, self._taking) < HOARD:
            return 0
        for slot in self._slots:
            if len(slot.orders) > slot.places(self._pace.depth):
                self._take_back(slot)
        due = time.monotonic() - HOARD
        old = [held for held in self._waiting if held.returns and held.since < due]
        for held in old:
            self._waiting.remove(held)
            _resolve(held, Report(NotBegun(), 0.0))
        self._arrange()
        return len(old)

    def abandon(self) -> None:
        """Kill every converter; all jobs are handed back, uncharged."""
        self._is_closing = True
        self.withdraw()
        for slot in self._slots:
            slot.kill()

    async def close(self) -> None:
        """End all converters, by force those that have not ended in a second."""
        self._is_closing = True
        for slot in self._slots:
            slot.close()
        await self._wait_for_deaths(1.0)
        for slot in self._slots:
            slot.kill()
        await self._wait_for_deaths(5.0)
        await self._background.close()

    def _arrange(self) -> None:
        """Assign once all that this turn of the event loop brings is known."""
        if not self._is_arranging:
            self._is_arranging = True
            asyncio.get_running_loop().call_soon(self._assign)

    def _assign(self) -> None:
        """Give waiting jobs to the slots, those with the fewest first, in turns."""
        self._is_arranging = False
        depth = self._pace.depth
        taking = [slot for slot in self._slots if slot.takes_orders]
        free = [slot for slot in taking if slot.room(depth) > 0]
        free.sort(key=lambda slot: len(slot.orders))
        given: dict[Slot, list[Order]] = {slot: [] for slot in free}
        while self._waiting and free:
            for slot in free[: len(self._waiting)]:
                tag, held = next(self._tags), self._waiting.popleft()
                self._ordered[tag] = held
                given[slot].append(Order(tag, held.job))
            free = [slot for slot in free if slot.room(depth) > len(given[slot])]
        for slot, orders in given.items():
            if orders:
                slot.give(orders)
        self._taking = len(taking)
        self._slow = sum(slot.is_slow for slot in taking)
        self._idle = sum(not slot.orders for slot in taking)
        self.on_room()

    def _on_message(self, slot: Slot, message: Message) -> None:
        match message:
            case Answer(tag, elapsed, outcome):
                self._pace.note(elapsed)
                # One that was revoked too late is done a second time elsewhere.
                if slot.orders.pop(tag, None) is not None:
                    report = Report(outcome, elapsed, slot.pid)
                    _resolve(self._ordered.pop(tag), report)
                if slot.is_retiring:
                    slot.retire()
            case Unstarted(tag):
                # Mostly it was taken back already; if not, both sides saw the other.
                if slot.orders.pop(tag, None) is not None:
                    self._return(self._ordered.pop(tag))
            case Ready():
                slot.is_ready = slot.was_ready = True
                self._failed_starts = 0
                if self.ready_slots >= self._procs:
                    self._ready.set()
                    self._retire_one()
            case Tired():
                self._tired.append(slot)
                self._background.start(self._fill_up())
        self._arrange()

    def _return(self, held: _Held) -> None:
        """Let a job that nobody began wait again, or hand it back."""
        if self._is_withdrawn:
            _resolve(held, Report(NotBegun(), 0.0))
        else:
            self._waiting.appendleft(held)

    def _retire_one(self) -> None:
        """Let a tired converter go once its successor is ready."""
        if self._tired and self.ready_slots > self._procs:
            slot = self._tired.popleft()
            self._take_back(slot)
            slot.retire()
            self._background.start(self._fill_up())

    def _take_back(self, slot: Slot) -> None:
        """Let what `slot` has not begun wait again, ahead of all others."""
        for order in slot.revoke():
            self._waiting.appendleft(self._ordered.pop(order.tag))

    def _on_death(self, slot: Slot, death: Death) -> None:
        """Charge the job under way, run the others again, replace the converter.

        Without a job under way the converter died between two, or while it waited for
        the disk: then no job is to blame, only the oldest to be suspected.
        """
        self._slots.discard(slot)
        with contextlib.suppress(ValueError):
            self._tired.remove(slot)
        cause = self._cause(slot)
        self.on_death(cause, death)
        is_known = death.doing.tag in slot.orders
        suspect = death.doing.tag if is_known else next(iter(slot.orders), 0)
        for tag in reversed(slot.orders):
            held = self._ordered.pop(tag)
            if self._is_closing:
                _resolve(held, Report(NotBegun(), 0.0))
            elif tag == suspect and (is_known or held.reruns >= MAX_RERUNS):
                _resolve(held, report_of(death, cause, self._timeout))
            else:
                held.reruns += tag == suspect
                self._waiting.appendleft(held)
        slot.orders.clear()
        if not self._slots:
            self._empty.set()
        self._arrange()
        if not self._is_closing:
            if not slot.was_ready:
                self._failed_starts += 1
            self._background.start(self._replace(death))

    def _cause(self, slot: Slot) -> str:
        if slot in self._overdue:
            self._overdue.discard(slot)
            return "timeout"
        if not slot.is_stopping:
            return "crash"
        return "recycle" if slot.is_retiring else "stop"

    async def _replace(self, death: Death) -> None:
        """Start a new converter, more slowly if the last ones were never ready."""
        if self._failed_starts >= MAX_FAILED_STARTS and not self.broken.done():
            self.broken.set_exception(
                PoolError(f"converters do not start: {death}: {death.stderr}")
            )
            return
        # A converter that can't start would otherwise be started in a hot loop.
        await asyncio.sleep(0.5 * self._failed_starts)
        await self._fill_up()

    async def _fill_up(self) -> None:
        """Start a converter where one is missing, or one is to take over."""
        staying = sum(not slot.is_retiring for slot in self._slots)
        wanted = self._procs + (1 if self._tired else 0)
        if staying < wanted and not self._is_closing:
            await self._add_slot()

    async def _add_slot(self) -> None:
        slot = Slot(self._on_message, self._on_death)
        self._slots.add(slot)
        self._empty.clear()
        await slot.start(self._load, self._settings)

    async def _look_after_slots(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY)
            now = time.monotonic()
            for slot in self._slots:
                if slot.is_stopping:
                    self._hurry(slot, now)
                elif slot.is_ready and slot.orders:
                    self._check(slot, now)
            self._arrange()

    def _check(self, slot: Slot, now: float) -> None:
        """Kill what is overdue, and let nothing wait behind what takes long."""
        doing = slot.doing()
        busy = now - doing.started if doing.tag in slot.orders else 0.0
        if busy > IMPATIENCE:
            slot.note_memory()
        if busy > self._timeout or now - slot.heard > SILENCE_FACTOR * self._timeout:
            self._overdue.add(slot)
            slot.kill()
        elif busy > IMPATIENCE:
            slot.is_slow = True
            if len(slot.orders) > 1:
                self._pace.note_busy(busy)
                self._take_back(slot)

    def _hurry(self, slot: Slot, now: float) -> None:
        """Kill a converter that was let go and does not."""
        if now - slot.heard > END_WITHIN:
            slot.kill()

    async def _wait_for_deaths(self, timeout: float) -> None:
        if self._slots:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)


def _resolve(held: _Held, report: Report) -> None:
    if not held.done.done():
        held.done.set_result(report)

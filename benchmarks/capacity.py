"""How many jobs a second a queue carries, and what limits it first: a model; pure.

From costs a job that `dispatch` and `end_to_end` measure; `scale` checks it.
"""

from __future__ import annotations

from dataclasses import dataclass

from bwpool.pool.pace import LOOK_AHEAD, MAX_DEPTH

DEFAULT_MAX_ACK_PENDING = 1_000
"""What JetStream gives a consumer that asks for nothing else, as the seed's does."""

PROCS = 16
"""Converters in one supervisor, a machine's worth."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of CPU a job, and bytes."""

    supervisor: float
    """In a supervisor that is busy, which handles many jobs each time it wakes."""
    publishing: float
    """In the server."""
    settling: float
    """In the server: delivery, advisory, confirmed ack."""
    written_bytes: float
    """What the server writes to its disk, from publishing to the ack."""

    @property
    def server(self) -> float:
        """In the server, from publishing to the ack."""
        return self.publishing + self.settling


@dataclass(frozen=True, slots=True)
class Load:
    """Converters, and how long a job keeps one of them busy."""

    converters: int
    seconds: float

    @property
    def jobs_per_s(self) -> float:
        """What the converters ask for."""
        return self.converters / self.seconds

    @property
    def supervisors(self) -> int:
        """How many supervisors they are spread over."""
        return -(-self.converters // PROCS)

    @property
    def held(self) -> int:
        """Deliveries under way while every slot holds as much as it likes."""
        depth = 1 + min(MAX_DEPTH - 1, int(LOOK_AHEAD / self.seconds))
        return self.converters * depth


def limits(load: Load, costs: Costs, max_ack_pending: int) -> dict[str, float]:
    """Return what each part could carry, in jobs a second, the converters first.

    A supervisor runs on one core. So does one stream, in effect: its messages pass
    through one lock. Deliveries under way are bounded by Little's law.
    """
    return {
        "converters": load.jobs_per_s,
        "max_ack_pending": max_ack_pending / load.seconds,
        "supervisor's core": load.supervisors / costs.supervisor,
        "server's core": 1 / costs.server,
    }


def first_limit(load: Load, costs: Costs, max_ack_pending: int) -> tuple[str, float]:
    """Return the name of what is exhausted first, and the jobs a second it carries."""
    found = limits(load, costs, max_ack_pending)
    name = min(found, key=lambda one: found[one])
    return name, found[name]


def streams(load: Load, costs: Costs) -> int:
    """Return over how many streams, on as many cores, the jobs have to be spread."""
    return max(1, -int(-load.jobs_per_s * costs.server // 1))


def on_shared_cores(load: Load, costs: Costs, cores: int, asleep: float) -> float:
    """Return what sleepers get done where server, supervisor and they share cores.

    `asleep` is the CPU that a sleeper itself takes a job.
    """
    every = costs.supervisor + costs.settling + asleep
    return min(load.jobs_per_s, cores / every, 1 / costs.supervisor)

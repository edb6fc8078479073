"""`bwpool run`: the supervisor in the foreground."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import structlog
from cyclopts import Parameter

from bwpool.cli.common import (
    DONE,
    FAILED,
    CommonSettings,
    endpoint_of,
    execute,
)
from bwpool.deliveries import Parts
from bwpool.errors import ConfigError
from bwpool.pool.pool import Pool
from bwpool.queue.connection import Connection
from bwpool.queue.topology import ConsumerFacts, provide, read_facts
from bwpool.settings import (
    ConvertSettings,
    QueueSettings,
    RunSettings,
    ServerSettings,
    usable_cpus,
)
from bwpool.storage import probe
from bwpool.supervisor import Supervisor

Flat = Parameter(name="*")
"""Makes each field of a settings class an option of its own."""

log = structlog.get_logger()

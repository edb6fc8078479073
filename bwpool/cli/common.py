"""What all commands share: logging, exit codes, and how an error reaches a person."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import structlog
import uvloop
from cyclopts import Parameter

from bwpool.cli.options import server_in_file
from bwpool.errors import BwpoolError, ConfigError
from bwpool.queue.contexts import Endpoint, resolve
from bwpool.settings import ServerSettings

Flat = Parameter(name="*")
"""Makes each field of a settings class an option of its own."""

DONE, FAILED, MISUSED, DRIFTED = 0, 1, 2, 3
"""The exit codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """What every command can be told."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """How much to tell on stderr."""
    log_format: Literal["text", "json"] = "text"
    """How to write it: for people, or one JSON object a line."""
    config: Path | None = None
    """A TOML file with options, named as here without the dashes in front."""


def execute(
    common: CommonSettings, command: Callable[[], Coroutine[Any, Any, int]]
) -> int:
    """Run a command's coroutine and return its exit code, errors explained."""
    configure_logging(common)
    try:
        return uvloop.run(command())
    except ConfigError as error:
        complain(error)
        return MISUSED
    except BwpoolError as error:
        complain(error)
        return FAILED
    except KeyboardInterrupt:
        complain("interrupted")
        return FAILED


def complain(problem: object) -> None:
    """Say on stderr, in one line, what is wrong."""
    print(f"bwpool: {problem}", file=sys.stderr)


def endpoint_of(server: ServerSettings, common: CommonSettings) -> Endpoint:
    """Decide where to connect; there is always a default."""
    endpoint = resolve(server, config=server_in_file(common.config))
    assert endpoint is not None
    return endpoint


def explicit_endpoint(server: ServerSettings, common: CommonSettings) -> Endpoint | None:
    """Decide where to connect if anybody said so; a selected context does not count."""
    config = server_in_file(common.config)
    return resolve(server, config=config, explicit_only=True)


class _Stderr:
    """Whatever stderr is at the moment: a progress bar puts itself in between."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(common: CommonSettings) -> None:
    """Send events to stderr, at the level and in the format asked for."""
    level = logging.getLevelNamesMapping()[common.log_level.upper()]
    renderer: structlog.typing.Processor
    if common.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=22
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info
            if common.log_format == "json"
            else structlog.processors.StackInfoRenderer(),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(_Stderr())  # type: ignore[arg-type],
        cache_logger_on_first_use=True,
    )
    # What nats-py and asyncio log themselves is for debugging; we log the same events.
    logging.basicConfig(level=logging.DEBUG if level < logging.INFO else logging.ERROR)

"""What all commands share: logging, exit codes, and how an error reaches a person."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
import structlog
import uvloop
from cyclopts import Group, Parameter

from bwpool.cli import process
from bwpool.cli.options import server_in_file, server_in_variables
from bwpool.errors import BwpoolError, ConfigError
from bwpool.queue.contexts import Endpoint, resolve
from bwpool.settings import (
    ConvertSettings,
    PoolSettings,
    QueueSettings,
    ServerSettings,
)

_GROUPS = (
    "Options",
    "Conversion",
    "Converters",
    "Running",
    "Queue",
    "Server",
    "General",
)


def flat(group: str) -> Parameter:
    """Make each field of a settings class an option of its own, shown in `group`."""
    return Parameter(name="*", group=Group(group, sort_key=_GROUPS.index(group)))


Converting = Annotated[ConvertSettings, flat("Conversion")]
Converters = Annotated[PoolSettings, flat("Converters")]
Queue = Annotated[QueueSettings, flat("Queue")]
Server = Annotated[ServerSettings, flat("Server")]

LogLevel = Literal["debug", "info", "warning", "error"]

DONE, FAILED, MISUSED, DRIFTED = 0, 1, 2, 3
"""The exit codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonSettings:
    """What every command can be told."""

    log_level: LogLevel | None = None
    """How much to tell on stderr; `info` for what runs on and on, else `warning`."""
    log_format: Literal["text", "json"] = "text"
    """How to write it: for people, or one JSON object a line."""
    config: Path | None = None
    """A TOML file with options, named as here without the dashes in front."""


Common = Annotated[CommonSettings, flat("General")]


def execute(
    common: CommonSettings,
    command: Callable[[], Coroutine[Any, Any, int]],
    *,
    log_level: LogLevel = "info",
) -> int:
    """Run a command's coroutine and return its exit code, errors explained.

    `log_level` counts where nobody asked for another. A command that does not handle
    signals itself is cancelled by one, and its clean-up interrupted by another.
    """

    async def interruptible() -> int:
        process.cancel_on_signals()
        try:
            return await command()
        except BwpoolError:
            # Up to Python 3.11, what is waited for can swallow being cancelled.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
            raise

    configure_logging(common, log_level)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as a Runner wants it
    try:
        return uvloop.run(interruptible())
    except ConfigError as error:
        complain(error)
        return MISUSED
    except BwpoolError as error:
        complain(error)
        return FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        complain("interrupted")
        return FAILED
    finally:
        process.end_on_signals()  # the loop has put others back


def complain(problem: object) -> None:
    """Say on stderr, in one line, what is wrong; escaped, whoever worded it."""
    with contextlib.suppress(OSError):  # then there is nobody to tell
        print(f"bwpool: {printable(str(problem))}", file=sys.stderr)


def as_json_line(value: object) -> str:
    """Write a value as JSON in which nothing can steer a terminal either."""
    text = orjson.dumps(value).decode()
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _as_json_escape(c) for c in text)


def _as_json_escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(
        f"\\u{units[i] << 8 | units[i + 1]:04x}" for i in range(0, len(units), 2)
    )


def printable_lines(text: str) -> str:
    """Do the same as `printable`, but leave the lines."""
    return "\n".join(map(printable, text.split("\n")))


def printable(text: str) -> str:
    """Show what others wrote without letting it steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text
    )


def endpoint_of(server: ServerSettings, common: CommonSettings) -> Endpoint:
    """Decide where to connect; there is always a default."""
    endpoint = _resolve(server, common, explicit_only=False)
    assert endpoint is not None
    return endpoint


def explicit_endpoint(
    server: ServerSettings, common: CommonSettings
) -> Endpoint | None:
    """Decide where to connect if anybody said so; a selected context does not count."""
    return _resolve(server, common, explicit_only=True)


def _resolve(
    server: ServerSettings, common: CommonSettings, *, explicit_only: bool
) -> Endpoint | None:
    variables, config = server_in_variables(), server_in_file(common.config)
    return resolve(
        server, variables=variables, config=config, explicit_only=explicit_only
    )


def _escape(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Keep what others say from steering the terminal of whoever reads."""
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = (printable_lines if name == "exception" else printable)(value)
    return event


class _Formatter(logging.Formatter):
    """Does the same for what libraries log, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(super().format(record))


class _Stderr:
    """Whatever stderr is at the moment: a progress bar puts itself in between.

    That nobody reads it any more is no reason to stop working.
    """

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()


def configure_logging(common: CommonSettings, default: LogLevel = "info") -> None:
    """Send events to stderr, at the level and in the format asked for."""
    level = logging.getLevelNamesMapping()[(common.log_level or default).upper()]
    renderer: structlog.typing.Processor
    if common.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            pad_event_to=22,
            exception_formatter=structlog.dev.plain_traceback,
        )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info,
            _escape,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(_Stderr()),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    # What nats-py and asyncio log themselves is for debugging; we log the same events.
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter(logging.BASIC_FORMAT))
    logging.basicConfig(
        level=logging.DEBUG if level < logging.INFO else logging.ERROR,
        handlers=[handler],
    )

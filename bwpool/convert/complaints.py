"""Gathers what decoders complain about though they go on.

A converter converts one picture at a time, so what was heard since the last `take` is
about that one.
"""

from __future__ import annotations

import logging

_heard: list[str] = []


def hear(complaint: str) -> None:
    """Remember a complaint."""
    _heard.append(complaint)


def take() -> tuple[str, ...]:
    """Return the different complaints since the last call, in order."""
    taken = tuple(dict.fromkeys(_heard))
    _heard.clear()
    return taken


def listen(logger: logging.Logger) -> None:
    """Take a library's logged warnings for complaints, instead of printing them."""
    logger.handlers = [_Listener(logging.WARNING)]
    logger.propagate = False


class _Listener(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        for line in record.getMessage().removeprefix("VIPS:").splitlines():
            if line.strip():
                hear(line.strip())

"""Where an option's value comes from: flags, then variables, then a file.

The order is flags, BWPOOL_<OPTION>, OUTDIR, the file named by `--config`. (The NATS_*
variables belong to `queue.contexts`, which weighs them against contexts.)
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import cyclopts
from cyclopts.argument import ArgumentCollection

from bwpool.errors import ConfigError

ENVIRONMENT = cyclopts.config.Env("BWPOOL_", command=False)


def seed_environment(
    _app: cyclopts.App, _commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    """Let OUTDIR stand for `--out`, as it does for the seed's workers."""
    outdir = os.environ.get("OUTDIR")
    for argument in arguments:
        if argument.name == "--out" and not argument.tokens and outdir:
            token = cyclopts.Token(keyword="OUTDIR", value=outdir, source="env")
            argument.append(token)

"""The commands, put together."""

from __future__ import annotations

import sys

import cyclopts

import bwpool
from bwpool.cli import options
from bwpool.cli.common import MISUSED, complain
from bwpool.cli.run import run
from bwpool.errors import ConfigError


COMMANDS = (run,)


def make_app() -> cyclopts.App:
    """Put the commands together; without a command it is `run`."""
    app = cyclopts.App(
        name="bwpool",
        help="Turn pictures into black and white, in bulk, from a JetStream queue.",
        version=bwpool.__version__,
        result_action="return_value",
    )
    app.default(run)
    for command in COMMANDS:
        app.command(command)
    return app


def known_options(app: cyclopts.App) -> frozenset[str]:
    """Collect the options of all commands, by the names they have in a file."""
    return frozenset(
        argument.name.lstrip("-").replace("-", "_")
        for command in COMMANDS
        for argument in app[command.__name__].assemble_argument_collection()
    )


def run_command_line() -> None:
    """Run the command that the process was called with, and exit."""
    argv = sys.argv[1:]
    app = make_app()
    try:
        app.config = options.sources(options.config_path(argv), known_options(app))
        code = app(argv)
    except ConfigError as error:
        complain(error)
        code = MISUSED
    sys.exit(code)

"""The commands, put together."""

from __future__ import annotations

import sys

import cyclopts

import bwpool
from bwpool.cli import options, process
from bwpool.cli.backfill import backfill
from bwpool.cli.common import DONE, FAILED, MISUSED, complain
from bwpool.cli.dev import dev
from bwpool.cli.events import events
from bwpool.cli.failed import app as failed
from bwpool.cli.preview import preview
from bwpool.cli.run import run
from bwpool.cli.setup import setup
from bwpool.cli.submit import submit
from bwpool.errors import ConfigError
from bwpool.settings import Amount

HELP = """Turn pictures into black and white: `bwpool backfill FOLDER --out OUT`.

Or on several machines, from a queue in NATS JetStream: `bwpool setup` once, `bwpool
run --out OUT` on each, which is also what bwpool does without a command, and `bwpool
submit IMAGE`. What became of a picture that could not be done: `bwpool failed list`.
"""

COMMANDS = (backfill, preview, run, setup, submit, failed, events, dev)
"""In the order in which somebody new may want them."""


def make_app() -> cyclopts.App:
    """Put the commands together; without a command it is `run`."""
    app = cyclopts.App(
        name="bwpool",
        help=HELP,
        version=bwpool.__version__,
        default_parameter=cyclopts.Parameter(
            negative=(),
            show_default=shown_default,
            show_env_var=False,  # one sentence at the end says it for all
        ),
        help_epilogue=(
            "Every option can also be set as `BWPOOL_<OPTION>`, or in a TOML file that "
            "`--config` names."
        ),
        result_action="return_value",
    )
    app.default(run)
    before = set(app)
    for command in COMMANDS:
        app.command(command)
    for place, name in enumerate(name for name in app if name not in before):
        app[name].sort_key = place
    return app


def shown_default(value: object) -> str | None:
    """Say what holds where an option is not given, if that is worth a word."""
    if not value or value is True:
        return None
    if isinstance(value, Amount):
        for power, unit in enumerate("TGMk"):
            size = 1000 ** (4 - power)
            if value % size == 0:
                return f"{value // size}{unit}"
    return str(value)


def known_options(app: cyclopts.App) -> frozenset[str]:
    """Collect the options of all commands, by the names they have in a file."""
    names: set[str] = set()
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        if command.default_command is None:
            names |= known_options(command)
        else:
            for argument in command.assemble_argument_collection():
                names.add(options.name_of(argument))
    return frozenset(names)


def run_command_line() -> None:
    """Run the command that the process was called with, and exit."""
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except OSError as error:
        if not process.is_lost(sys.stdout, is_suspect=True):
            raise
        code = FAILED
        if not isinstance(error, BrokenPipeError):
            complain(f"can't write to stdout: {error.strerror}")
    process.is_lost(sys.stderr)
    sys.exit(code)


def _run(argv: list[str]) -> int:
    """Run a command and return its exit code; misuse is explained."""
    app = make_app()
    try:
        app.config = options.sources(options.config_path(argv), known_options(app))
        # Help and the version return None.
        return app(argv, print_error=False, exit_on_error=False) or DONE
    except cyclopts.UnusedCliTokensError as error:
        words = " ".join(error.unused_tokens or ())
        complain(f"{words!r} is neither a command nor expected here: see --help")
    except (ConfigError, cyclopts.CycloptsError) as error:
        complain(error)
    return MISUSED

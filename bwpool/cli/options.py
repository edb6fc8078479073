"""Where an option's value comes from: flags, then variables, then a file.

The order is flags, BWPOOL_<OPTION>, OUTDIR, the file named by `--config`. How to reach
the server is decided by `queue.contexts`, which weighs all these against the NATS_*
variables and contexts: so only flags set those options here.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import cyclopts
from cyclopts.argument import Argument, ArgumentCollection

from bwpool.errors import ConfigError
from bwpool.settings import ServerSettings

Source = Callable[[cyclopts.App, tuple[str, ...], ArgumentCollection], None]
"""Gives arguments that have no value yet the one it knows."""

_SERVER = frozenset(option.name for option in fields(ServerSettings))
_FILES = frozenset({"creds", "nkey", "cert", "key", "ca"})


def sources(path: Path | None, known: frozenset[str]) -> list[Source]:
    """List where options are looked up, strongest first; flags precede them all.

    `path` is a TOML file or None, `known` the names of all options. Raises ConfigError
    for a bad file.
    """
    found: list[Source] = [_variables, _outdir]
    if path is not None:
        values = read_file(path)
        for name in values:
            if name not in known:
                raise ConfigError(f"{path}: there is no option {name!r}")
        found.append(_from_file(path, values))
    return found


def config_path(argv: Sequence[str]) -> Path | None:
    """Find the file that `--config` or BWPOOL_CONFIG names, before anything else."""
    for i, word in enumerate(argv):
        if word == "--config" and i + 1 < len(argv):
            return Path(argv[i + 1])
        if word.startswith("--config="):
            return Path(word.removeprefix("--config="))
    named = os.environ.get("BWPOOL_CONFIG")
    return Path(named) if named else None


def read_file(path: Path) -> dict[str, Any]:
    """Read a TOML file of options; dashes and underscores are the same in names."""
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    for name, value in values.items():
        if isinstance(value, dict):
            raise ConfigError(f"{path}: {name!r} is a table, not a value")
    return {name.replace("-", "_"): value for name, value in values.items()}


def server_in_variables() -> ServerSettings:
    """Read what BWPOOL_* variables say of the server, which counts less than flags."""
    return _server({name: os.environ.get(f"BWPOOL_{name.upper()}") for name in _SERVER})


def server_in_file(path: Path | None) -> ServerSettings:
    """Read what the file says of the server, which counts for less than NATS_*."""
    return _server({} if path is None else read_file(path))


def _server(values: dict[str, Any]) -> ServerSettings:
    known = {name: values[name] for name in _SERVER & values.keys() if values[name]}
    for name in _FILES & known.keys():
        known[name] = Path(known[name])
    return ServerSettings(**known)


def _variables(
    app: cyclopts.App, commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    """Let BWPOOL_<OPTION> stand for an option."""
    weighed = ArgumentCollection(  # type: ignore[no-untyped-call]
        argument
        for argument in arguments
        if name_of(argument) not in _SERVER and _counts(argument, commands)
    )
    cyclopts.config.Env("BWPOOL_", command=False)(app, commands, weighed)


def _outdir(
    _app: cyclopts.App, commands: tuple[str, ...], arguments: ArgumentCollection
) -> None:
    """Let OUTDIR stand for `--out`, as it does for the seed's workers."""
    outdir = os.environ.get("OUTDIR")
    for argument in arguments:
        if name_of(argument) == "out" and outdir and _counts(argument, commands):
            _give(argument, outdir, "OUTDIR")


def _from_file(path: Path, values: dict[str, Any]) -> Source:
    def source(
        _app: cyclopts.App, commands: tuple[str, ...], arguments: ArgumentCollection
    ) -> None:
        for argument in arguments:
            name = name_of(argument)
            is_meant = name in values and name not in _SERVER
            if is_meant and _counts(argument, commands):
                _give(argument, values[name], str(path))

    return source


def name_of(argument: Argument) -> str:
    """Name an option as files do."""
    return argument.name.lstrip("-").replace("-", "_")


def _counts(argument: Argument, commands: tuple[str, ...]) -> bool:
    """Tell whether an option can be set without a flag in this command.

    Where `--out` means a store instead of a server, it is nothing to be set for good.
    """
    return commands[:1] != ("failed",) or name_of(argument) != "out"


def _give(argument: Argument, value: Any, origin: str) -> None:
    if argument.tokens:
        return
    several = value if isinstance(value, list) else [value]
    for i, one in enumerate(several):
        text = str(one).lower() if isinstance(one, bool) else str(one)
        token = cyclopts.Token(
            keyword=argument.name, value=text, source=origin, index=i
        )
        argument.append(token)

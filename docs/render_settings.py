"""Render `settings.md` from the settings' fields and the text below each.

Run as `python docs/render_settings.py`; the tests fail where the page is out of date.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_origin, get_type_hints

import cyclopts

from bwpool.cli.app import make_app, shown_default

PAGE = Path(__file__).with_name("settings.md")

HEAD = """\
# Settings

Rendered from the program by `python docs/render_settings.py`.

Every option can be given as a flag, as a variable (`BWPOOL_MAX_PIXELS` for
`--max-pixels`), or in a TOML file that `--config` names (`max-pixels = "2G"`). Flags
win over `BWPOOL_*`, that over `NATS_*` and `OUTDIR`, that over the file. Amounts can be
written `2e9`, `64M` or `1.5GiB`. `bwpool failed` takes its `--out` from a flag only.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(render())


def render() -> str:
    """Return the whole page: what many commands take first, then what one takes."""
    users: dict[tuple[str, Any], list[str]] = {}
    for name, command in commands(make_app()):
        for hint in get_type_hints(command, include_extras=True).values():
            if get_origin(hint) is Annotated and is_dataclass(hint.__origin__):
                title = _group(hint.__metadata__[0])
                of_one = title == "Options"
                key = (f"`bwpool {name}`" if of_one else title, hint.__origin__)
                users.setdefault(key, []).append(name)
    titles = sorted(users, key=lambda key: (key[0].startswith("`"), -len(users[key])))
    return "\n".join([HEAD, *(_section(*key, users[key]) for key in titles)])


def _group(parameter: cyclopts.Parameter) -> str:
    (group,) = cast("tuple[cyclopts.Group]", parameter.group)
    return group.name


def commands(
    app: cyclopts.App, prefix: str = ""
) -> Iterator[tuple[str, Callable[..., int]]]:
    """Yield each command's name and function, those of groups with both names."""
    for name in app:
        if not name.startswith("-"):
            command = app[name]
            if command.default_command is not None:
                yield prefix + name, command.default_command
            else:
                yield from commands(command, f"{prefix}{name} ")


def _section(title: str, settings: Any, users: list[str]) -> str:
    texts = _texts(settings)
    summary = (inspect.getdoc(settings) or "").splitlines()[0]
    if not title.startswith("`"):
        summary += f" For {', '.join(f'`{user}`' for user in users)}."
    rows = [_row(field, settings, texts[field.name]) for field in fields(settings)]
    table = ["| option | default | |", "| --- | --- | --- |", *rows]
    return "\n".join([f"## {title}", "", summary, "", *table, ""])


def _row(field: Field[Any], settings: type, text: str) -> str:
    default = None if field.default is MISSING else shown_default(field.default)
    choices = _choices(get_type_hints(settings)[field.name])
    if choices:
        text += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
    option = f"`--{field.name.replace('_', '-')}`"
    return f"| {option} | {f'`{default}`' if default else ''} | {text} |"


def _choices(hint: Any) -> tuple[str, ...]:
    """Return what a Literal allows, whether it may be left out or not."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    return next(filter(None, map(_choices, get_args(hint))), ())


def _texts(settings: type) -> dict[str, str]:
    """Read the text below each field, inherited ones included."""
    texts: dict[str, str] = {}
    for cls in settings.__mro__[-2::-1]:
        module = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
        (body,) = (
            node.body
            for node in module.body
            if isinstance(node, ast.ClassDef) and node.name == cls.__name__
        )
        for field, text in pairwise(body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(said))),
                ):
                    texts[name] = " ".join(said.split())
    return texts


if __name__ == "__main__":
    main()

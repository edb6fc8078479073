"""The functions that descriptors of methods and formats name.

They are named, not imported, in descriptors, since the supervisor reads those and must
not load the image libraries.
"""

from __future__ import annotations

from functools import cache
from pkgutil import resolve_name
from typing import Any

from bwpool.formats import FORMATS
from bwpool.methods import METHODS


@cache
def find(name: str) -> Any:
    """Return the function that `module:function` names."""
    return resolve_name(name)


def find_all() -> None:
    """Find the functions of all methods and formats; ImportError if one is missing."""
    named = {f"method {one.name}": one.function for one in METHODS.values()}
    named |= {f"format {one.name}": one.encoder for one in FORMATS.values()}
    for what, name in named.items():
        try:
            found = name is None or callable(find(name))
        except (AttributeError, ImportError, ValueError) as error:
            raise ImportError(f"the {what} names {name}: {error}") from error
        if not found:
            raise ImportError(f"the {what} names {name}, which is no function")

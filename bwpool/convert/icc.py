"""Judges ICC profiles: which ones change nothing worth the time of applying them.

Pure. Called by the readers.
"""

from __future__ import annotations

_SPACE = slice(16, 20)
_PLAIN = {b"RGB ": (b"sRGB",), b"GRAY": (b"sRGB", b"Gamma 2.2", b"gamma 2.2")}


def is_plain(profile: bytes | None) -> bool:
    """Whether pixels under `profile` can be taken for sRGB as they are.

    Profiles don't say what they are but in their description, in ASCII or UTF-16.
    """
    if not profile:
        return True
    names = _PLAIN.get(profile[_SPACE], ())
    text = profile.replace(b"\0", b"")
    return any(name in text for name in names)

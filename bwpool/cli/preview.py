"""`bwpool preview`: one picture through every method, to choose by looking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from bwpool.cli.common import DONE, Common, CommonSettings, execute, flat
from bwpool.errors import ConfigError, SourceMissing, SourceRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewSettings:
    """Where the sheet goes."""

    output: Annotated[Path, Parameter(name=("--output", "-o"))] = Path("preview.png")
    """The sheet's file."""


def preview(
    image: Path,
    /,
    *,
    settings: Annotated[PreviewSettings, flat("Options")] = PreviewSettings(),
    common: Common = CommonSettings(),
) -> int:
    """Put a picture and what each method makes of it side by side, labelled.

    Example: `bwpool preview scan.jpg -o sheet.png`

    Parameters
    ----------
    image
        The picture.
    """

    async def command() -> int:
        # The only command that converts in its own process.
        from bwpool.convert.preview import preview as render

        try:
            render(image, settings.output)
        except (SourceMissing, SourceRefused) as error:
            raise ConfigError(error.reason) from None
        print(settings.output)
        return DONE

    return execute(common, command, log_level="warning")

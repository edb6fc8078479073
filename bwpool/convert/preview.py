"""One picture through every method, side by side on a sheet, to choose by looking.

Called by `bwpool preview`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image, ImageDraw, ImageFont, ImageOps

from bwpool.convert.pipeline import convert, prepare
from bwpool.errors import ConfigError, SourceRefused
from bwpool.job import Job
from bwpool.methods import METHODS
from bwpool.settings import ConvertSettings

_COLUMNS = 4
_VIEW = (480, 360)
"""What the whole picture is made to fit into."""
_DETAIL = (480, 240)
"""What is shown of it pixel by pixel, from its middle."""
_LABEL = 68
_GAP = 16
_PAPER, _INK, _FAINT = "white", "black", "#666666"


@dataclass(frozen=True, slots=True)
class Tried:
    """One method, tried on the picture."""

    method: str
    bytes_out: int
    """As a PNG."""
    seconds: float


def preview(path: Path, output: Path) -> list[Tried]:
    """Write a sheet with the picture at `path` and what each method makes of it.

    Returns what each took, in the order of the sheet. Raises job errors for what can't
    be read, ConfigError where the sheet can't be written.
    """
    if output.exists() and output.samefile(path):
        raise SourceRefused(f"the sheet {output} would replace the picture")
    with TemporaryDirectory() as folder:
        settings = ConvertSettings(out=folder, format="png", no_sync=True)
        prepare(settings)
        for _ in range(2):  # first to warm up, so that times can be compared
            tried = [_try(path, method, settings) for method in METHODS]
        sheet = _sheet(path, tried, Path(folder))
    try:
        sheet.save(output)
    except (OSError, ValueError) as error:  # the latter for an unknown extension
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"can't write {output}: {reason}") from None
    return tried


def _try(path: Path, method: str, settings: ConvertSettings) -> Tried:
    started = time.perf_counter()
    job = Job(method, path.absolute().as_uri(), method=method)
    converted, pending = convert(job, settings)
    pending.commit()
    return Tried(method, converted.bytes_out, time.perf_counter() - started)


def _sheet(path: Path, tried: list[Tried], folder: Path) -> Image.Image:
    with Image.open(folder / "gray.png") as gray:
        gray.load()
    facts = f"{gray.width} by {gray.height}, {_amount(path.stat().st_size)}"
    cells = [_cell(("original", facts, ""), _original(path) or gray)]
    for one in tried:
        facts = f"{_amount(one.bytes_out)} as PNG, {one.seconds * 1000:.1f} ms"
        with Image.open(folder / f"{one.method}.png") as picture:
            summary = METHODS[one.method].summary
            cells.append(_cell((one.method, facts, summary), picture))
    return _arrange(cells)


def _arrange(cells: list[Image.Image]) -> Image.Image:
    """Put cells of one size side by side, in rows."""
    width, height = (side + _GAP for side in cells[0].size)
    rows = -(-len(cells) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), _PAPER)
    for number, cell in enumerate(cells):
        row, column = divmod(number, _COLUMNS)
        sheet.paste(cell, (_GAP + column * width, _GAP + row * height))
    return sheet


def _original(path: Path) -> Image.Image | None:
    """Open the picture in its colours, where Pillow can."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except OSError:
        return None


def _cell(label: tuple[str, str, str], picture: Image.Image) -> Image.Image:
    """Show a picture whole and in detail, under its label."""
    shown = picture.convert("RGB")
    view = shown.copy()
    view.thumbnail(_VIEW, Image.Resampling.BOX)
    detail = _middle(shown)
    height = _LABEL + view.height + _GAP + detail.height
    cell = Image.new("RGB", (_VIEW[0], height), _PAPER)
    draw = ImageDraw.Draw(cell)
    draw.text((0, 0), label[0], _INK, ImageFont.load_default(20))
    draw.text((0, 25), label[1], _FAINT, ImageFont.load_default(14))
    draw.text((0, 45), label[2], _FAINT, ImageFont.load_default(14))
    cell.paste(view, (0, _LABEL))
    cell.paste(detail, (0, _LABEL + view.height + _GAP))
    return cell


def _middle(picture: Image.Image) -> Image.Image:
    width, height = (min(pair) for pair in zip(picture.size, _DETAIL, strict=True))
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _amount(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"

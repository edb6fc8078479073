"""Render the example pictures, and the README's picture of them before and after.

    python examples/render.py            the examples
    python examples/render.py --compare OUT   docs/before-after.png, from converted ones

Needs numpy and Pillow. The pictures are committed, so nobody has to run this.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

HERE = Path(__file__).parent
SIZE = (960, 640)

TEXT = """\
A work queue holds what is to be done until somebody has done it. Each job is \
given to one worker at a time; a worker that falls silent loses it to another, \
and a job that nobody can do is set aside, to be looked at by a person.

This page is text, as a scanner sees it: dark on light, not quite even, with \
letters that are gray at their edges. Dithering keeps its tone. A threshold \
makes it crisp. For pages like this one there is a method that looks at the \
neighbourhood of every pixel, so that a shadow across the paper does no harm."""


def noise(rng: np.random.Generator, scale: int) -> np.ndarray:
    """Make smooth noise in 0..1 whose features are about `scale` pixels wide."""
    width, height = SIZE
    coarse = rng.random((height // scale + 2, width // scale + 2))
    picture = Image.fromarray((coarse * 255).astype(np.uint8))
    return np.asarray(picture.resize(SIZE, Image.Resampling.BICUBIC)) / 255.0


def sunset() -> Image.Image:
    """Paint a sky that goes from dark to glowing, with hills before it."""
    rng = np.random.default_rng(1)
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width].astype(float)
    depth = (y / height)[..., None]
    sky = np.array([30, 50, 110]) * (1 - depth) + np.array([255, 170, 90]) * depth
    clouds = noise(rng, 90) * 0.6 + noise(rng, 30) * 0.4
    streaks = np.clip((clouds - 0.5) * 3, 0, 1)[..., None] * (1 - depth)
    sky = sky * (1 - 0.5 * streaks) + np.array([240, 200, 190]) * 0.5 * streaks
    distance = np.hypot(x - 640, y - 380)[..., None]
    sun = np.clip(1.1 - distance / 60, 0, 1) + 0.6 * np.exp(-distance / 120)
    picture = sky + sun * np.array([255, 230, 170])
    for i, shade in enumerate((0.55, 0.34, 0.16)):
        ridge = 400 + 70 * i + 60 * np.sin(x / (150 - 30 * i) + 2 * i)
        ridge += 45 * (noise(rng, 60 - 15 * i) - 0.5)
        haze = np.array([120, 95, 120]) * shade + 25 * noise(rng, 4)[..., None] * shade
        picture = np.where((y > ridge)[..., None], haze, picture)
    grain = rng.normal(0, 3, picture.shape)
    return Image.fromarray(np.clip(picture + grain, 0, 255).astype(np.uint8))


def still_life() -> Image.Image:
    """Light three balls on a table from the left, with soft shadows."""
    width, height = SIZE
    y, x = np.mgrid[0:height, 0:width].astype(float)
    wall = 150 - 90 * (x / width) + 30 * np.exp(-np.hypot(x - 150, y - 100) / 200)
    table = 210 - 120 * np.hypot(x - 300, (y - 520) * 2) / 900
    tone = np.where(y > 400, table, wall)
    picture = tone[..., None] * np.array([1.0, 0.93, 0.82])
    light = np.array([-0.6, -0.6, 0.55])
    light = light / np.linalg.norm(light)
    balls = (
        (300, 380, 140, (0.9, 0.25, 0.2)),
        (560, 430, 95, (0.95, 0.8, 0.3)),
        (730, 400, 120, (0.3, 0.5, 0.85)),
    )
    for cx, cy, r, _ in balls:
        shadow = np.hypot((x - cx - r * 0.7) / 1.7, (y - cy - r * 0.85) * 2.4) / r
        picture *= (1 - 0.55 * np.exp(-(shadow**3)))[..., None]
    for cx, cy, r, colour in balls:
        nx, ny = (x - cx) / r, (y - cy) / r
        inside = nx**2 + ny**2 < 1
        nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0, 1))
        shade = np.clip(nx * light[0] + ny * light[1] + nz * light[2], 0, 1)
        gloss = np.clip(2 * shade * nz - light[2], 0, 1) ** 40
        lit = (30 + 215 * shade)[..., None] * np.array(colour) + 200 * gloss[..., None]
        picture = np.where(inside[..., None], lit, picture)
    return Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8))


def page() -> Image.Image:
    """Set a page of text on paper that is not evenly lit."""
    width, height = SIZE
    paper = Image.new("L", (width * 2, height * 2), 255)
    draw = ImageDraw.Draw(paper)
    title, body = ImageFont.load_default(72), ImageFont.load_default(38)
    draw.text((140, 110), "On queues", font=title, fill=20)
    top = 250
    for paragraph in TEXT.split("\n\n"):
        for line in wrap(draw, paragraph, body, 1640):
            draw.text((140, top), line, font=body, fill=35)
            top += 58
        top += 40
    ink = np.asarray(paper.resize(SIZE, Image.Resampling.LANCZOS)) / 255.0
    y, x = np.mgrid[0:height, 0:width].astype(float)
    light = 235 - 70 * (x / width) ** 2 - 50 * (y / height)
    grain = np.random.default_rng(3).normal(0, 3, ink.shape)
    return Image.fromarray(np.clip(ink * light + grain, 0, 255).astype(np.uint8))


def wrap(
    draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont, width: int
) -> list[str]:
    """Break `text` into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font=font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def drawing() -> Image.Image:
    """Draw a gear train in thin lines, as on a blueprint."""
    scale = 3
    picture = Image.new("RGBA", (SIZE[0] * scale, SIZE[1] * scale), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    ink = (20, 40, 110, 255)
    gears = ((300, 330, 170, 34), (578, 262, 108, 22), (742, 400, 98, 20))
    for cx, cy, radius, teeth in gears:
        outline = []
        for i in range(teeth * 4):
            angle = 2 * math.pi * (i - 0.5) / (teeth * 4)
            r = radius + (9 if i % 4 in (1, 2) else -9)
            outline.append((cx + r * math.cos(angle), cy + r * math.sin(angle)))
        points = [(px * scale, py * scale) for px, py in outline]
        draw.line([*points, points[0]], fill=ink, width=5)
        for r in (radius * 0.78, radius * 0.3, radius * 0.16):
            box = [(cx - r) * scale, (cy - r) * scale]
            box += [(cx + r) * scale, (cy + r) * scale]
            draw.ellipse(box, outline=ink, width=4)
        for spoke in range(6):
            angle = math.pi * spoke / 3
            draw.line(
                [
                    (
                        (cx + r * math.cos(angle)) * scale,
                        (cy + r * math.sin(angle)) * scale,
                    )
                    for r in (radius * 0.3, radius * 0.78)
                ],
                fill=ink,
                width=4,
            )
        cross = radius * 1.15
        draw.line(
            [(cx - cross) * scale, cy * scale, (cx + cross) * scale, cy * scale],
            fill=ink,
        )
        draw.line(
            [cx * scale, (cy - cross) * scale, cx * scale, (cy + cross) * scale],
            fill=ink,
        )
    return picture.resize(SIZE, Image.Resampling.LANCZOS)


def compare(out: Path) -> Image.Image:
    """Put examples beside what became of them, pixel for pixel."""
    crop, gap = (300, 170, 660, 410), 12
    names = ("sunset.jpg", "still-life.jpg")
    width = 2 * (crop[2] - crop[0]) + gap
    height = len(names) * (crop[3] - crop[1]) + gap * (len(names) - 1)
    sheet = Image.new("RGB", (width, height), "white")
    for row, name in enumerate(names):
        top = row * (crop[3] - crop[1] + gap)
        for column, folder in enumerate((HERE, out)):
            with Image.open(folder / name) as picture:
                left = column * (crop[2] - crop[0] + gap)
                sheet.paste(picture.convert("RGB").crop(crop), (left, top))
    return sheet


def main() -> None:
    """Render what is asked for."""
    if sys.argv[1:2] == ["--compare"]:
        docs = HERE.parent / "docs"
        docs.mkdir(exist_ok=True)
        compare(Path(sys.argv[2])).save(docs / "before-after.png", optimize=True)
        return
    sunset().save(HERE / "sunset.jpg", quality=88)
    still_life().filter(ImageFilter.SMOOTH).save(HERE / "still-life.jpg", quality=88)
    page().save(HERE / "page.png", dpi=(110, 110), optimize=True)
    drawing().save(HERE / "drawing.webp", lossless=True)


if __name__ == "__main__":
    main()

"""Measure how near to a picture each dithering comes, and what the nearest one costs.

    python -m benchmarks.faithful [--quick] [--json] [--pictures FOLDER]

HPSNR is the PSNR of output and gray source, both after a Gaussian: of 1.5 pixels for
what an eye sees from a distance, of 1 and of 2.5 for nearer and farther away. Outside
the picture both are the same. `faithful` is also timed beside Floyd–Steinberg, the two
taking turns, and both are tried on flat fields, whose tone they should keep.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image

from benchmarks import corpus
from benchmarks.command import Found, parser, report, show_host, spelled
from benchmarks.corpus import Sample
from benchmarks.host import host
from benchmarks.outputs import gray_of
from benchmarks.programs import graphicsmagick, imagemagick
from benchmarks.turns import ratios, shuffled, summary
from bwpool.convert import convert, prepare
from bwpool.convert.dither import KERNELS, Diffuser, Kernel, Weights
from bwpool.job import Job
from bwpool.methods import METHODS
from bwpool.settings import ConvertSettings

SIGMAS = (1.0, 1.5, 2.5)
MAIN = 1.5
"""The Gaussian by which pictures are compared where only one is told, in pixels."""
OURS, OTHER = "faithful", "floyd-steinberg"
WEIGHTS: tuple[Weights, Weights] = (OURS, OTHER)
PEERS = {"imagemagick": imagemagick, "graphicsmagick": graphicsmagick}
CHUNK = 0.05
"""How many seconds one turn takes at least."""

Pixels = NDArray[np.uint8]


def outputs(sample: Sample, folder: Path) -> dict[str, Path]:
    """Let everybody that dithers make a PNG of the picture; return it by name."""
    made = {
        name: convert_once(sample.path, folder, method=name, target="png")
        for name, method in METHODS.items()
        if method.is_dithered
    }
    made["pillow"] = folder / "pillow.png"
    Image.fromarray(gray_of(sample.path)).convert("1").save(made["pillow"])
    for name, find in PEERS.items():
        if command := find():
            made[name] = folder / f"{name}.png"
            paths = [str(sample.path), "-monochrome", str(made[name])]
            subprocess.run([*command, *paths], check=True)
    return made


def convert_once(path: Path, folder: Path, *, method: str, target: str) -> Path:
    """Convert a picture as a converter does, and return the output."""
    settings = ConvertSettings(out=str(folder), no_sync=True)
    job = Job(method, path.absolute().as_uri(), method=method, format=target)
    _, pending = convert(job, settings)
    pending.commit()
    return Path(pending.path)


def hpsnr(difference: NDArray[np.float32], sigma: float) -> float:
    """Return a difference's PSNR after a Gaussian, in decibels."""
    reach = int(4 * sigma + 0.5)
    x = np.arange(-reach, reach + 1)
    weights = np.exp(-(x**2) / (2 * sigma**2))
    kernel = pyvips.Image.new_from_array([list(weights / weights.sum())])
    image = pyvips.Image.new_from_array(np.pad(difference, reach))
    seen = image.convsep(kernel, precision="float").numpy()
    inside = seen[reach:-reach, reach:-reach]
    return float(10 * np.log10(255**2 / np.mean(inside**2, dtype=np.float64)))


def fidelity(sample: Sample, folder: Path) -> list[Found]:
    """Compare what everybody made of a picture with it."""
    gray = gray_of(sample.path).astype(np.float32)
    found = []
    for name, path in outputs(sample, folder).items():
        difference = gray_of(path) - gray
        found.append(
            {
                "picture": sample.name,
                "contender": name,
                "hpsnr": {str(sigma): hpsnr(difference, sigma) for sigma in SIGMAS},
                "tone": float(difference.mean(dtype=np.float64)),
            }
        )
    return found


def gains(found: list[Found]) -> Found:
    """Tell how many decibels `faithful` is nearer, picture by picture."""
    by = {(one["picture"], one["contender"]): one["hpsnr"] for one in found}
    return {
        str(sigma): {
            picture: by[picture, OURS][str(sigma)] - by[picture, OTHER][str(sigma)]
            for picture in dict.fromkeys(one["picture"] for one in found)
        }
        for sigma in SIGMAS
    }


def flat_fields(side: int, step: int) -> Found:
    """Tell how far off the tone of flat fields is at most, of 255."""
    return {
        weights: max(
            abs(float(diffused(level, side, weights).mean()) - level)
            for level in range(2, 254, step)
        )
        for weights in WEIGHTS
    }


def diffused(level: int, side: int, weights: Weights) -> Pixels:
    """Dither a flat field."""
    diffuser = Diffuser(side, packed=False, weights=weights)
    field = bytes([level]) * side**2
    return np.frombuffer(diffuser.feed(field, side), np.uint8)


def kernels(gray: Pixels, rounds: int) -> Found:
    """Time the kernels of both, in nanoseconds a pixel."""
    return {
        kernel: timed(
            {weights: partial(feed, gray, kernel, weights) for weights in WEIGHTS},
            rounds,
            per=gray.size / 1e9,
        )
        for kernel in KERNELS
        if kernel != "pillow"
    }


def feed(gray: Pixels, kernel: Kernel, weights: Weights) -> None:
    """Dither rows by one kernel."""
    height, width = gray.shape
    diffuser = Diffuser(width, packed=True, kernel=kernel, weights=weights)
    diffuser.feed(gray.data, height)


def conversions(sample: Sample, folder: Path, rounds: int) -> Found:
    """Time whole conversions to TIFF by both, in milliseconds."""
    contenders = {
        name: partial(convert_once, sample.path, folder, method=name, target="tiff")
        for name in WEIGHTS
    }
    return {"picture": sample.name, **timed(contenders, rounds, per=1e-3)}


def timed(
    contenders: dict[str, Callable[[], object]], rounds: int, *, per: float
) -> Found:
    """Let both take turns, and tell each one's time and how many times ours is."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name in shuffled(list(contenders)):
            times[name].append(turn(contenders[name]) / per)
    found: Found = {name: summary(values) for name, values in times.items()}
    return {**found, "ours_to_other": ratios(times[OURS], times[OTHER])}


def turn(contender: Callable[[], object]) -> float:
    """Return the median seconds of what is done over and over, the first left out."""
    spent: list[float] = []
    while len(spent) < 2 or sum(spent) < CHUNK:
        started = time.perf_counter()
        contender()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent[1:])


def measure(samples: list[Sample], *, quick: bool) -> Found:
    """Take all the measurements."""
    prepare(ConvertSettings())
    rounds, side, step = (2, 64, 50) if quick else (15, 512, 1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        each = [one for sample in samples for one in fidelity(sample, folder)]
        jpegs = [one for one in samples if one.path.suffix in (".jpg", ".jpeg")]
        largest = max(jpegs or samples, key=lambda sample: sample.megapixels)
        return {
            "host": host(),
            "corpus": corpus.digest(samples),
            "absent": [peer for peer, find in PEERS.items() if not find()],
            "fidelity": each,
            "gains": gains(each),
            "flat_fields": flat_fields(side, step),
            "kernels": kernels(gray_of(largest.path), rounds),
            "conversion": conversions(largest, folder, rounds),
        }


def show(found: Found) -> None:
    """Print the measurements as tables."""
    show_host(found)
    print(f"corpus {found['corpus']}\n\nHPSNR in dB by sigma; mean tone off, of 255")
    for one in found["fidelity"]:
        decibels = "".join(f"{value:7.2f}" for value in one["hpsnr"].values())
        label = f"{one['picture']:26} {one['contender']:16}"
        print(f"{label}{decibels} {one['tone']:+8.3f}")
    for peer in found["absent"]:
        print(f"{peer} is not installed")
    print(f"\n{OURS} is nearer than {OTHER} by, in dB")
    for sigma, by_picture in found["gains"].items():
        values = list(by_picture.values())
        print(
            f"at {sigma}: {statistics.mean(values):+.2f} on average, "
            f"from {min(values):+.2f} to {max(values):+.2f}"
        )
    for weights, off in found["flat_fields"].items():
        print(f"flat fields by {weights} are off by {off:.3f} at most")
    for kernel, one in found["kernels"].items():
        print(f"{kernel}: {_both(one, 'ns a pixel')}")
    conversion = found["conversion"]
    print(f"{conversion['picture']} to TIFF: {_both(conversion, 'ms')}")


def _both(one: Found, unit: str) -> str:
    ours, other = (spelled(one[name], ".3f") for name in (OURS, OTHER))
    ratio = spelled(one["ours_to_other"], ".3f")
    return f"{ours} beside {other} {unit}, {ratio} times"


def main() -> None:
    """Run the benchmark."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--pictures", type=Path, help="a folder of pictures of one's own"
    )
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if given.pictures:
            samples = corpus.gather(given.pictures)
        else:
            samples = corpus.render(Path(name), quick=given.quick)
        found = measure(samples, quick=given.quick)
    report(given, found, show)


if __name__ == "__main__":
    main()

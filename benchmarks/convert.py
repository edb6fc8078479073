"""Measure how fast, how faithful and how lean one conversion is, beside other tools.

In one process, without queue or sync, all contenders taking turns:

    python -m benchmarks.convert [--quick] [--json] [--pictures FOLDER]

The floor is libjpeg-turbo's luma decoder, by the faster of two bindings, and its gray
encoder, with dithering for nothing. Every output is looked at, so that a fast wrong
run fails. Exit code 1 if one is wrong.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from benchmarks import corpus
from benchmarks.command import parser, report
from benchmarks.corpus import Sample
from benchmarks.host import host
from benchmarks.outputs import gray_of
from benchmarks.programs import graphicsmagick, imagemagick
from benchmarks.turns import spread
from bwpool.convert import convert, prepare
from bwpool.job import Job
from bwpool.pool.pool import CHILD_ENVIRONMENT
from bwpool.settings import ConvertSettings

QUALITY = 75
ROUNDS = 15
SLOW_ROUNDS = 5
"""For other programs, which take seconds, and whose medians are steady."""
OUTPUTS = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - not secret
"""Where outputs go, everybody's: into memory where there is a file system in it, since
it is not the disk that is measured."""
TURN = 0.05
"""How many seconds one turn takes at least."""
PEERS = ("imagemagick", "graphicsmagick")

Pixels = NDArray[np.uint8]
Contender = Callable[[], Path | None]
"""Converts its sample once; returns the output, None for what is only a part."""


@dataclass(frozen=True, slots=True)
class Speed:
    """The time that a contender took for a picture, as a median over the rounds."""

    picture: str
    contender: str
    seconds: float
    spread: float
    """Of the middle half of the rounds, as a share of the median."""
    images_per_second: float
    megapixels_per_second: float
    share_of_floor: float | None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How near an output is to its picture."""

    picture: str
    contender: str
    hpsnr: float
    """Decibels, after a Gaussian of 1.5 pixels, which is what an eye sees from afar."""
    tone: float
    """The output's mean gray less the picture's, of 255."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process of its own needed for one conversion."""

    picture: str
    method: str
    target: str
    seconds: float
    peak_bytes: int
    anonymous_bytes: int
    """The peak without mapped files."""


class Bench:
    """One picture and all its contenders, writing into one folder."""

    def __init__(self, sample: Sample, out: Path) -> None:
        """Prepare the contenders for `sample`."""
        self.sample = sample
        self.out = out
        self.data = sample.path.read_bytes()
        self.gray = gray_of(sample.path)
        self.settings = ConvertSettings(out=str(out), no_sync=True, quality=QUALITY)
        dithered = Image.fromarray(self.gray).convert("1").convert("L")
        self.dithered = np.asarray(dithered)[..., None]

    def contenders(self) -> dict[str, Contender]:
        """Name everything that takes a turn."""
        every: dict[str, Contender] = {
            "bwpool": self._bwpool("floyd-steinberg", "jpg"),
            "bwpool to png": self._bwpool("floyd-steinberg", "png"),
            "bwpool blue-noise to png": self._bwpool("blue-noise", "png"),
            "pillow": self._pillow,
            "libvips": self._libvips,
            "encode simplejpeg": self._encode_simplejpeg,
            "encode pillow": self._encode_pillow,
        }
        if self.sample.path.suffix == ".jpg":
            every["decode simplejpeg"] = self._decode_simplejpeg
            every["decode pillow"] = self._decode_pillow
        if imagemagick():
            every["imagemagick"] = self._imagemagick
        if graphicsmagick():
            every["graphicsmagick"] = self._graphicsmagick
        return every

    def _bwpool(self, method: str, target: str) -> Contender:
        job = Job(
            f"bwpool-{method}",
            self.sample.path.absolute().as_uri(),
            method=method,
            format=target,
        )

        def run() -> Path:
            _, pending = convert(job, self.settings)
            pending.commit()
            return Path(pending.path)

        return run

    def _pillow(self) -> Path:
        """Do what one would write with Pillow, its fast JPEG mode included."""
        path = self.out / "pillow.jpg"
        with Image.open(self.sample.path) as image:
            image.draft("L", image.size)
            image.convert("L").convert("1").save(path, quality=QUALITY)
        return path

    def _libvips(self) -> Path:
        """Do what libvips can by itself: a threshold in linear light."""
        path = self.out / "libvips.jpg"
        image = pyvips.Image.new_from_file(self.sample.path, access="sequential")
        bilevel = image.colourspace("b-w")[0] > 127
        bilevel.jpegsave(path, Q=QUALITY)
        return path

    def _imagemagick(self) -> Path:
        return self._run(imagemagick(), "imagemagick.jpg")

    def _graphicsmagick(self) -> Path:
        return self._run(graphicsmagick(), "graphicsmagick.jpg")

    def _run(self, command: list[str], name: str) -> Path:
        path = self.out / name
        options = ["-monochrome", "-quality", str(QUALITY)]
        subprocess.run(
            [*command, str(self.sample.path), *options, str(path)], check=True
        )
        return path

    def _decode_simplejpeg(self) -> None:
        simplejpeg.decode_jpeg(self.data, "GRAY")

    def _decode_pillow(self) -> None:
        with Image.open(io.BytesIO(self.data)) as image:
            image.draft("L", image.size)
            image.decodermaxblock = len(self.data)
            image.load()

    def _encode_simplejpeg(self) -> None:
        simplejpeg.encode_jpeg(self.dithered, QUALITY, "GRAY", "Gray")

    def _encode_pillow(self) -> None:
        Image.fromarray(self.dithered[..., 0]).save(
            io.BytesIO(), "JPEG", quality=QUALITY
        )


def take_turns(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Time every contender once a round, after one that isn't counted."""
    contenders = bench.contenders()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for name, contender in contenders.items():
        if output := contender():
            check(bench, name, output)
    order = random.Random(1)  # noqa: S311 - so that nobody always follows the same
    for count in range(rounds):
        names = [name for name in times if name not in PEERS or count < SLOW_ROUNDS]
        order.shuffle(names)
        for name in names:
            times[name].append(turn(contenders[name], once=name in PEERS))
    return times


def turn(contender: Contender, *, once: bool) -> float:
    """Return the seconds of one conversion, in the steady state of a converter.

    The first is not counted, since whoever had the turn before has filled the caches;
    what is over before the clock can tell is done several times. Outputs are removed
    outside the clock. Another program has no steady state: it starts `once`.
    """
    spent: list[float] = []
    while len(spent) < 2 or sum(spent) < TURN:
        started = time.perf_counter()
        output = contender()
        spent.append(time.perf_counter() - started)
        if output is not None:
            output.unlink()
        if once:
            return spent[0]
    return statistics.mean(spent[1:] or spent)


def check(bench: Bench, name: str, output: Path) -> None:
    """Exit unless `output` is the picture in black and white."""
    pixels = gray_of(output)
    off = abs(pixels.mean() - bench.gray.mean())
    is_faithful = name.startswith("bwpool") or name == "pillow"
    # JPEG clips what rings around isolated dots, and so shifts dark pictures up; a
    # small picture's edges, where errors get lost, are much of it.
    is_exact = output.suffix == ".png" and bench.sample.megapixels > 1
    allowed = 0.5 if is_exact else 4
    if pixels.shape != bench.gray.shape or (is_faithful and off > allowed):
        sys.exit(f"{name} made something else of {bench.sample.name}")
    if output.suffix == ".png" and set(np.unique(pixels)) - {0, 255}:
        sys.exit(f"{name} left grays in {bench.sample.name}")


def speeds(bench: Bench, rounds: int) -> list[Speed]:
    """Time all the contenders on one picture."""
    times = take_turns(bench, rounds)
    medians = {name: statistics.median(spent) for name, spent in times.items()}
    floor = _floor(medians)
    if floor is not None:
        times["floor"] = [floor]
        medians["floor"] = floor
    parts = ("decode", "encode")
    return [
        Speed(
            picture=bench.sample.name,
            contender=name,
            seconds=medians[name],
            spread=spread(times[name]),
            images_per_second=1 / medians[name],
            megapixels_per_second=bench.sample.megapixels / medians[name],
            share_of_floor=floor and floor / medians[name],
        )
        for name in times
        if not name.startswith(parts)
    ]


def _floor(medians: dict[str, float]) -> float | None:
    decoders = [medians[name] for name in medians if name.startswith("decode")]
    encoders = [medians[name] for name in medians if name.startswith("encode")]
    return min(decoders) + min(encoders) if decoders else None


def fidelities(bench: Bench) -> list[Fidelity]:
    """Compare what each contender made with the picture."""
    found = []
    for name, contender in bench.contenders().items():
        output = contender()
        if output is not None and name != "libvips":
            pixels = gray_of(output)
            found.append(
                Fidelity(
                    picture=bench.sample.name,
                    contender=name,
                    hpsnr=hpsnr(bench.gray, pixels),
                    tone=float(pixels.mean() - bench.gray.mean()),
                )
            )
    return found


def hpsnr(picture: Pixels, output: Pixels) -> float:
    """Return the PSNR between two pictures seen from afar, in decibels."""
    difference = _blurred(picture) - _blurred(output)
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


def _blurred(pixels: Pixels) -> NDArray[np.float32]:
    image = pyvips.Image.new_from_array(pixels.astype(np.float32))
    blurred: NDArray[np.float32] = image.gaussblur(
        1.5, min_ampl=0.001, precision="float"
    ).numpy()
    return blurred


def memory(sample: Sample, method: str, target: str) -> Memory:
    """Convert once in a process of its own, set up as the pool sets up converters."""
    command = [sys.executable, "-m", "benchmarks.convert", "--probe"]
    run = subprocess.run(
        [*command, str(sample.path), method, target],
        check=True,
        stdout=subprocess.PIPE,
        env={**os.environ, **CHILD_ENVIRONMENT},
    )
    return Memory(sample.name, method, target, **json.loads(run.stdout))


def probe(path: Path, method: str, target: str) -> dict[str, float]:
    """Convert one picture here, and say what it took."""
    with tempfile.TemporaryDirectory() as out:
        settings = ConvertSettings(out=out, no_sync=True)
        prepare(settings)
        job = Job("probe", path.absolute().as_uri(), method=method, format=target)
        started = time.perf_counter()
        _, pending = convert(job, settings)
        seconds = time.perf_counter() - started
        pending.discard()
    peak = _status("VmHWM")
    # The files mapped are the libraries.
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "anonymous_bytes": peak - _status("RssFile"),
    }


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def measure(samples: list[Sample], folder: Path, *, quick: bool) -> dict[str, Any]:
    """Take all the measurements."""
    prepare(ConvertSettings())
    found: dict[str, Any] = {
        "host": host(),
        "corpus": corpus.digest(samples),
        "speed": [],
        "fidelity": [],
        "memory": [],
    }
    with tempfile.TemporaryDirectory(dir=OUTPUTS) as out:
        for sample in samples:
            bench = Bench(sample, Path(out))
            found["speed"] += map(asdict, speeds(bench, 2 if quick else ROUNDS))
            if sample.megapixels > 1 or quick:
                found["fidelity"] += map(asdict, fidelities(bench))
    *jpegs, tiff = corpus.render_large(folder, quick=quick)
    tasks = [(jpeg, "floyd-steinberg", "jpg") for jpeg in jpegs]
    tasks += [(tiff, method, "tiff") for method in ("floyd-steinberg", "blue-noise")]
    found["memory"] = [asdict(memory(*task)) for task in tasks]
    return found


def show(found: dict[str, Any]) -> None:
    """Print the measurements as tables."""
    print(" · ".join(f"{key} {value}" for key, value in found["host"].items()))
    print(f"corpus {found['corpus']}")
    print(
        "\nspeed: ms, spread, images/s, megapixels/s, of the floor, times ImageMagick"
    )
    seconds = {
        (one["picture"], one["contender"]): one["seconds"] for one in found["speed"]
    }
    for one in found["speed"]:
        slow = seconds.get((one["picture"], "imagemagick"))
        print(
            f"{one['picture']:26} {one['contender']:26} {one['seconds'] * 1000:9.2f}"
            f" {one['spread']:5.0%} {one['images_per_second']:8.1f}"
            f" {one['megapixels_per_second']:8.1f}"
            f" {_ratio(one['share_of_floor'])} {_ratio(slow and slow / one['seconds'])}"
        )
    for peer in PEERS:
        if not any(contender == peer for _, contender in seconds):
            print(f"{peer} is not installed")
    print("\nfidelity: HPSNR in dB, mean tone off, of 255")
    for one in found["fidelity"]:
        print(
            f"{one['picture']:26} {one['contender']:26} {one['hpsnr']:6.1f}"
            f" {one['tone']:+6.2f}"
        )
    print("\nmemory: seconds, peak MB, peak MB without mapped files")
    for one in found["memory"]:
        print(
            f"{one['picture']:26} {one['method'] + ' to ' + one['target']:26}"
            f" {one['seconds']:6.2f} {one['peak_bytes'] / 1e6:6.0f}"
            f" {one['anonymous_bytes'] / 1e6:6.0f}"
        )


def _ratio(value: float | None) -> str:
    return f"{value:7.2f}" if value else " " * 7


def main() -> None:
    """Run the benchmark."""
    arguments = parser(__doc__)
    arguments.add_argument(
        "--pictures", type=Path, help="a folder of pictures of one's own"
    )
    arguments.add_argument("--probe", nargs=3, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.probe:
        path, method, target = given.probe
        print(json.dumps(probe(Path(path), method, target)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.pictures:
            samples = corpus.gather(given.pictures)
        else:
            samples = corpus.render(folder, quick=given.quick)
        found = measure(samples, folder, quick=given.quick)
    report(given, found, show)


if __name__ == "__main__":
    main()

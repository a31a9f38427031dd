"""What the leak report finds of edited copies, how far apart different pictures are, and how long a million take.

The pictures are the sample photographs and nine pieces of each; those that look like an earlier one are left out. A
copy is found where its perceptual hash is near enough by the default of `max_leak_distance`.
"""

import io
import resource
import time
from collections.abc import Callable
from itertools import combinations
from typing import Final

import numpy as np
from PIL import Image, ImageEnhance

from benches.options import Options, say
from benches.report import Aim, Cell, Report, percent
from variations.leak_report import DEFAULT_DISTANCE
from variations.near_duplicates import find_near_duplicates
from variations.perceptual_hash import distance
from variations.sandbox import sample_photos
from variations.source_images import Look, look_at

SOURCES: Final = 1_000_000
SHARES: Final = (0.8, 0.1, 0.1)
PIECES: Final = 3
AIM_SECONDS: Final = 60.0
AIM_MB: Final = 600.0


def _scaled(image: Image.Image, by: float) -> Image.Image:
    return image.resize((max(1, round(image.width * by)), max(1, round(image.height * by))))


def _trimmed(image: Image.Image, by: float) -> Image.Image:
    width, height = image.size
    return image.crop((round(width * by), round(height * by), round(width * (1 - by)), round(height * (1 - by))))


EDITS: Final[dict[str, Callable[[Image.Image], bytes]]] = {
    "JPEG, quality 90": lambda image: _file(image, quality=90),
    "JPEG, quality 40": lambda image: _file(image, quality=40),
    "half the size, quality 70": lambda image: _file(_scaled(image, 0.5), quality=70),
    "a quarter of the size, quality 70": lambda image: _file(_scaled(image, 0.25), quality=70),
    "a fifth lighter": lambda image: _file(ImageEnhance.Brightness(image).enhance(1.2), quality=90),
    "without colours": lambda image: _file(image.convert("L"), quality=90),
    "trimmed by 1 % at each side": lambda image: _file(_trimmed(image, 0.01), quality=90),
    "trimmed by 2 % at each side": lambda image: _file(_trimmed(image, 0.02), quality=90),
    "trimmed by 5 % at each side": lambda image: _file(_trimmed(image, 0.05), quality=90),
}


def _file(image: Image.Image, *, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def bench(options: Options) -> Report:
    """Edit copies, compare pictures, and look for one pair among a million hashes."""
    say("hashing pictures and copies of them")
    pictures, apart, ms = _pictures()
    rows: list[list[Cell]] = []
    for name, edit in EDITS.items():
        distances = [distance(look.hash, look_at(edit(image)).hash) for image, look in pictures]
        found = percent(sum(bits <= DEFAULT_DISTANCE for bits in distances) / len(distances))
        rows.append([name, found, float(np.median(distances)), max(distances)])
    say(f"looking for one pair among {SOURCES:,} hashes")
    seconds, more_mb = _million(options.seed)
    return Report(
        name="leaks",
        title=f"Copies of {len(pictures)} pictures found at {DEFAULT_DISTANCE} bits of 64; the nearest two different "
        f"ones are {min(apart)} bits apart, of {len(apart):,} pairs",
        columns=["copy", "found", "bits apart, median", "at most"],
        rows=rows,
        aims=[
            Aim("different pictures are none", f"{min(apart)} bits", min(apart) > DEFAULT_DISTANCE),
            Aim(f"{SOURCES:,} hashes under {AIM_SECONDS:g} s", f"{seconds:.1f} s", seconds < AIM_SECONDS),
            Aim(f"and {AIM_MB:g} MB", f"{more_mb:.0f} MB", more_mb < AIM_MB),
        ],
        facts={"seed": options.seed, "look_ms": ms, "seconds": seconds, "mb": more_mb},
    )


def _pictures() -> tuple[list[tuple[Image.Image, Look]], list[int], float]:
    """Return pictures of different things, how far apart each two are, and the CPU ms that a photograph takes."""
    photos: list[tuple[Image.Image, Look]] = []
    took = 0.0
    for path in sample_photos():
        content = path.read_bytes()
        began = time.process_time()
        look = look_at(content)
        took += time.process_time() - began
        if all(distance(look.hash, other.hash) > DEFAULT_DISTANCE for _, other in photos):
            photos.append((Image.open(io.BytesIO(content)).convert("RGB"), look))
    pieces = []
    for photo, _ in photos:
        width, height = photo.width // PIECES, photo.height // PIECES
        for at in range(PIECES * PIECES):
            left, top = width * (at % PIECES), height * (at // PIECES)
            piece = photo.crop((left, top, left + width, top + height))
            look = look_at(_file(piece, quality=95))
            if not look.is_blank:
                pieces.append((piece, look))
    pictures = [*photos, *pieces]
    apart = [distance(one.hash, other.hash) for (_, one), (_, other) in combinations(pictures, 2)]
    return pictures, apart, 1000 * took / len(sample_photos())


def _million(seed: int) -> tuple[float, float]:
    """Return how many seconds, and MB more than before, it takes to find one pair among hashes that are random."""
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2**64, SOURCES, dtype=np.uint64)
    splits = random.choice(len(SHARES), SOURCES, p=SHARES).astype(np.uint16)
    hashes[1] = hashes[0] ^ np.uint64(0b111)
    splits[:2] = 0, 1
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    found = find_near_duplicates(hashes, splits, max_distance=DEFAULT_DISTANCE, most_samples=50)
    seconds = time.monotonic() - began
    if [(one.one, one.other) for one in found.samples] != [(0, 1)]:
        raise RuntimeError(f"one pair was there, and found was {found}")
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3

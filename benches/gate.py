"""What the quality gate finds of planted blanks, copies and near-duplicates, and that it lets clean variations pass.

The photos are those in `tests/photos` that decode; their clean variations are the sandbox's, which is not FLUX: it
crops, mirrors and recolours. The gate is asked as in a run, with its default thresholds.
"""

import io
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFilter, ImageOps

from benches.options import Options, say
from benches.report import Aim, Report
from variations.appearance import Nearest, appearance_of, copies_of, small_copy
from variations.engine.siblings import Siblings
from variations.errors import SourceUnavailable
from variations.gate import Gate, reasons_of
from variations.images import BLANK_SPREAD, inspect_image
from variations.models import Measures
from variations.sandbox.images import DecodedSource, decode_source, make_variation
from variations.source_images import opened_upright

PHOTOS: Final = Path(__file__).parents[1] / "tests" / "photos"
SIZES: Final = {"1:1": (512, 512), "16:9": (672, 384), "9:16": (384, 672), "4:3": (576, 448)}
VARIATIONS: Final = 20
QUALITIES: Final = (30, 60, 90)
# From which on a threshold of `lost` would have to flag, tried one by one.
LOST_BITS: Final = (24, 26, 28, 30)
AIM_MS: Final = 2.0
COST_IMAGES: Final = 60


@dataclass(slots=True)
class Photo:
    """A photo: as the sandbox works with it, and as the gate looks at it."""

    name: str
    content: bytes
    decoded: DecodedSource
    small: Image.Image
    siblings: Siblings = field(default_factory=Siblings)


@dataclass(slots=True)
class Count:
    """How many images of a kind there were, how many of them were flagged, and how many for the reason to be found."""

    images: int = 0
    flagged: int = 0
    found: int = 0
    distances: list[int] = field(default_factory=list)


def bench(options: Options) -> Report:
    """Judge what is clean and what is planted, and weigh what the gate costs an image."""
    photos = list(_photos())
    say(f"{len(photos)} photos, {VARIATIONS} clean variations of each in {len(SIZES)} shapes, and what is planted")
    counts: dict[str, Count] = {}
    for at, photo in enumerate(photos):
        other = photos[(at + len(photos) // 2) % len(photos)]
        for shape, size in SIZES.items():
            _judge_all(counts, photo, other, shape, size, seed=options.seed)
    return _report(options, counts, photos=len(photos), cost=_cost(photos))


def _photos() -> Iterator[Photo]:
    for path in sorted(PHOTOS.glob("[01]*")):
        content = path.read_bytes()
        try:
            with opened_upright(content) as image:
                small = small_copy(image)
        except SourceUnavailable:
            continue
        yield Photo(path.name, content, decode_source(content), small)


def _judge_all(
    counts: dict[str, Count], photo: Photo, other: Photo, shape: str, size: tuple[int, int], *, seed: int
) -> None:
    photo.siblings = Siblings()
    clean = [
        _made(photo.decoded, size=size, key=f"{seed} {shape} {number}", quality=80) for number in range(VARIATIONS)
    ]
    for number, content in enumerate(clean):
        _judge(counts, "clean variation", "", photo, content, size, name=str(number))
    for quality in QUALITIES:
        for name, image in _blanks(size, random.Random(seed)):  # noqa: S311 - no secret
            _judge(counts, name, "blank", photo, _encoded(image, quality), size)
        source = photo.decoded.image
        copies = {
            "copy, squeezed": source.resize(size),
            "copy, cropped": ImageOps.fit(source, size),
            "copy, mirrored": ImageOps.mirror(ImageOps.fit(source, size)),
        }
        for name, image in copies.items():
            _judge(counts, name, "copy", photo, _encoded(image, quality), size)
        for content in clean[:3]:
            _judge(counts, "near-duplicate", "twin", photo, _compressed(content, quality), size)
    _judge(counts, "wrong size", "size", photo, clean[0], (size[0] * 2, size[1] * 2), name="0")
    foreign = _made(other.decoded, size=size, key=f"{seed} {shape} foreign", quality=80)
    _judge(counts, "of another photo", "lost", photo, foreign, size)


def _judge(  # noqa: PLR0917 - it is a table
    counts: dict[str, Count],
    kind: str,
    reason: str,
    photo: Photo,
    content: bytes,
    expected: tuple[int, int],
    *,
    name: str = "",
) -> None:
    """Judge one image as a run does; one that has a name is there for those that come after it."""
    look = inspect_image(content).appearance
    size = Image.open(io.BytesIO(content)).size
    is_blank = look.contrast < BLANK_SPREAD
    sibling = Nearest() if is_blank else photo.siblings.nearest("", name, look)
    source = Nearest() if is_blank else look.nearest(copies_of(photo.small, size))
    measures = Measures(
        contrast=look.contrast,
        phash=f"{look.hash:016x}",
        source_distance=source.distance,
        sibling_distance=sibling.distance,
    )
    verdict, _ = Gate().judge(
        measures, size=size, expected_size=expected, copy_distance=source.alike, twin_distance=sibling.alike
    )
    count = counts.setdefault(kind, Count())
    count.images += 1
    count.flagged += verdict != "passed"
    count.found += reason in reasons_of(verdict)
    if measures.source_distance is not None:
        count.distances.append(measures.source_distance)
    if name and not is_blank:
        photo.siblings.add("", name, look)


def _blanks(size: tuple[int, int], chances: random.Random) -> Iterator[tuple[str, Image.Image]]:
    for colour in ("black", "white", "#808080", "#305a90"):
        yield "blank, one colour", Image.new("RGB", size, colour)
    noise = Image.frombytes("L", size, chances.randbytes(size[0] * size[1]))
    yield "blank, with noise", noise.point(lambda level: 110 + level // 10).convert("RGB")
    yield (
        "nearly uniform",
        Image.linear_gradient("L").resize(size).point(lambda level: 120 + level // 100).convert("RGB"),
    )
    spot = Image.new("RGB", size, "#202020")
    ImageDraw.Draw(spot).ellipse((9, 9, 13, 13), fill="#303030")
    yield "nearly uniform", spot.filter(ImageFilter.GaussianBlur(2))


def _made(source: DecodedSource, *, size: tuple[int, int], key: str, quality: int) -> bytes:
    return make_variation(source, size=size, key=key, output_format="jpg", output_quality=quality)


def _encoded(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _compressed(content: bytes, quality: int) -> bytes:
    return _encoded(Image.open(io.BytesIO(content)).convert("RGB"), quality)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU in milliseconds: of the gate for an image of a megapixel, and once for a source of the photos' sizes."""

    image_ms: float
    source_ms: float


def _cost(photos: list[Photo]) -> Cost:
    """Weigh what is done for the gate alone: an image is decoded, and a source fetched, in any case or elsewhere."""
    images = []
    for number in range(COST_IMAGES):
        source = photos[number % len(photos)].decoded
        content = _made(source, size=(1024, 1024), key=f"cost {number}", quality=80)
        images.append(Image.open(io.BytesIO(content)))
        images[-1].load()
    siblings = Siblings()
    began = time.process_time()
    for number, image in enumerate(images):
        look = appearance_of(image)
        siblings.nearest("", str(number), look)
        siblings.add("", str(number), look)
    image_ms = (time.process_time() - began) / len(images) * 1e3
    began = time.process_time()
    for photo in photos:
        with opened_upright(photo.content) as upright:
            small = small_copy(upright)
        copies_of(small, (1024, 1024))
    return Cost(image_ms, (time.process_time() - began) / len(photos) * 1e3)


def _report(options: Options, counts: dict[str, Count], *, photos: int, cost: Cost) -> Report:
    clean = counts["clean variation"]
    planted = {kind: count for kind, count in counts.items() if kind not in {"clean variation", "of another photo"}}
    found = sum(count.found for count in planted.values()) / sum(count.images for count in planted.values())
    return Report(
        name="gate",
        title=f"{photos} photos, clean variations by the sandbox; thresholds by default (lost is off)",
        columns=["", "images", "flagged", "for the right reason", "bits to the source", "median"],
        rows=[_row(kind, count) for kind, count in counts.items()],
        aims=[
            Aim("no clean variation is flagged", f"{clean.flagged} of {clean.images:,}", not clean.flagged),
            Aim("at least 99 % of what is planted is found", f"{found:.2%}", found >= 0.99),  # noqa: PLR2004
            Aim(f"at most {AIM_MS:g} ms of CPU an image", f"{cost.image_ms:.2f} ms", cost.image_ms <= AIM_MS),
        ],
        facts={
            "seed": options.seed,
            "gate_ms_an_image": cost.image_ms,
            "gate_ms_a_source": cost.source_ms,
            "what_lost_would_flag": {
                bits: {
                    kind: f"{sum(far >= bits for far in counts[kind].distances)} of {len(counts[kind].distances)}"
                    for kind in ("clean variation", "of another photo")
                }
                for bits in LOST_BITS
            },
        },
    )


def _row(kind: str, count: Count) -> list[str | int | float]:
    far = sorted(count.distances)
    between = f"{far[0]} – {far[-1]}" if far else "–"
    right = count.found if kind not in {"clean variation", "of another photo"} else "–"
    return [kind, count.images, count.flagged, right, between, far[len(far) // 2] if far else "–"]

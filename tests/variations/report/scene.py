"""A dataset to look at: real photographs, variations of them made by the sandbox, and what can go wrong."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pyarrow as pa
from PIL import Image

from tests.variations.examples import outcome, source, write_part
from tests.variations.published import refuse
from variations.layout import receipt_key
from variations.leak_report import LeakReport
from variations.models import Measures, Metrics, Outcome, RejectedSource, StoredImage
from variations.parameters import Parameters
from variations.plan import Plan
from variations.planning.expansion import expand
from variations.planning.recipe import Recipe
from variations.publish import publish
from variations.receipt import Receipt
from variations.sandbox.images import decode_source, make_variation
from variations.storage import Storage
from variations.tally import Tally

PHOTOS: Final = Path(__file__).parents[2] / "photos"
USABLE: Final = ("01", "02", "03", "05", "06", "07", "09", "10", "13", "14", "16", "18")
GUIDANCES: Final = (2.0, 3.0, 4.5)
# Would run, were it ever taken for HTML, and would end whatever holds it.
HOSTILE: Final = '<img src=x onerror="window.ran=1"></script><script>window.ran=1</script><!--'
HOSTILE_NAME: Final = "<i onclick=ran>note"
LABELS: Final = pa.schema([("subject", pa.string()), (HOSTILE_NAME, pa.string())])
RUN: Final = "20261123T080000Z-aaaaaa"
BEGAN: Final = datetime(2026, 11, 23, 8, tzinfo=UTC)
ROWS: Final = 73
KEPT: Final = 70


def photos() -> list[Path]:
    """Return the photographs of the dataset: every mode and container, one of 10 megapixels."""
    return sorted(path for path in PHOTOS.iterdir() if path.name[:2] in USABLE)


def outcomes() -> Iterator[tuple[Outcome, bytes | None]]:
    """Yield what became of each variation, with its image: three strengths in two shapes of each photograph."""
    place = 0
    for number, photo in enumerate(photos()):
        decoded = decode_source(photo.read_bytes())
        labels = {"subject": photo.stem.split("_")[1], HOSTILE_NAME: HOSTILE if number == 0 else None}
        split = "test" if number % 4 == 3 else "train"
        of = source(photo.stem, uri=photo.as_uri(), labels=labels, split=split)
        for at, shape in enumerate(("1:1", "16:9" if number % 2 else "3:4")):
            for guidance in GUIDANCES:
                parameters = Parameters(guidance=guidance, aspect_ratio=shape, megapixels="0.25")  # type: ignore[arg-type]
                (made,) = expand(of, Recipe(parameters=parameters, seed=1000 * (number + 1) + at))
                seconds = 13.5 + (place * 37 % 60) / 8
                end = BEGAN + timedelta(seconds=20 + place * 1.6)
                place += 1
                one = outcome(
                    of=made,
                    request_id=f"request-{place}",
                    submitted_at=end - timedelta(seconds=seconds),
                    completed_at=end,
                    metrics=Metrics(total_seconds=seconds, queue_seconds=seconds - 12, inference_seconds=12.0),
                    polls=2 + (place % 7 == 0) + (place % 11 == 0),
                )
                if place in {20, 45}:
                    yield _lost(one, "failed" if place == 20 else "unknown"), None
                    continue
                size = parameters.expected_size()
                assert size is not None
                content = make_variation(decoded, size=size, key=str(place), output_format="jpg", output_quality=85)
                yield replace(_stored(one, content, size), measures=_measures(place)), content


def _lost(one: Outcome, status: str) -> Outcome:
    errors = {"failed": "the content policy refused the image", "unknown": "the answer to its submit was lost"}
    codes = {"failed": "content_policy", "unknown": "submit_unknown"}
    return outcome(status, of=one.variation, error=errors[status], error_code=codes[status], request_id=None)


def _stored(one: Outcome, content: bytes, size: tuple[int, int]) -> Outcome:
    name, digest = one.variation.variation_id, hashlib.sha256(content).hexdigest()
    stored = StoredImage(f"images/{name[:2]}/{name}.jpg", *size, bytes=len(content), format="jpg", sha256=digest)
    return outcome(
        of=one.variation,
        image=stored,
        request_id=one.request_id,
        submitted_at=one.submitted_at,
        completed_at=one.completed_at,
        metrics=one.metrics,
        polls=one.polls,
    )


async def furnish(storage: Storage) -> None:
    """Publish it: 72 variations of 12 sources, of which one failed and one is unknown, and a refused row."""
    made = []
    for one, content in outcomes():
        made.append(one)
        if content is not None and one.image is not None:
            await storage.put(one.image.file_name, content)
    await write_part(storage, RUN, made, labels=LABELS)
    await refuse(storage, RUN, RejectedSource(7, "guidance is 12, allowed are 0 to 10", "strong", "s3://b/strong.jpg"))
    await publish(storage, [RUN])
    plan = Plan(
        run_id=RUN,
        source="manifest.csv",
        destination=storage.uri,
        images=len(made),
        new=len(made),
        leaks=leaks().as_dict(),
    )
    tally = Tally(kept=KEPT, failed=1, unknown=1, paid=KEPT, cost_usd=0.031 * KEPT, variations=len(made))
    receipt = Receipt.of(plan, tally, started_at=BEGAN.isoformat(), seconds=135.0, requests={"poll": 163, "submit": 72})
    await storage.put(receipt_key(RUN), receipt.to_bytes())


async def furnish_flagged(storage: Storage) -> None:
    """Publish three flagged variations of one source: one dropped, one kept, and one kept whose file is gone."""
    one, other, lost = [(one, content) for one, content in outcomes() if content][:3]
    blank = Measures(contrast=0.0, phash="0" * 16, verdict="flagged: blank")
    copy = Measures(contrast=200.0, phash="0" * 16, source_distance=2, verdict="flagged: copy")
    why = "blank: its contrast is 0 of 255, and gate_blank 8"
    dropped = outcome("rejected", of=one[0].variation, measures=blank, error_code="flagged", error=why)
    made = [dropped, *(replace(kept, measures=copy) for kept, _ in (other, lost))]
    stored, content = other
    assert stored.image is not None
    assert content is not None
    await storage.put(stored.image.file_name, content)
    await write_part(storage, RUN, made, labels=LABELS)
    await publish(storage, [RUN])


async def furnish_outputs(storage: Storage) -> None:
    """Publish two requests for three images each, one high and one wide: two passed, one of a kind each was dropped."""
    photo = photos()[0]
    of = source("rocket", uri=photo.as_uri(), labels={"subject": "rocket"}, split="train")
    said = {"blank": "its contrast is 0", "copy": "0 bits from its source", "copy, twin": "2 bits from another one"}
    made = []
    for verdicts, shape in ((("", "blank", "copy"), "9:16"), (("", "blank", "copy, twin"), "16:9")):
        parameters = Parameters(aspect_ratio=shape, megapixels="0.25", num_outputs=3)  # type: ignore[arg-type]
        (wanted,) = expand(of, Recipe(parameters=parameters, seed=7))
        size = parameters.expected_size()
        assert size is not None
        for at, reasons in enumerate(verdicts):
            if reasons:
                measures = Measures(contrast=at, phash="0" * 16, source_distance=at, verdict=f"flagged: {reasons}")
                why = {"error_code": "flagged", "error": f"{said[reasons]}, {shape}", "cost_usd": 0.031}
                made.append(outcome("rejected", of=wanted, output_index=at, measures=measures, **why))
                continue
            content = make_variation(
                decode_source(photo.read_bytes()), size=size, key=shape, output_format="jpg", output_quality=85
            )
            one = replace(_stored(outcome(of=wanted), content, size), output_index=at, measures=_measures(1))
            assert one.image is not None
            await storage.put(one.image.file_name, content)
            made.append(one)
    await write_part(storage, RUN, made, labels=LABELS)
    await publish(storage, [RUN])


def leaks() -> LeakReport:
    """Return what leaked: the cat, turned by its EXIF alone, is in train and in test; and what has no picture."""
    cats = [path for path in photos() if "chelsea" in path.name]
    of = {path.stem: {"source_id": path.stem, "source_uri": path.as_uri(), "split": "test", "row": 7} for path in cats}
    turned, cat, other = of.values()
    gone = {"source_id": HOSTILE, "source_uri": "s3://b/strong.jpg", "split": "test", "row": 9}
    return LeakReport(
        groups=1,
        group_samples=(f"{HOSTILE}: train (row 1), test (row 4)",),
        similar=4,
        pairs=(
            {"distance": 0, "one": turned | {"split": "train"}, "other": cat},
            {"distance": 2, "one": turned | {"split": "train"}, "other": other},
            {"distance": 6, "one": turned | {"split": "train"}, "other": gone},
        ),
        is_by_image=True,
        looked_at=12,
        missing=1,
        missing_samples=("gone: there is no such object",),
    )


def _measures(place: int) -> Measures:
    """Return what a gate may have measured of an image, and its verdict."""
    distance = 6 + place * 29 % 31
    return Measures(contrast=200.0, phash=f"{place:016x}", source_distance=distance, verdict=_verdict(distance))


def _verdict(distance: int) -> str:
    reasons = ["copy"] * (distance < 9) + ["twin"] * (distance % 8 == 0)
    return f"flagged: {', '.join(reasons)}" if reasons else "passed"


def gradient(size: tuple[int, int] = (300, 200), mode: str = "RGB") -> Image.Image:
    """Return an image that is dark above and light below."""
    return Image.linear_gradient("L").resize(size).convert(mode)

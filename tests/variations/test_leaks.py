"""What leaks between splits, found in real photographs, in what was made before, and told before anything is paid."""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.variations.scene import LIMITS, Scene, planned
from variations.errors import LeakFound
from variations.estimate import estimate
from variations.leak_report import LeakCheck, LeakReport
from variations.plan import Plan
from variations.storage import open_storage
from variations.texts import json_bytes

PHOTOS = Path(__file__).parents[1] / "photos"
# Pictures of different things.
TRAIN = ("01_rocket_rgb.jpg", "03_hubble_exif.jpg", "05_coffee_rgb.png", "06_camera_gray.png")
TEST = ("02_retina_1411_square.jpg", "07_astronaut_rgba.png", "10_chelsea.webp")
CLEAN = dict.fromkeys(TRAIN, "train") | dict.fromkeys(TEST, "test")


def edited(name: str, *, quality: int = 50, scale: float = 1.0, crop: float = 0.0, colour: str = "RGB") -> bytes:
    """Return a photograph as somebody else would have it: smaller, trimmed, compressed, without its colours."""
    with Image.open(PHOTOS / name) as image:
        width, height = image.size
        trimmed = image.convert("RGB").crop((width * crop, height * crop, width * (1 - crop), height * (1 - crop)))  # type: ignore[arg-type]
    file = io.BytesIO()
    size = (round(trimmed.width * scale), round(trimmed.height * scale))
    trimmed.resize(size).convert(colour).save(file, "JPEG", quality=quality)
    return file.getvalue()


def plain(colour: str) -> bytes:
    """Return an image of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (300, 200), colour).save(file, "PNG")
    return file.getvalue()


async def furnish(scene: Scene, splits: Mapping[str, str], files: Mapping[str, bytes] | None = None) -> None:
    """Write photographs, or files under the same names, and the manifest that says their splits."""
    storage = open_storage(scene.place, missing_ok=True)
    rows = []
    for name, split in splits.items():
        content = (files or {}).get(name)
        if content is None and (PHOTOS / name).is_file():
            content = (PHOTOS / name).read_bytes()
        if content is not None:
            await storage.put(f"photos/{name}", content)
        rows.append(json.dumps({"id": name.partition(".")[0], "url": f"photos/{name}", "split": split}))
    await storage.put("manifest.jsonl", "\n".join(rows).encode())


async def leaks(scene: Scene, **how: Any) -> LeakReport:
    """Return what a plan says of leaks."""
    plan = await estimate(replace(scene.job, leaks=LeakCheck(**how)), limits=LIMITS)
    assert plan.leak_report is not None
    # It comes back from where it was written as it was.
    assert Plan.of_json(json.loads(json_bytes(asdict(plan)))).leak_report == plan.leak_report
    return plan.leak_report


@pytest.mark.parametrize(
    "edits",
    [
        {"quality": 60, "scale": 0.5},
        {"quality": 30},
        {"quality": 80, "scale": 0.25},
        {"crop": 0.01},
        {"colour": "L"},
    ],
    ids=["half the size", "compressed", "a quarter of the size", "trimmed by a percent", "without colours"],
)
async def test_a_planted_copy_is_found_and_named(scene: Scene, edits: dict[str, Any]) -> None:
    """Whatever was done to it; and nothing else is."""
    await furnish(scene, CLEAN | {"cup.jpg": "test"}, {"cup.jpg": edited("05_coffee_rgb.png", **edits)})
    report = await leaks(scene)
    assert (report.similar, report.looked_at, report.is_whole) == (2, 8, True)
    (pair,) = report.pairs
    assert (pair["one"]["source_id"], pair["one"]["split"], pair["one"]["row"]) == ("05_coffee_rgb", "train", 3)
    assert (pair["other"]["source_id"], pair["other"]["split"]) == ("cup", "test")
    assert pair["other"]["source_uri"].endswith("/photos/cup.jpg")
    assert pair["distance"] <= report.max_distance
    said = dict(report.lines())
    assert said["leaks"] == "2 sources look like one in another split"
    assert said["leak"].startswith("05_coffee_rgb in train (row 3) looks like cup in test (row 8)")


async def test_all_that_look_like_one_are_named_or_counted(scene: Scene) -> None:
    """Who leaves out the two that are named would otherwise keep a third."""
    splits = CLEAN | {"cup.jpg": "test", "small.jpg": "train", "same.jpg": "train"}
    small, cup = edited("05_coffee_rgb.png", scale=0.5), edited("05_coffee_rgb.png", quality=30)
    await furnish(scene, splits, {"cup.jpg": cup, "small.jpg": small, "same.jpg": small})
    report = await leaks(scene)
    assert report.similar == 4
    named = {pair[side]["source_id"] for pair in report.pairs for side in ("one", "other")}
    assert named < {"05_coffee_rgb", "cup", "small", "same"}
    more = report.similar - len(named)
    assert more >= 1
    assert ("leak", f"… and {more} more that look{'s' * (more == 1)} like one of these") in report.lines()


async def test_pictures_of_different_things_are_none(any_scene: Scene) -> None:
    """In a folder and in a bucket; that they were looked at is told."""
    await furnish(any_scene, CLEAN)
    report = await leaks(any_scene)
    assert (report.is_leak, report.looked_at, report.missing, report.pairs) == (False, 7, 0, ())
    assert "no source looks like one in another split" in report.summary()


async def test_a_copy_in_the_same_split_is_no_leak(scene: Scene) -> None:
    """It is only a copy."""
    await furnish(scene, CLEAN | {"cup.jpg": "train"}, {"cup.jpg": edited("05_coffee_rgb.png")})
    assert not (await leaks(scene)).is_leak


async def test_what_shows_nothing_is_like_no_other(scene: Scene) -> None:
    """Every empty picture looks like every other one; they are counted by themselves."""
    empty = {"a.png": plain("white"), "b.png": plain("black"), "c.png": plain("teal")}
    await furnish(scene, CLEAN | {"a.png": "train", "b.png": "test", "c.png": "test"}, empty)
    report = await leaks(scene)
    assert (report.is_leak, report.blank, report.looked_at) == (False, 3, 10)
    assert "3 show nothing" in dict(report.lines())["looked at"]


async def test_what_cannot_be_had_is_named_and_does_no_harm(scene: Scene) -> None:
    """A file that is not there, one that is no image, and an address that is nobody's business."""
    files = {"page.jpg": b"<html>", "cup.jpg": edited("05_coffee_rgb.png")}
    await furnish(scene, CLEAN | {"gone.jpg": "test", "page.jpg": "train", "cup.jpg": "test"}, files)
    storage = open_storage(scene.place)
    inside = json.dumps({"id": "inside", "url": "http://127.0.0.1:9/latest", "split": "test"})
    await storage.put("manifest.jsonl", await storage.get("manifest.jsonl") + f"\n{inside}".encode())
    report = await leaks(scene)
    assert (report.similar, report.looked_at, report.missing) == (2, 8, 3)
    assert sorted(text.partition(":")[0] for text in report.missing_samples) == ["gone", "inside", "page"]
    assert ("not had", "page: it is no image") in report.lines()


async def test_groups_alone_need_no_image(scene: Scene) -> None:
    """That is for manifests of millions; it is told that nobody looked."""
    await furnish(scene, CLEAN | {"cup.jpg": "test"}, {"cup.jpg": edited("05_coffee_rgb.png")})
    report = await leaks(scene, images=False)
    assert (report.is_leak, report.looked_at, report.is_by_image) == (False, 0, False)
    assert ("looked at", "no source: only groups were compared (leak_check)") in report.lines()


async def test_sources_are_looked_at_once(any_scene: Scene) -> None:
    """A run remembers what they look like, so that a manifest that has grown has only its new ones fetched."""
    await furnish(any_scene, CLEAN)
    receipt = await any_scene.run()
    assert (
        LeakReport.of_json(receipt.leaks) == await leaks(any_scene, max_distance=6) or receipt.leaks["looked_at"] == 7
    )
    storage = open_storage(any_scene.place)
    for name in CLEAN:
        await storage.delete(f"photos/{name}")
    await furnish(any_scene, {"cup.jpg": "test"}, {"cup.jpg": edited("05_coffee_rgb.png")})
    added = await storage.get("manifest.jsonl")
    rows = [{"id": name.partition(".")[0], "url": f"photos/{name}", "split": split} for name, split in CLEAN.items()]
    await storage.put("manifest.jsonl", "\n".join(json.dumps(row) for row in rows).encode() + b"\n" + added)
    report = await leaks(any_scene)
    assert (report.looked_at, report.known_before, report.missing, report.similar) == (8, 7, 0, 2)


async def test_a_plan_writes_nothing(scene: Scene) -> None:
    """Neither what sources look like."""
    await furnish(scene, CLEAN)
    await leaks(scene)
    assert await scene.keys() == []


async def test_a_source_that_moved_since_it_was_varied_is_a_leak(scene: Scene) -> None:
    """Its images are in the split in which it was, and the manifest has it in another one now."""
    await furnish(scene, CLEAN)
    await scene.run()
    assert not (await leaks(scene)).is_leak
    await furnish(scene, CLEAN | {TRAIN[0]: "test"})
    report = await leaks(scene, images=False)
    assert (report.moved, report.groups) == (1, 0)
    assert report.moved_samples == ("01_rocket_rgb: test now (row 1), train in the dataset",)
    assert report.summary() == "1 source belongs to another split than in the dataset"
    receipt = await scene.run(replace(scene.job, leaks=LeakCheck(images=False)))
    assert receipt.leaks["moved"] == 1
    assert ("leaks", "1 source belongs to another split than in the dataset") in receipt.lines()


async def test_a_run_that_must_not_leak_submits_nothing(any_scene: Scene) -> None:
    """It says which sources, and what to do; once they are in one split, it runs."""
    copy = {"cup.jpg": edited("05_coffee_rgb.png")}
    await furnish(any_scene, CLEAN | {"cup.jpg": "test"}, copy)
    strict = replace(any_scene.job, leaks=LeakCheck(is_fatal=True))
    async with any_scene.opened(strict) as run:
        with pytest.raises(LeakFound, match=r"05_coffee_rgb in train .* cup in test .* one split") as found:
            await planned(run)
    assert found.value.plan.leaks["similar"] == 2
    assert any_scene.api.bill().accepted == 0
    assert not [key for key in await any_scene.keys() if "/plan/" in key or key.startswith("images/")]
    await furnish(any_scene, CLEAN | {"cup.jpg": "train"}, copy)
    receipt = await any_scene.run(strict)
    assert (receipt.kept, receipt.leaks["known_before"]) == (5, 8)


async def test_without_splits_nothing_is_looked_at(scene: Scene) -> None:
    """There is nothing that could leak."""
    await scene.furnish("a", "b")
    plan = await estimate(scene.job, limits=LIMITS)
    assert (plan.leaks, plan.leak_report) == ({}, None)
    await scene.run()
    assert not [key for key in await scene.keys() if "hashes" in key]

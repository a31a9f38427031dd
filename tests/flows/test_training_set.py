"""A labelled training set, from thirty photos to a classifier, as whoever reads the README does it."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from PIL import Image

from tests.flows.conftest import Variations, one_line
from variations import read_dataset
from variations.sandbox import Sandbox

ROOT: Final = Path(__file__).parents[2]
PHOTOS: Final = {
    "rocket": "01_rocket_rgb.jpg",
    "retina": "02_retina_1411_square.jpg",
    "galaxies": "03_hubble_exif.jpg",
    "coffee": "05_coffee_rgb.png",
    "photographer": "06_camera_gray.png",
}
# Of each photo six pieces, at these places; the last two are for the test.
PLACES: Final = ((0, 0), (0.4, 0), (0, 0.4), (0.4, 0.4), (0.2, 0.1), (0.2, 0.3))
TRAIN: Final = 4
PIECE: Final = 0.6
SWEEP: Final = ("--sweep", "guidance=2,4")

# Behind the README's own lines: the centroid of each label, and the label of the nearest one for each test photo.
CLASSIFIER: Final = """
import csv, json
import numpy as np
from PIL import Image

def features(image):
    gray = np.asarray(image.convert("L").resize((128, 128)), float) / 255
    edges = np.hypot(*np.gradient(gray))
    light, _ = np.histogram(gray, 16, (0, 1))
    rough, _ = np.histogram(edges, 16, (0, 0.3))
    found = np.sqrt(np.concatenate((light, rough)) / gray.size)
    return found / np.linalg.norm(found)

known = {}
for row in train:
    known.setdefault(row["subject"], []).append(features(row["image"]))
centroids = {label: np.mean(rows, axis=0) for label, rows in known.items()}
told = []
for row in csv.DictReader(open("manifest.csv")):
    if row["split"] == "test":
        one = features(Image.open(row["url"]))
        told.append([row["subject"], min(centroids, key=lambda label: np.linalg.norm(centroids[label] - one))])
print(json.dumps({"train": len(train), "told": told}))
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Thirty labelled photos, of which ten are for the test."""
    rows = []
    for label, name in PHOTOS.items():
        with Image.open(ROOT / "tests" / "photos" / name) as photo:
            whole = photo.convert("RGB")
        for number, (left, top) in enumerate(PLACES):
            width, height = whole.size
            box = (left * width, top * height, (left + PIECE) * width, (top + PIECE) * height)
            path = tmp_path / f"{label}-{number}.png"
            whole.crop(tuple(round(side) for side in box)).resize((256, 256)).save(path)  # type: ignore[arg-type]
            rows.append((path.name, path.stem, label, "train" if number < TRAIN else "test"))
    return write(tmp_path / "manifest.csv", rows)


def write(path: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """Write a manifest."""
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("url", "id", "subject", "split"), *rows])
    return path


def readme_lines() -> str:
    """Return the README's lines that load a labelled train split."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (lines,) = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "load_dataset" in code]
    return lines


def test_thirty_photos_become_a_training_set(
    manifest: Path, variations: Variations, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Train photos are varied by a sweep, test photos are left alone; what is learned of the one tells the other."""
    ended = variations("run", manifest.name, "dataset", *SWEEP, "--megapixels", "0.25", "--fail-on-leak", "--json")
    receipt = json.loads(ended.out.splitlines()[-1])
    images = len(PHOTOS) * TRAIN * 2
    assert (ended.code, receipt["kept"], receipt["sources"]) == (0, images, 30)
    assert (receipt["leaks"]["looked_at"], receipt["leaks"]["similar"]) == (30, 0)
    assert sandbox.bill().accepted == images
    frame = read_dataset(str(tmp_path / "dataset"))
    assert set(frame["split"]) == {"train"}
    assert sorted(frame.groupby("source_id")["guidance"].apply(list).map(sorted).map(tuple).unique()) == [(2.0, 4.0)]
    loading = readme_lines().replace("demo-output", "dataset")
    assert len([line for line in loading.splitlines() if line]) <= 5
    learned = subprocess.run(  # noqa: S603 - the README's own lines
        [sys.executable, "-c", f"{loading}\n{CLASSIFIER}"],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert learned.returncode == 0, learned.stderr
    found = json.loads(learned.stdout.splitlines()[-1])
    assert found["train"] == images
    assert len(found["told"]) == 10
    # By chance two of ten are right.
    assert sum(label == told for label, told in found["told"]) >= 6, found["told"]


def test_a_copy_planted_among_them_is_reported(manifest: Path, variations: Variations, sandbox: Sandbox) -> None:
    """A smaller and recompressed copy of a train photo is put into the test: nothing is paid, and both are named."""
    with Image.open(manifest.with_name("coffee-1.png")) as image:
        image.resize((180, 180)).save(manifest.with_name("planted.jpg"), quality=70)
    with manifest.open("a", newline="") as file:
        csv.writer(file).writerow(("planted.jpg", "planted", "coffee", "test"))
    ended = variations("run", manifest.name, "dataset", *SWEEP, "--fail-on-leak")
    assert ended.code == 5
    assert "coffee-1 in train (row 20) looks like planted in test (row 31)" in one_line(ended)
    assert sandbox.bill().accepted == 0

"""What `datasets` and `webdataset` themselves make of a dataset and of its exports, offline."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pytest
from PIL import Image

from tests.variations.export.made import change_metadata, metadata_of, picture, publish_images, wanted
from variations.card import write_card
from variations.dataset import METADATA_KEY, parquet_bytes
from variations.export import export_dataset, export_key
from variations.storage import Storage, open_storage

# A process of its own: they read the environment once, and start threads of their own.
LOAD: Final = """
import json, sys
import datasets
datasets.disable_progress_bars()

def plain(row):
    labels = row.get("json", row)
    image = row.get("image", row.get("jpg"))
    pixel = None if image is None else image.convert("RGB").getpixel((8, 8))
    return [labels["source_id"], labels["split"], labels["class"], labels["notes"], pixel]

loaded = datasets.load_dataset(*json.loads(sys.argv[1]), **json.loads(sys.argv[2]))
print(json.dumps({name: [plain(row) for row in rows] for name, rows in loaded.items()}))
"""
LOAD_TARS: Final = """
import json, sys
import webdataset
samples = webdataset.WebDataset(json.loads(sys.argv[1]), shardshuffle=False).decode("pil").to_tuple("jpg", "json")
print(json.dumps([[row["source_id"], row["class"], image.convert("RGB").getpixel((8, 8))] for image, row in samples]))
"""


def run(script: str, home: Path, *values: Any) -> Any:
    """Run a script that prints JSON, with no way to the Hub and a cache of its own."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}
    command = [sys.executable, "-c", script, *(json.dumps(value) for value in values)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def load(home: Path, *arguments: str, **named: str) -> dict[str, list[list[Any]]]:
    """Return the rows of each split that `datasets.load_dataset` gives."""
    found: dict[str, list[list[Any]]] = run(LOAD, home, arguments, named)
    return found


def path_of(storage: Storage) -> str:
    """Return the folder of a dataset."""
    return storage.uri.removeprefix("file://")


def names_in(loaded: dict[str, list[list[Any]]]) -> dict[str, list[str]]:
    """Return the sources of each split."""
    return {split: sorted(row[0] for row in rows) for split, rows in loaded.items()}


def pixel_of(name: str) -> list[int]:
    """Return the colour of a source's picture."""
    red, green, blue = Image.open(io.BytesIO(picture(name))).getpixel((8, 8))  # type: ignore[misc]
    return [red, green, blue]


SPLITS: Final = {
    "train": ["train0", "train1", "train2"],
    "test": ["test0"],
    "validation": ["validation0", "validation1"],
}


@pytest.fixture
async def with_splits(dataset: Storage) -> Storage:
    """Publish three splits, with rows that have no image, and the card."""
    await publish_images(
        dataset, wanted(train=3, validation=2, test=1), failed=[("lost", "train"), ("gone", "validation")]
    )
    await dataset.put("_runs/20260101T000000Z-ab/metadata/part-00000-00000003.parquet", await dataset.get(METADATA_KEY))
    await dataset.put("_runs/20260101T000000Z-ab/receipt.json", b"{}")
    await dataset.put("report.html", b"<html></html>")
    await write_card(dataset)
    return dataset


async def test_the_prefix_is_an_image_folder_with_splits(with_splits: Storage, tmp_path: Path) -> None:
    """By its path and by name: each split has its own images, with their labels, and none of another's."""
    await export_to_its_folder(with_splits, "parquet")
    await export_to_its_folder(with_splits, "webdataset")
    by_path = load(tmp_path, path_of(with_splits))
    assert names_in(by_path) == SPLITS
    assert all(row[4] == pixel_of(row[0]) and row[1] == split for split, rows in by_path.items() for row in rows)
    assert all(row[2] == f"kind of {row[0][0]}" for rows in by_path.values() for row in rows)
    assert names_in(load(tmp_path, "imagefolder", data_dir=path_of(with_splits))) == SPLITS


async def test_a_split_may_have_any_name(dataset: Storage, tmp_path: Path) -> None:
    """The card names it; without the card, `datasets` would leave it out."""
    await publish_images(dataset, wanted(train=2, holdout=1))
    await write_card(dataset)
    assert names_in(load(tmp_path, path_of(dataset))) == {"train": ["train0", "train1"], "holdout": ["holdout0"]}


async def test_a_prefix_without_splits_loads_as_one(dataset: Storage, tmp_path: Path) -> None:
    """An export in it changes nothing. With the card what failed is left out; by name it is a row without an image."""
    await publish_images(dataset, wanted(none=3), failed=[("lost", None)])
    await write_card(dataset)
    await export_to_its_folder(dataset, "parquet")
    await export_to_its_folder(dataset, "webdataset")
    assert names_in(load(tmp_path, path_of(dataset))) == {"train": ["none0", "none1", "none2"]}
    by_name = load(tmp_path, "imagefolder", data_dir=path_of(dataset))
    assert names_in(by_name) == {"train": ["lost", "none0", "none1", "none2"]}
    assert [row[0] for row in by_name["train"] if row[4] is None] == ["lost"]


async def export_to_its_folder(storage: Storage, name: str) -> str:
    """Export in small shards, and return the folder."""
    target = open_storage(storage.uri_of(export_key(name)), missing_ok=True)
    await export_dataset(storage, target, format=name, shard_bytes=1_000)
    return path_of(target)


@pytest.mark.parametrize("name", ["webdataset", "parquet"])
async def test_datasets_loads_an_export_by_its_splits(with_splits: Storage, tmp_path: Path, name: str) -> None:
    """Of either format, with images and labels."""
    loaded = load(tmp_path, await export_to_its_folder(with_splits, name))
    assert names_in(loaded) == SPLITS
    assert all(row[4] == pixel_of(row[0]) and row[1] == split for split, rows in loaded.items() for row in rows)


async def test_datasets_loads_parquet_files_by_their_pattern(with_splits: Storage, tmp_path: Path) -> None:
    """The column's kind is in the files, not in the card."""
    folder = await export_to_its_folder(with_splits, "parquet")
    loaded = load(tmp_path, "parquet", data_files=f"{folder}/train-*.parquet")
    assert [row[4] for row in sorted(loaded["train"])] == [pixel_of(name) for name in SPLITS["train"]]


async def test_a_column_that_is_empty_for_long_is_loaded(dataset: Storage, tmp_path: Path) -> None:
    """`datasets` guesses the types of tars from the first five images; the card tells it better."""
    await publish_images(dataset, wanted(train=12))
    table = await metadata_of(dataset)
    last = max(table.column("variation_id").to_pylist())
    named = dict(zip(table.column("source_id").to_pylist(), table.column("variation_id").to_pylist(), strict=True))
    (source,) = [one for one, variation_id in named.items() if variation_id == last]
    await change_metadata(dataset, "notes", {source: "a note"})
    boxes = pa.array([[[1.0, 2.0]]] * 12, pa.list_(pa.list_(pa.float32())))
    table = (await metadata_of(dataset)).append_column("boxes", boxes)
    await dataset.put(METADATA_KEY, parquet_bytes(table))
    loaded = load(tmp_path, await export_to_its_folder(dataset, "webdataset"))
    assert {row[0]: row[3] for row in loaded["train"] if row[3]} == {source: "a note"}


async def test_webdataset_reads_the_tars(with_splits: Storage, tmp_path: Path) -> None:
    """An image and its labels are one sample."""
    folder = await export_to_its_folder(with_splits, "webdataset")
    tars = [f"{folder}/train-{number:06d}.tar" for number in range(3)]
    found = run(LOAD_TARS, tmp_path, tars)
    assert sorted(found) == [[name, "kind of t", pixel_of(name)] for name in SPLITS["train"]]

"""The dataset card, and the metadata of each split: what `datasets` and people are told."""

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.variations.export.made import change_metadata, contents, metadata_of, publish_images, wanted
from tests.variations.published import Interleaved
from variations.card import MARK, write_card
from variations.dataset import parquet_bytes
from variations.errors import BadInput, StorageError
from variations.storage import Storage


async def card_of(storage: Storage) -> str:
    """Return the card."""
    return (await storage.get("README.md")).decode()


async def front_of(storage: Storage) -> dict[str, Any]:
    """Return what the card tells `datasets` and the Hub."""
    front: dict[str, Any] = yaml.safe_load((await card_of(storage)).split("---\n")[1])
    return front


async def test_each_split_has_its_own_metadata(any_dataset: Storage) -> None:
    """The rows of its images alone, each named from the folder of the split, in the schema of all."""
    await publish_images(any_dataset, wanted(train=4, test=2), failed=[("lost", "train")])
    await write_card(any_dataset)
    whole = await metadata_of(any_dataset)
    for split, images in {"train": 4, "test": 2}.items():
        rows = pq.read_table(io.BytesIO(await any_dataset.get(f"images/{split}/metadata.parquet")))
        assert rows.schema == whole.schema
        assert rows.column("split").to_pylist() == [split] * images
        for name in rows.column("file_name").to_pylist():
            assert await any_dataset.exists(f"images/{split}/{name}")


async def test_the_front_matter_lists_the_splits(dataset: Storage) -> None:
    """And nothing that is not there: a pattern without a file would be an error."""
    await publish_images(dataset, wanted(test=1, holdout=1, train=3), failed=[("lost", "validation")])
    await write_card(dataset)
    ((config),) = (await front_of(dataset))["configs"]
    assert config["data_files"] == [
        {"split": split, "path": f"images/{split}/**"} for split in ("train", "test", "holdout")
    ]


async def test_without_splits_the_rows_that_failed_are_filtered(dataset: Storage) -> None:
    """Their images would be None."""
    await publish_images(dataset, wanted(none=2), failed=[("lost", None)])
    await write_card(dataset)
    (config,) = (await front_of(dataset))["configs"]
    assert config["filters"] == [["status", "==", "kept"]]
    assert config["data_files"] == [{"split": "train", "path": ["metadata.parquet", "images/**"]}]
    assert [key async for key in _keys(dataset) if key.endswith("metadata.parquet")] == ["metadata.parquet"]


async def _keys(storage: Storage) -> Any:
    async for entry in storage.list():
        yield entry.key


async def test_a_card_without_images_loads_none(dataset: Storage) -> None:
    """What became of those that were wanted is in the metadata."""
    await publish_images(dataset, [], failed=[("lost", None)])
    await write_card(dataset)
    card = await card_of(dataset)
    assert "There is no image to load" in card
    assert "load_dataset" not in card


async def test_images_that_lie_elsewhere_are_in_no_split_and_counted(dataset: Storage) -> None:
    """Those made before there were splits, and those whose split was changed: the card tells of both."""
    await publish_images(dataset, wanted(train=3, none=2))
    await change_metadata(dataset, "split", {"train0": "test"})
    await write_card(dataset)
    rows = pq.read_table(io.BytesIO(await dataset.get("images/train/metadata.parquet")))
    assert sorted(rows.column("source_id").to_pylist()) == ["train1", "train2"]
    card = await card_of(dataset)
    assert "1 images were made before their source had the split" in card
    assert "2 images have no split" in card


async def test_images_with_splits_in_no_split_folder_are_not_called_train(dataset: Storage) -> None:
    """Who trains on `train` would train on the test images."""
    await publish_images(dataset, wanted(train=3, test=1), elsewhere=True)
    await write_card(dataset)
    (config,) = (await front_of(dataset))["configs"]
    assert [one["split"] for one in config["data_files"]] == ["unsplit"]


async def test_the_card_tells_what_people_ask(dataset: Storage) -> None:
    """Counts, parameters, labels, that it is synthetic, how splits were made, and the terms."""
    await publish_images(dataset, wanted(train=3), failed=[("lost", "train")])
    await change_metadata(dataset, "guidance", {"train0": 4.5})
    await write_card(dataset, splits_text="A hash of `patient_id`, 80 to 20.")
    card, front = await card_of(dataset), await front_of(dataset)
    assert "| kept | 3 |" in card
    assert "| failed | 1 |" in card
    assert "| `guidance` | 3 (2), 4.5 (1) |" in card
    assert "| class | string | kind of t (3) |" in card
    assert "Every image is synthetic" in card
    assert "A hash of `patient_id`, 80 to 20." in card
    assert "`flux-redux-dev`" in card
    assert front["license"] == "other"
    assert front["license_link"] in card.partition("## Terms")[2]
    assert "synthetic" in front["tags"]
    assert front["size_categories"] == ["n<1K"]


@pytest.mark.parametrize("value", ["a|b", "<script>alert(1)</script>", "two\nlines", "`code`", "[a](b)"])
async def test_a_label_cannot_break_the_card(dataset: Storage, value: str) -> None:
    """Labels are anybody's text."""
    await publish_images(dataset, wanted(train=1), labels={"class": value, "weight": 1.0})
    await write_card(dataset)
    (line,) = [one for one in (await card_of(dataset)).splitlines() if one.startswith("| class |")]
    assert line.replace("\\|", "").count("|") == 4
    assert "<script>" not in line


async def test_a_card_of_somebodys_own_stays(any_dataset: Storage) -> None:
    """And the splits are written all the same."""
    await publish_images(any_dataset, wanted(train=1))
    await any_dataset.put("README.md", b"# Mine")
    await write_card(any_dataset)
    assert await card_of(any_dataset) == "# Mine"
    assert await any_dataset.exists("images/train/metadata.parquet")


async def test_a_card_of_ours_follows_the_dataset(dataset: Storage) -> None:
    """It is written again when it says something else, and only then."""
    await publish_images(dataset, wanted(train=1))
    await write_card(dataset)
    first = await dataset.head("README.md")
    await write_card(dataset)
    assert await dataset.head("README.md") == first
    assert MARK in await card_of(dataset)
    await publish_images(dataset, wanted(train=2))
    await write_card(dataset)
    assert "| kept | 2 |" in await card_of(dataset)


async def test_rows_that_came_in_between_are_in_the_card(dataset: Storage) -> None:
    """Another run published while the metadata was read."""
    await publish_images(dataset, wanted(train=1))

    async def publish_more() -> None:
        await publish_images(dataset, wanted(train=5))

    class Between(Interleaved):
        """Publishes more just after the metadata was fetched."""

        def __getattr__(self, name: str) -> Any:
            """Hand out the method."""
            method = getattr(self._storage, name)
            if name != "get_to_file":
                return method

            async def called(*arguments: Any) -> Any:
                self.calls.append(name)
                await method(*arguments)
                happens = self._before.pop(name, None)
                if happens is not None:
                    await happens()

            return called

    between = Between(dataset, get_to_file=publish_more)
    await write_card(between)  # type: ignore[arg-type]
    assert "| kept | 5 |" in await card_of(dataset)
    assert between.calls == ["get_to_file"] * 2


async def test_without_metadata_there_is_no_card(dataset: Storage) -> None:
    """There is nothing to tell."""
    await write_card(dataset)
    assert await contents(dataset) == {}


@pytest.mark.parametrize("split", ["hold-out", "my split", "all", "../up"])
async def test_a_split_that_datasets_cannot_load_is_named(dataset: Storage, split: str) -> None:
    """Instead of a card that fails when it is read."""
    await publish_images(dataset, [("a", "train")])
    table = await metadata_of(dataset)
    name = table.column("file_name").to_pylist()[0].replace("/train/", f"/{split}/")
    await change_metadata(dataset, "file_name", {"a": name})
    await change_metadata(dataset, "split", {"a": split})
    with pytest.raises(BadInput, match="can be no split"):
        await write_card(dataset)


async def test_damaged_metadata_is_named(dataset: Storage) -> None:
    """With its URI."""
    await dataset.put("metadata.parquet", b"no parquet")
    with pytest.raises(StorageError, match=r"metadata\.parquet cannot be read"):
        await write_card(dataset)


async def test_labels_of_every_plain_kind_are_told_and_others_are_named(dataset: Storage) -> None:
    """A card must not fail at a column that metadata can hold."""
    columns = {
        "flag": pa.array([True, False, None]),
        "day": pa.array([date(2026, 1, 2), date(2026, 1, 3), None]),
        "at": pa.array([datetime(2026, 1, 2, tzinfo=UTC)] * 3, pa.timestamp("us", tz="UTC")),
        "odd": pa.array([float("nan"), 1.0, 2.0]),
        "long": pa.array(["a", "b", None], pa.large_string()),
        "box": pa.array([[1.0], [], None], pa.list_(pa.float32())),
        "raw": pa.array([b"a", b"b", b"c"]),
        "empty": pa.nulls(3, pa.string()),
        "price": pa.array([Decimal("1.50")] * 3),
    }
    await publish_images(dataset, wanted(train=3))
    table = await metadata_of(dataset)
    for name, column in columns.items():
        table = table.append_column(name, column)
    await dataset.put("metadata.parquet", parquet_bytes(table))
    await write_card(dataset)
    lines = {
        line.split("|")[1].strip(): line for line in (await card_of(dataset)).splitlines() if line.startswith("| ")
    }
    assert set(columns) <= set(lines)
    assert "True (1)" in lines["flag"]
    assert "2026-01-03 (1)" in lines["day"]


async def test_a_column_with_many_values_is_told_by_its_range(dataset: Storage) -> None:
    """A card is for people."""
    await publish_images(dataset, wanted(train=30))
    await change_metadata(dataset, "weight", {f"train{number}": float(number) for number in range(30)})
    await change_metadata(dataset, "class", {f"train{number}": f"kind {number}" for number in range(30)})
    await write_card(dataset)
    card = await card_of(dataset)
    assert "| weight | double | 0 to 29 |" in card
    assert "| class | string | more than 20 values |" in card


async def test_of_a_long_label_the_beginning_is_told(dataset: Storage) -> None:
    """A caption is a label, too: the card stays one that people read."""
    await publish_images(dataset, wanted(train=2), labels={"class": "a long tale " * 20_000, "weight": 0.5})
    await write_card(dataset)
    card = await card_of(dataset)
    assert len(card) < 10_000
    assert "| class | string | a long tale a long tale" in card
    assert "… (2) |" in card

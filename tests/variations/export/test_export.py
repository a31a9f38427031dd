"""An export, in a folder and in a bucket: what lies in its shards, and what a second one does."""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.variations.export.made import change_metadata, contents, metadata_of, picture, publish_images, wanted
from variations.dataset import METADATA_KEY, parquet_bytes
from variations.errors import AccessDenied, BadInput, ObjectNotFound
from variations.export import FORMATS, Export, Progress, export_dataset, export_key, rows
from variations.storage import Storage, open_storage

SMALL = 2_000
"""Bytes of images in a shard: three of the pictures, of some 630 bytes each."""


def target_of(storage: Storage, name: str) -> Storage:
    """Return where exports of a dataset go if nothing else is said."""
    return open_storage(storage.uri_of(export_key(name)), missing_ok=True)


async def exported(storage: Storage, name: str, **options: Any) -> Export:
    """Export a dataset to its own folder, in small shards."""
    options = {"shard_bytes": SMALL, **options}
    return await export_dataset(storage, target_of(storage, name), format=name, **options)


def tar_members(content: bytes) -> dict[str, bytes]:
    """Return the files of a tar, in their order."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        found = {}
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = file.read()
        return found


async def records_in(storage: Storage, name: str) -> list[tuple[str, dict[str, Any], bytes]]:
    """Return of every image in an export its shard, its row and its content, in the order of the shards."""
    found = []
    for key, content in (await contents(target_of(storage, name))).items():
        if key.endswith(".tar"):
            members = tar_members(content)
            names = [one for one in members if one.endswith(".json")]
            found += [(key, json.loads(members[one]), members[one.replace(".json", ".jpg")]) for one in names]
        elif key.endswith(".parquet"):
            for row in pq.read_table(io.BytesIO(content)).to_pylist():
                image = row.pop("image")
                assert image["path"] == row["file_name"].rpartition("/")[2]
                found.append((key, row, image["bytes"]))
    return found


@pytest.mark.parametrize("name", FORMATS)
async def test_every_image_is_in_the_shards_of_its_split_once(any_dataset: Storage, name: str) -> None:
    """With its own bytes and its row, in the order of ids; what failed is in none."""
    images = wanted(train=7, validation=2, none=3)
    await publish_images(any_dataset, images, failed=[("lost", "train")])
    done = await exported(any_dataset, name)
    found = await records_in(any_dataset, name)
    assert {row["source_id"]: shard.partition("-")[0] for shard, row, _ in found} == {
        source: split or "data" for source, split in images
    }
    assert len(found) == done.images == 12
    assert all(content == picture(row["source_id"]) for _, row, content in found)
    assert all(row["class"] == f"kind of {row['source_id'][0]}" for _, row, _ in found)
    for split in ("train", "validation", "data"):
        ids = [row["variation_id"] for shard, row, _ in found if shard.startswith(split)]
        assert ids == sorted(ids)
    assert done.splits == {"data": 3, "train": 7, "validation": 2}
    extension = FORMATS[name].extension
    assert done.written == [f"data-000000.{extension}"] + [f"train-{n:06d}.{extension}" for n in range(3)] + [
        f"validation-000000.{extension}"
    ]


async def test_a_tar_has_an_image_and_its_json_side_by_side(dataset: Storage) -> None:
    """In names that `webdataset` takes for one sample; no time, owner or mode of this machine is in it."""
    await publish_images(dataset, wanted(none=2))
    await exported(dataset, "webdataset")
    content = (await contents(target_of(dataset, "webdataset")))["data-000000.tar"]
    names = list(tar_members(content))
    assert [name.rpartition(".")[2] for name in names] == ["jpg", "json"] * 2
    assert [name.rpartition(".")[0] for name in names[::2]] == [name.rpartition(".")[0] for name in names[1::2]]
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in tar} == {
            (0, 0, 0, "", "", 0o644)
        }


async def test_a_parquet_file_says_that_it_holds_images(dataset: Storage) -> None:
    """As Hugging Face writes it into the schema; its images decode, its row groups are of a hundred rows at most."""
    await publish_images(dataset, wanted(train=250))
    await exported(dataset, "parquet", shard_bytes=10**9)
    content = (await contents(target_of(dataset, "parquet")))["train-000000.parquet"]
    file = pq.ParquetFile(io.BytesIO(content))
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}}
    assert [file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)] == [100, 100, 50]
    row = file.read_row_group(0, columns=["image"]).slice(0, 1).to_pylist()[0]["image"]
    assert Image.open(io.BytesIO(row["bytes"])).size == (16, 16)


@pytest.mark.parametrize("name", FORMATS)
async def test_no_url_of_an_output_gets_into_a_shard(dataset: Storage, name: str) -> None:
    """It is gone in a week; the source stays named."""
    await publish_images(dataset, wanted(train=1))
    await exported(dataset, name)
    ((_, row, _),) = await records_in(dataset, name)
    assert not {"output_url", "redux_image"} & set(row)
    assert row["source_uri"] == "https://images.example.com/train0.jpg"


@pytest.mark.parametrize("name", FORMATS)
async def test_the_same_images_make_the_same_bytes(dataset: Storage, place: str, name: str) -> None:
    """In another folder, at another time, whatever the order of the metadata."""
    await publish_images(dataset, wanted(train=5))
    await exported(dataset, name)
    table = await metadata_of(dataset)
    await dataset.put(METADATA_KEY, parquet_bytes(table.take(pa.array([3, 0, 4, 1, 2]))))
    elsewhere = open_storage(f"{place}/elsewhere", missing_ok=True)
    await export_dataset(dataset, elsewhere, format=name, shard_bytes=SMALL)
    shards = FORMATS[name].extension
    one, other = await contents(target_of(dataset, name)), await contents(elsewhere)
    assert {key: value for key, value in one.items() if key.endswith(shards)} == {
        key: value for key, value in other.items() if key.endswith(shards)
    }


@pytest.mark.parametrize("name", FORMATS)
async def test_a_second_export_writes_nothing(any_dataset: Storage, name: str) -> None:
    """Where nothing is new."""
    await publish_images(any_dataset, wanted(train=7, none=2))
    await exported(any_dataset, name)
    target = target_of(any_dataset, name)
    before = [(entry.key, entry.modified, entry.etag) async for entry in target.list()]
    again = await exported(any_dataset, name)
    assert (again.written, again.removed, again.images, again.missing) == ([], [], 0, 0)
    assert again.splits == {"data": 2, "train": 7}
    assert [(entry.key, entry.modified, entry.etag) async for entry in target.list()] == before


@pytest.mark.parametrize("name", FORMATS)
async def test_what_is_new_goes_into_new_shards(dataset: Storage, name: str) -> None:
    """A dataset that grows daily is not written anew each day."""
    await publish_images(dataset, wanted(train=4))
    first = await exported(dataset, name)
    before = await contents(target_of(dataset, name))
    await publish_images(dataset, wanted(train=6, validation=1))
    second = await exported(dataset, name)
    assert (second.images, second.removed) == (3, [])
    assert not set(first.written) & set(second.written)
    after = await contents(target_of(dataset, name))
    assert all(after[shard] == before[shard] for shard in first.written)
    assert len(await records_in(dataset, name)) == 7


class Ends:
    """A storage that takes so many shards, and then no more."""

    def __init__(self, storage: Storage, *, after: int) -> None:
        self._storage = storage
        self._left = after

    def __getattr__(self, name: str) -> Any:
        """Hand out everything else."""
        return getattr(self._storage, name)

    async def put(self, key: str, data: bytes | Path, **named: Any) -> Any:
        """Write, as long as it does."""
        if isinstance(data, Path):
            self._left -= 1
            if self._left < 0:
                raise AccessDenied(f"{self._storage.uri_of(key)}: no more")
        return await self._storage.put(key, data, **named)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_a_broken_off_export_goes_on_where_it_stopped(
    dataset: Storage, place: str, name: str, after: int
) -> None:
    """What is finished is not written again, and in the end the bytes are those of one that was never broken off."""
    await publish_images(dataset, wanted(test=4, train=7))
    whole = open_storage(f"{place}/whole", missing_ok=True)
    at_once = await export_dataset(dataset, whole, format=name, shard_bytes=SMALL)
    with pytest.raises(AccessDenied):
        await export_dataset(dataset, Ends(target_of(dataset, name), after=after), format=name, shard_bytes=SMALL)  # type: ignore[arg-type]
    rest = await exported(dataset, name)
    assert rest.written == at_once.written[after:]
    extension = FORMATS[name].extension
    one, other = await contents(target_of(dataset, name)), await contents(whole)
    assert {key for key in one if key.endswith(extension)} == set(at_once.written)
    assert all(one[key] == other[key] for key in at_once.written)


async def test_a_shard_that_was_put_and_not_noted_is_made_again(dataset: Storage) -> None:
    """It ended between the two."""
    await publish_images(dataset, wanted(train=3))
    await exported(dataset, "webdataset")
    target = target_of(dataset, "webdataset")
    before = (await contents(target))["train-000000.tar"]
    await target.delete("__shards/train-000000.tar.keys")
    await target.put("train-000000.tar", b"half")
    done = await exported(dataset, "webdataset")
    assert (done.removed, done.written) == (["train-000000.tar"], ["train-000000.tar"])
    assert (await contents(target))["train-000000.tar"] == before


async def test_a_shard_that_somebody_removed_is_made_again(dataset: Storage) -> None:
    """Its images would be in none."""
    await publish_images(dataset, wanted(train=3, test=1))
    await exported(dataset, "webdataset")
    await target_of(dataset, "webdataset").delete("train-000000.tar")
    done = await exported(dataset, "webdataset")
    assert (done.images, done.written) == (3, ["train-000000.tar"])


@pytest.mark.parametrize("name", FORMATS)
async def test_an_image_that_changes_its_split_leaves_the_old_one(any_dataset: Storage, name: str) -> None:
    """No image may be in two: that would be a leak."""
    await publish_images(any_dataset, wanted(train=4, test=2))
    await exported(any_dataset, name)
    await change_metadata(any_dataset, "split", {"train0": "test"})
    done = await exported(any_dataset, name)
    found = await records_in(any_dataset, name)
    assert sorted(row["source_id"] for _, row, _ in found) == sorted(one for one, _ in wanted(train=4, test=2))
    assert [shard.partition("-")[0] for shard, row, _ in found if row["source_id"] == "train0"] == ["test"]
    assert done.splits == {"test": 3, "train": 3}
    assert len(done.removed) == 1


async def test_a_split_that_is_empty_now_has_no_shards(dataset: Storage) -> None:
    """All its images went to another one, which is exported later."""
    await publish_images(dataset, wanted(train=2, test=2))
    await exported(dataset, "webdataset")
    await change_metadata(dataset, "split", {"train0": "test", "train1": "test"})
    done = await exported(dataset, "webdataset", only=["train"])
    assert (done.removed, done.splits) == (["train-000000.tar"], {"test": 2})
    assert (await exported(dataset, "webdataset")).splits == {"test": 4}


async def test_more_rows_than_a_batch_are_compared(dataset: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which rows are new is known of each batch of them."""
    monkeypatch.setattr(rows, "ROW_GROUP_ROWS", 4)
    await publish_images(dataset, wanted(train=10))
    await exported(dataset, "webdataset")
    await publish_images(dataset, wanted(train=15))
    await change_metadata(dataset, "class", {"train9": "corrected"})
    assert (await exported(dataset, "webdataset")).splits == {"train": 15}
    assert len({row["source_id"] for _, row, _ in await records_in(dataset, "webdataset")}) == 15
    assert (await exported(dataset, "webdataset")).written == []


async def test_a_label_that_changes_is_written_anew(dataset: Storage) -> None:
    """A shard says what the dataset says."""
    await publish_images(dataset, wanted(train=9))
    await exported(dataset, "webdataset")
    await change_metadata(dataset, "class", {"train3": "corrected"})
    done = await exported(dataset, "webdataset")
    assert len(done.removed) == 1
    labels = {row["source_id"]: row["class"] for _, row, _ in await records_in(dataset, "webdataset")}
    assert (len(labels), labels["train3"], labels["train4"]) == (9, "corrected", "kind of t")


async def test_a_new_column_is_in_every_parquet_file(dataset: Storage) -> None:
    """Files of several schemas are not one dataset."""
    await publish_images(dataset, wanted(train=4))
    await exported(dataset, "parquet")
    table = await metadata_of(dataset)
    await dataset.put(METADATA_KEY, parquet_bytes(table.append_column("age", pa.nulls(len(table), pa.int32()))))
    await exported(dataset, "parquet")
    files = await contents(target_of(dataset, "parquet"))
    schemas = [pq.read_schema(io.BytesIO(files[key])) for key in files if key.endswith(".parquet")]
    assert len(schemas) == 2
    assert all(schema.field("age").type == pa.int32() for schema in schemas)


@pytest.mark.parametrize("name", FORMATS)
async def test_an_image_that_is_missing_or_damaged_is_named(any_dataset: Storage, name: str) -> None:
    """And counted; the others are exported, and it is too, once it is back."""
    keys = await publish_images(any_dataset, wanted(train=5))
    await any_dataset.delete(keys["train1"])
    await any_dataset.put(keys["train2"], b"not what was stored")
    done = await exported(any_dataset, name)
    assert (done.images, done.missing) == (3, 2)
    assert sorted(done.missing_images) == sorted(
        [
            f"{any_dataset.uri_of(keys['train1'])} is not there",
            f"{any_dataset.uri_of(keys['train2'])} is not the image that was stored: its sha256 differs, "
            "its 19 bytes may be damaged",
        ]
    )
    await any_dataset.put(keys["train1"], picture("train1"))
    again = await exported(any_dataset, name)
    assert (again.images, again.missing) == (1, 1)
    assert {row["source_id"] for _, row, _ in await records_in(any_dataset, name)} == {
        "train0",
        "train1",
        "train3",
        "train4",
    }


async def test_one_split_can_be_exported_and_the_others_stay(dataset: Storage) -> None:
    """Others' shards are neither written nor removed."""
    await publish_images(dataset, wanted(train=2, test=2, none=1))
    assert (await exported(dataset, "webdataset", only=["test"])).splits == {"test": 2}
    assert (await exported(dataset, "webdataset", only=["train", "data"])).splits == {"data": 1, "test": 2, "train": 2}
    with pytest.raises(BadInput, match="no image is in the split 'tset'; there are: data, test, train"):
        await exported(dataset, "webdataset", only=["tset"])


async def test_splits_that_cannot_be_loaded_are_refused(dataset: Storage) -> None:
    """Before anything is written."""
    await publish_images(dataset, [("a", "hold-out")])
    with pytest.raises(BadInput, match="'hold-out' can be no split"):
        await exported(dataset, "webdataset")
    assert [key for key in await contents(target_of(dataset, "webdataset")) if key.endswith(".tar")] == []


async def test_a_folder_with_something_else_is_left_alone(dataset: Storage, place: str) -> None:
    """Somebody's data, another dataset's export, or one of another format."""
    await publish_images(dataset, wanted(train=1))
    target = open_storage(f"{place}/theirs", missing_ok=True)
    await target.put("train-000000.tar", b"theirs")
    with pytest.raises(BadInput, match=r"train-000000\.tar: the folder of an export must be empty"):
        await export_dataset(dataset, target, format="webdataset")
    assert await contents(target) == {"train-000000.tar": b"theirs"}
    ours = open_storage(f"{place}/ours", missing_ok=True)
    await export_dataset(dataset, ours, format="webdataset")
    with pytest.raises(BadInput, match="as 'webdataset': choose another folder"):
        await export_dataset(dataset, ours, format="parquet")
    other = open_storage(f"{place}/other", missing_ok=True)
    await publish_images(other, wanted(train=1))
    with pytest.raises(BadInput, match="choose another folder"):
        await export_dataset(other, ours, format="webdataset")


async def test_an_export_is_not_put_among_the_images(dataset: Storage) -> None:
    """`datasets` would load it as a part of the image folder."""
    await publish_images(dataset, wanted(train=1))
    for folder in ("export", "images/train", ""):
        target = open_storage(dataset.uri_of(folder) if folder else dataset.uri)
        with pytest.raises(BadInput, match="two underscores"):
            await export_dataset(dataset, target, format="webdataset")


async def test_a_place_without_a_dataset_is_named(dataset: Storage) -> None:
    """No run has published there."""
    with pytest.raises(ObjectNotFound, match=r"no dataset at .*: it has no metadata\.parquet"):
        await exported(dataset, "webdataset")


async def test_an_export_has_a_card_for_its_shards(dataset: Storage) -> None:
    """By which every split is found, whatever it is called."""
    await publish_images(dataset, wanted(train=2, holdout=1))
    await exported(dataset, "parquet")
    card = (await contents(target_of(dataset, "parquet")))["README.md"].decode()
    assert "path: holdout-*.parquet" in card
    assert "path: train-*.parquet" in card


async def test_progress_is_told(dataset: Storage) -> None:
    """After each image, and which shard was finished last."""
    await publish_images(dataset, wanted(train=4))
    told: list[tuple[int, int, str]] = []

    def tell(progress: Progress) -> None:
        told.append((progress.images, progress.total, progress.shard))

    await exported(dataset, "webdataset", tell=tell)
    assert [images for images, _, _ in told] == sorted(images for images, _, _ in told)
    assert told[-1] == (4, 4, "train-000001.tar")


async def test_the_digest_is_of_the_content(dataset: Storage) -> None:
    """What the metadata says of an image is what is looked at, not its size."""
    keys = await publish_images(dataset, wanted(train=1))
    content = bytearray(picture("train0"))
    content[-3] ^= 1
    await dataset.put(keys["train0"], bytes(content))
    assert hashlib.sha256(content).digest() != hashlib.sha256(picture("train0")).digest()
    assert (await exported(dataset, "parquet")).missing == 1

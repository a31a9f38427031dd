"""A dataset in a notebook: a DataFrame and its images."""

import io

import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

from variations import open_image, read_dataset
from variations.errors import BadInput, BucketNotFound, ObjectNotFound
from variations.publish import publish
from variations.storage import Storage, open_storage

from .examples import outcome, source, variation, write_part

LABELS = pa.schema([("class", pa.string()), ("image_uri", pa.string())])


@pytest.fixture
async def published(any_dataset: Storage) -> str:
    """Publish a kept and a failed image, with labels, and return the dataset's URI."""
    kept = outcome(of=variation("a", source=source("a", labels={"class": "cat", "image_uri": "their own"})))
    await write_part(any_dataset, "run-1", [kept, outcome("failed", of=variation("b"))], labels=LABELS)
    await publish(any_dataset, ["run-1"])
    content = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").save(content, "JPEG")
    assert kept.image is not None
    await any_dataset.put(kept.image.file_name, content.getvalue())
    return any_dataset.uri


def test_a_dataset_is_a_data_frame(published: str) -> None:
    """A row for every image wanted, labels by their names, and where each image lies."""
    frame = read_dataset(published)
    assert list(frame["status"]) == ["kept", "failed"]
    assert frame.loc[0, "class"] == "cat"
    assert frame.loc[0, "image_uri"] == f"{published}/{frame.loc[0, 'file_name']}"
    assert pd.isna(frame.loc[1, "image_uri"])
    assert frame.loc[0, "label_image_uri"] == "their own"


def test_an_image_is_opened_by_its_uri(published: str) -> None:
    """Decoded: the file need not be there any more."""
    frame = read_dataset(published)
    image = open_image(frame.loc[0, "image_uri"])
    assert (image.size, image.mode) == ((256, 256), "RGB")
    assert image.getextrema()[0][1] > 200


async def test_both_work_where_an_event_loop_runs(published: str) -> None:
    """A notebook has one."""
    frame = read_dataset(published)
    assert open_image(frame.loc[0, "image_uri"]).size == (256, 256)


def test_the_uri_may_end_in_a_slash(published: str) -> None:
    """As people write folders."""
    assert len(read_dataset(f"{published}/")) == 2


def test_a_row_without_an_image_is_one_clear_error(published: str) -> None:
    """Somebody opened all rows."""
    frame = read_dataset(published)
    with pytest.raises(BadInput, match="no image was kept"):
        open_image(frame.loc[1, "image_uri"])


def test_an_image_that_is_gone_is_named(published: str) -> None:
    """With its URI."""
    frame = read_dataset(published)
    with pytest.raises(ObjectNotFound, match=r"gone\.jpg"):
        open_image(frame.loc[0, "image_uri"].rpartition("/")[0] + "/gone.jpg")


def test_a_place_without_a_dataset_is_one_clear_error(place: str) -> None:
    """In a bucket that is there, and under a folder that is not."""
    with pytest.raises((ObjectNotFound, BucketNotFound)) as caught:
        read_dataset(f"{place}/nothing")
    assert "nothing" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_dataset_says_what_is_missing(local_uri: str) -> None:
    """Its runs may not have published yet."""
    with pytest.raises(ObjectNotFound, match=r"no dataset at .*: it has no metadata\.parquet, which a run publishes"):
        read_dataset(local_uri)


def test_a_bucket_that_is_not_there_is_named(s3_uri: str) -> None:
    """Its name may be misspelt."""
    with pytest.raises(BucketNotFound, match="no-bucket"):
        read_dataset(s3_uri.replace("bucket", "no-bucket"))


async def test_a_path_without_a_scheme_is_read(local_uri: str) -> None:
    """As it stands in a shell."""
    storage = open_storage(local_uri)
    await write_part(storage, "run-1", [outcome()])
    await publish(storage, ["run-1"])
    assert len(read_dataset(local_uri.removeprefix("file://"))) == 1

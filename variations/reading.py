"""For notebooks: a dataset's metadata as a DataFrame, and its images."""

import asyncio
import io
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from variations.dataset import IMAGE_URI, METADATA_KEY
from variations.errors import BadInput, ObjectNotFound
from variations.storage import open_storage, split_uri

T = TypeVar("T")
_NULLABLE: Final = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}


def read_dataset(uri: str) -> pd.DataFrame:
    """Read a dataset's metadata: a row for every image wanted, with the columns of `variations.dataset.SCHEMA`, the
    manifest's labels, and `image_uri`, which `open_image` opens (missing where no image was kept).

    Args:
        uri: the destination of the runs: `s3://bucket/prefix` or a folder.

    Raises:
        ObjectNotFound, BucketNotFound: no run has published there.
    """
    return _now(_read(uri))


async def _read(uri: str) -> pd.DataFrame:
    storage = open_storage(uri)
    try:
        content = await storage.get(METADATA_KEY)
    except ObjectNotFound as error:
        raise ObjectNotFound(f"no dataset at {storage.uri}: it has no {METADATA_KEY}, which a run publishes") from error
    finally:
        await storage.aclose()
    # Nullable types: a seed stays a whole number though another row has none.
    frame: pd.DataFrame = pq.read_table(pa.BufferReader(content)).to_pandas(types_mapper=_NULLABLE.get)
    frame[IMAGE_URI] = [storage.uri_of(name) if isinstance(name, str) else None for name in frame["file_name"]]
    return frame


def open_image(image_uri: str) -> Image.Image:
    """Open one image of a dataset, by its `image_uri`.

    Raises:
        ObjectNotFound: it is not there.
        BadInput: it is no URI, as in a row whose image was not kept.
    """
    if not isinstance(image_uri, str):
        raise BadInput("no image was kept in this row: its image_uri is missing")
    image = Image.open(io.BytesIO(_now(_get(image_uri))))
    image.load()
    return image


async def _get(uri: str) -> bytes:
    root, key = split_uri(uri)
    storage = open_storage(root)
    try:
        return await storage.get(key)
    finally:
        await storage.aclose()


def _now(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, in a thread: a notebook's own has an event loop that is running already."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(asyncio.run, work).result()

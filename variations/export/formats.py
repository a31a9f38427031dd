"""The formats of an export, by their names on the command line."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from variations.export.parquet import parquet_shard
from variations.export.rows import Row
from variations.export.webdataset import tar_features, tar_shard

Add = Callable[[Row, bytes], None]


@dataclass(frozen=True, slots=True)
class Format:
    """A format of shards.

    Attributes:
        name: on the command line.
        extension: of the files.
        content_type: of the objects.
        open: makes a file, and gives what adds an image to it; the same images make the same bytes.
        one_schema: whether the shards of an export must all have the same columns.
        features: what `datasets` has to be told of them, for images with an extension; None if they tell it themselves.
    """

    name: str
    extension: str
    content_type: str
    open: Callable[[Path, pa.Schema], AbstractContextManager[Add]]
    one_schema: bool
    features: Callable[[pa.Schema, str], list[dict[str, Any]]] | None

    def fingerprint(self, schema: pa.Schema) -> str:
        """Return what has to be the same for a shard to be of use beside others."""
        return hashlib.sha256(schema.serialize()).hexdigest() if self.one_schema else ""


FORMATS: Final = {
    one.name: one
    for one in (
        Format("webdataset", "tar", "application/x-tar", tar_shard, one_schema=False, features=tar_features),
        Format("parquet", "parquet", "application/vnd.apache.parquet", parquet_shard, one_schema=True, features=None),
    )
}

"""Parquet shards: the metadata's columns, and `image` as Hugging Face's `Image` feature is stored."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from variations.dataset import DICTIONARY_COLUMNS
from variations.export.rows import Row

# A reader holds a row group at once: Hugging Face's viewer and streaming ask for groups of this kind.
GROUP_ROWS: Final = 100
GROUP_BYTES: Final = 32_000_000
# Both fields as `datasets` spells them: with others it would not know the column for images.
_IMAGE: Final = pa.field("image", pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())]))
_FEATURES: Final = json.dumps({"info": {"features": {_IMAGE.name: {"_type": "Image"}}}})
_BYTES: Final = "image.bytes"


@contextmanager
def parquet_shard(path: Path, schema: pa.Schema) -> Iterator[Callable[[Row, bytes], None]]:
    """Yield what adds an image; a row group's images are in memory."""
    whole = pa.schema([_IMAGE, *schema], metadata={"huggingface": _FEATURES})
    group: list[tuple[Row, bytes]] = []
    with pq.ParquetWriter(path, whole, **_options(schema)) as writer:

        def flush() -> None:
            if group:
                images = [{"bytes": image, "path": row.name} for row, image in group]
                columns = pa.concat_tables([row.columns for row, _ in group]).combine_chunks()
                table = columns.add_column(0, _IMAGE, pa.array(images, _IMAGE.type))
                writer.write_table(table.replace_schema_metadata(whole.metadata), row_group_size=GROUP_ROWS)
                group.clear()

        def add(row: Row, image: bytes) -> None:
            group.append((row, image))
            if len(group) == GROUP_ROWS or sum(len(one) for _, one in group) >= GROUP_BYTES:
                flush()

        yield add
        flush()


def _options(schema: pa.Schema) -> dict[str, object]:
    """Return how the columns are written: images are compressed already, and their least and greatest say nothing."""
    columns = [*schema.names, "image.path"]
    return {
        "compression": {_BYTES: "none", **dict.fromkeys(columns, "zstd")},
        "use_dictionary": [name for name in DICTIONARY_COLUMNS if name in schema.names],
        "write_statistics": columns,
    }

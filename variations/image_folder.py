"""The prefix as an image folder: how Hugging Face's `datasets` finds the images of each split, and their labels.

    images/<2 hex>/…                    the images of a dataset without splits; metadata.parquet names them all
    images/<split>/<2 hex>/…            the images of a split
    images/<split>/metadata.parquet     their rows, `file_name` relative to this folder

`datasets` (5.2) takes the rows of a split from metadata that lies among its images. From the one at the root it would
give every split all rows. What is written here is derived from that one, and never read by a run.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.dataset import METADATA_KEY, ROW_GROUP_ROWS, metadata_writer
from variations.splits import check_split

SPLIT: Final = "split"


def split_folder(split: str) -> str:
    """Return the prefix of the keys of a split's images."""
    return f"images/{split}/"


def split_metadata_key(split: str) -> str:
    """Return the key of a split's own metadata."""
    return f"{split_folder(split)}{METADATA_KEY}"


def kept_rows(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the rows that have an image."""
    has_image = pc.and_(pc.equal(batch.column("status"), "kept"), pc.is_valid(batch.column("file_name")))
    return batch.filter(has_image)


def rows_by_split(kept: pa.RecordBatch) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Yield the rows of each split whose images lie in its folder; `file_name` is relative to that folder."""
    if SPLIT not in kept.schema.names:
        return
    for split in pc.unique(kept.column(SPLIT)).drop_null().to_pylist():
        folder = split_folder(split)
        names = kept.column("file_name")
        rows = kept.filter(pc.and_(pc.equal(kept.column(SPLIT), split), pc.starts_with(names, folder)))
        if rows.num_rows:
            relative = pc.utf8_slice_codeunits(rows.column("file_name"), start=len(folder))
            yield split, rows.set_column(rows.schema.get_field_index("file_name"), "file_name", relative)


def write_splits(metadata: Path, folder: Path) -> dict[str, Path]:
    """Write the metadata of each split into a folder, a batch of rows in memory, and return the files by split.

    Raises:
        BadInput: a split has a name that `datasets` cannot load.
    """
    found: dict[str, Path] = {}
    writers: dict[str, pq.ParquetWriter] = {}
    with pq.ParquetFile(metadata) as file, ExitStack() as stack:
        for batch in file.iter_batches(batch_size=ROW_GROUP_ROWS):
            for split, rows in rows_by_split(kept_rows(batch)):
                if split not in writers:
                    check_split(split)
                    found[split] = folder / f"{split}.parquet"
                    writers[split] = stack.enter_context(metadata_writer(found[split], rows.schema))
                writers[split].write_batch(rows)
    return dict(sorted(found.items()))

"""The metadata as it is published, fetched to be read."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pyarrow as pa

from variations.dataset import METADATA_KEY
from variations.errors import StorageError
from variations.storage import Storage


@asynccontextmanager
async def fetched_metadata(storage: Storage) -> AsyncIterator[Path | None]:
    """Fetch the metadata into a temporary file; None if there is none.

    Raises:
        StorageError: the store says no, or what lies there cannot be read as metadata.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metadata.parquet")
        has_metadata = await storage.exists(METADATA_KEY)
        if has_metadata:
            await storage.get_to_file(METADATA_KEY, path)
        try:
            yield path if has_metadata else None
        except (pa.ArrowException, KeyError, OSError) as error:
            reason = " ".join(str(error).replace(str(path), "it").split())
            raise StorageError(
                f"{storage.uri_of(METADATA_KEY)} is damaged, or another program's: {reason}. Move it away and run "
                "again; it is rebuilt from the parts that the runs have written"
            ) from error

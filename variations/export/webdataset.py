"""Tar shards for `webdataset`: of each image its file, and beside it a JSON file with its row."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from variations.export.rows import Row, json_line


@contextmanager
def tar_shard(path: Path, schema: pa.Schema) -> Iterator[Callable[[Row, bytes], None]]:  # noqa: ARG001 - JSON needs none
    """Yield what adds an image. No time, owner or mode of this machine gets into the file."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(row: Row, image: bytes) -> None:
            stem = row.name.rpartition(".")[0]
            for name, content in ((row.name, image), (f"{stem}.json", json_line(row.record))):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))

        yield add

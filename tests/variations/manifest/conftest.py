import gzip
import io
import json
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from variations.errors import ManifestError
from variations.manifest import fetch_manifest
from variations.models import RejectedSource, Source


@dataclass(frozen=True)
class Read:
    """Everything a manifest had to say."""

    files: tuple[str, ...]
    labels: dict[str, str]
    rows: list[Source | RejectedSource]

    @property
    def sources(self) -> list[Source]:
        """The usable rows."""
        return [row for row in self.rows if isinstance(row, Source)]

    @property
    def rejected(self) -> list[RejectedSource]:
        """The others."""
        return [row for row in self.rows if isinstance(row, RejectedSource)]


Reader = Callable[..., Awaitable[Read]]


async def read_manifest(uri: str | Path, *, batch_rows: int = 3, **options: Any) -> Read:
    """Read a manifest to its end, checking what must hold for any."""
    async with fetch_manifest(str(uri), **options) as manifest:
        batches = list(manifest.batches(batch_rows=batch_rows))
        assert all(0 < len(batch) <= batch_rows for batch in batches)
        rows = [row for batch in batches for row in batch]
        # What the schema promises, every row keeps.
        for field in manifest.label_schema:
            pa.array([row.labels.get(field.name) for row in rows], field.type)
        assert {name for row in rows for name in row.labels} <= set(manifest.label_schema.names)
        return Read(manifest.files, {field.name: str(field.type) for field in manifest.label_schema}, rows)


@pytest.fixture
def read() -> Reader:
    """Read a manifest to its end."""
    return read_manifest


@pytest.fixture
def read_text(tmp_path: Path) -> Reader:
    """Write a manifest of this name and content beside the test, and read it."""

    async def write_and_read(name: str, content: str | bytes, **options: Any) -> Read:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return await read_manifest(path, **options)

    return write_and_read


@pytest.fixture
def reason_of(read_text: Reader) -> Callable[..., Awaitable[str]]:
    """Give the reason for which the only row of a manifest is rejected."""

    async def reason(name: str, content: str | bytes, **options: Any) -> str:
        found = await read_text(name, content, **options)
        assert found.sources == []
        [rejected] = found.rejected
        assert len(rejected.reason.splitlines()) == 1
        return rejected.reason

    return reason


@pytest.fixture
def refusal_of(tmp_path: Path) -> Callable[..., Awaitable[str]]:
    """Give the one line with which a manifest at a path below `tmp_path` is refused."""

    async def refusal(name: str = "", **options: Any) -> str:
        # A string, for a Path forgets a slash at its end.
        uri = f"{tmp_path}/{name}"
        with pytest.raises(ManifestError) as caught:
            await read_manifest(uri, **options)
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert str(tmp_path) in message
        assert f"{tempfile.gettempdir()}/manifest-" not in message, "the temporary file is nobody's business"
        return message

    return refusal


@pytest.fixture
def encode() -> Callable[[Sequence[Mapping[str, Any]], str], bytes]:
    """Write rows in the format of an extension, with or without .gz."""

    def encoded(rows: Sequence[Mapping[str, Any]], extension: str) -> bytes:
        plain = extension.removesuffix(".gz")
        data = _encode(rows, plain)
        return gzip.compress(data) if extension.endswith(".gz") else data

    return encoded


def _encode(rows: Sequence[Mapping[str, Any]], extension: str) -> bytes:
    sink = io.BytesIO()
    if extension in (".parquet", ".pq"):
        pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    elif extension in (".csv", ".tsv"):
        options = pyarrow.csv.WriteOptions(delimiter="\t" if extension == ".tsv" else ",")
        pyarrow.csv.write_csv(pa.Table.from_pylist(list(rows)), sink, options)
    elif extension in (".txt", ".lst"):
        sink.write("".join(f"{row['url']}\n" for row in rows).encode())
    else:
        sink.write("".join(f"{json.dumps(row)}\n" for row in rows).encode())
    return sink.getvalue()

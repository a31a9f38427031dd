"""Tar shards for `webdataset`: of each image its file, and beside it a JSON file with its row."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from variations.export.rows import Row, json_line

_DTYPES: Final = {"double": "float64", "float": "float32", "halffloat": "float16"}


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


def tar_features(schema: pa.Schema, extension: str) -> list[dict[str, Any]]:
    """Return the features of such shards as a dataset card spells them.

    Without them `datasets` takes the types from the first five images, and fails at a text behind five nulls.
    """
    row = [_feature(one.name, one.type) for one in sorted(schema, key=lambda one: str(one.name))]
    texts = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    return [{"name": extension, "dtype": "image"}, {"name": "json", "struct": row}, *texts]


def _feature(name: str, kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_struct(kind):
        return {"name": name, "struct": [_feature(one.name, one.type) for one in kind]}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return {"name": name, "list": _inner(_feature("", kind.value_type))}
    is_itself = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return {"name": name, "dtype": _DTYPES.get(str(kind), str(kind)) if is_itself else "string"}


def _inner(feature: dict[str, Any]) -> Any:
    """Return what a list holds, as a card spells it: only a list of lists names its kind again."""
    if "list" in feature:
        return {"list": feature["list"]}
    return feature.get("dtype", feature.get("struct"))

"""A published dataset with real images, splits and labels."""

import hashlib
import io
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.variations.examples import outcome, source, variation
from variations.dataset import METADATA_KEY, outcomes_table, parquet_bytes
from variations.models import Outcome, StoredImage
from variations.storage import Storage

LABELS = pa.schema([("class", pa.string()), ("weight", pa.float64())])
Wanted = tuple[str, str | None]


def picture(name: str) -> bytes:
    """Return a JPEG that is another one for each name."""
    content = io.BytesIO()
    red, green, blue = hashlib.sha256(name.encode()).digest()[:3]
    Image.new("RGB", (16, 16), (red, green, blue)).save(content, "JPEG")
    return content.getvalue()


def wanted(**splits: int) -> list[Wanted]:
    """Return names of so many sources for each split; `none` stands for sources without one."""
    return [
        (f"{split}{number}", None if split == "none" else split) for split, n in splits.items() for number in range(n)
    ]


async def publish_images(
    storage: Storage,
    images: Iterable[Wanted],
    *,
    failed: Iterable[Wanted] = (),
    labels: dict[str, Any] | None = None,
    elsewhere: bool = False,
) -> dict[str, str]:
    """Store images, and metadata as a run publishes it; return the key of each source's image.

    Args:
        storage: the dataset.
        images: sources and their splits.
        failed: those of which there is no image.
        labels: of each.
        elsewhere: let the images lie as if they had no split.
    """
    outcomes: list[tuple[Outcome, str | None]] = []
    keys: dict[str, str] = {}
    for name, split in images:
        of = variation(name, source=source(name, labels=labels or {"class": f"kind of {name[0]}", "weight": 0.5}))
        content = picture(name)
        folder = f"{split}/" if split and not elsewhere else ""
        keys[name] = f"images/{folder}{of.variation_id[:2]}/{of.variation_id}.jpg"
        sha256 = hashlib.sha256(content).hexdigest()
        image = StoredImage(keys[name], width=16, height=16, bytes=len(content), format="jpg", sha256=sha256)
        outcomes.append((outcome(of=of, image=image), split))
        await storage.put(keys[name], content, content_type="image/jpeg")
    outcomes += [(outcome("failed", of=variation(name)), split) for name, split in failed]
    await put_metadata(storage, outcomes)
    return keys


async def put_metadata(storage: Storage, outcomes: list[tuple[Outcome, str | None]]) -> None:
    """Write the metadata of outcomes, in an order that is not the one of their ids."""
    rows = sorted(outcomes, key=lambda one: one[0].variation.source.source_id)
    table = outcomes_table([one for one, _ in rows], labels=LABELS, run_id="run-1", model="flux-redux-dev")
    splits = pa.array([split for _, split in rows], pa.string())
    if "split" in table.schema.names:
        table = table.set_column(table.schema.get_field_index("split"), "split", splits)
    else:
        table = table.append_column("split", splits)
    await storage.put(METADATA_KEY, parquet_bytes(table))


async def metadata_of(storage: Storage) -> pa.Table:
    """Return the dataset's metadata."""
    return pq.read_table(io.BytesIO(await storage.get(METADATA_KEY)))


async def change_metadata(storage: Storage, column: str, values: dict[str, Any]) -> None:
    """Give sources another value in a column."""
    table = await metadata_of(storage)
    rows = zip(table.column("source_id").to_pylist(), table.column(column).to_pylist(), strict=True)
    changed = pa.array([values.get(name, value) for name, value in rows], table.schema.field(column).type)
    await storage.put(
        METADATA_KEY, parquet_bytes(table.set_column(table.schema.get_field_index(column), column, changed))
    )


async def contents(storage: Storage, prefix: str = "") -> dict[str, bytes]:
    """Return all objects under a prefix."""
    return {entry.key: await storage.get(entry.key) async for entry in storage.list(prefix)}


def renamed(outcomes: list[Outcome], **changes: Any) -> list[Outcome]:
    """Return outcomes with other values."""
    return [replace(one, **changes) for one in outcomes]

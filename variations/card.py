"""The dataset card, `README.md` at the prefix: what is in it, how it was made, how to load it, and on what terms.

The front matter is what `datasets` and the Hub read. The card is derived from the metadata, as is the metadata of each
split (`variations.image_folder`), which is written with it.
"""

import asyncio
import json
import logging
import tempfile
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import yaml

from variations.dataset import METADATA_KEY
from variations.errors import ObjectNotFound, StorageError
from variations.image_folder import split_folder, split_metadata_key, write_splits
from variations.plan import Plan
from variations.planned import last_plan
from variations.storage import Storage, open_storage
from variations.storage.keys import printable
from variations.summary import Summary, summarise
from variations.texts import markdown_text

CARD_KEY: Final = "README.md"
MARK: Final = "<!-- Written by variations, and again after each run. Remove this line to keep what you change. -->"
LICENSE_URL: Final = "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md"
MODEL_URL: Final = "https://huggingface.co/black-forest-labs/FLUX.1-Redux-dev"
_ATTEMPTS: Final = 3
_SIZES: Final = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
_SIZE_NAMES: Final = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")
_PARQUET: Final = "application/vnd.apache.parquet"
_MARKDOWN: Final = "text/markdown; charset=utf-8"

_log = logging.getLogger(__name__)

_TERMS: Final = f"""\
The images were made with FLUX.1 Redux [dev], which Black Forest Labs licenses under the FLUX.1 [dev] Non-Commercial
License. What follows sums up published versions of it, and is no legal advice. The version in force when the images
were made decides, so read it: <{LICENSE_URL}>.

- Black Forest Labs claims no ownership of outputs. Whoever makes or uses them is responsible for that use.
- Outputs must not be used to train, fine-tune or distill a model that competes with FLUX.1 [dev]. Other models, such as
  a classifier, are not named there; for a commercial purpose read the next point, too.
- The license grants use of the model for non-commercial purposes alone. Versions of it let outputs be used for any
  purpose, commercial ones included, "except as expressly prohibited" in it, and elsewhere restrict commercial and
  production use of the model and, in one version, of data that it produced. Settle a commercial use with the licensor
  or with counsel before you begin it.
- Military use, surveillance, biometric processing, and whatever infringes the rights of others or breaks the law are
  excluded. Later versions also ask for content filters or a review of outputs before they are passed on.
- The hosted API that ran the model has terms of its own, which apply besides.
- A variation resembles its source: the rights in a source image, and the consent of people in it, reach that far.
"""

_PROVENANCE: Final = """\
Each row of `metadata.parquet` tells where an image comes from:

| column | what it tells |
|---|---|
| `variation_id`, `output_index` | the image; the id is a hash of the model, the parameters and the source |
| `source_id`, `source_uri` | the source image, without the signature of its URL |
| the API's parameters, `seed` among them | what was asked for |
| `model`, `request_id`, `run_id` | what made it, in which request and which run |
| `submitted_at`, `completed_at`, `cost_usd` | when, and at what price, of all attempts at it together |
| `sha256`, `width`, `height`, `bytes`, `format` | the file, as it was stored |
| `status`, `error_code`, `error` | `kept` where there is an image; else why there is none |
"""


async def describe_dataset(destination: str, *, plan: Plan | None = None) -> None:
    """Write a dataset's card, and each split's own metadata; how it is split a plan says, that of the last run if none
    is given.

    Raises:
        BadInput, StorageError: as `write_card`.
    """
    storage = open_storage(destination)
    try:
        plan = plan or await last_plan(storage)
        await write_card(storage, splits_text=plan.splits_text if plan else "")
    finally:
        await storage.aclose()


async def write_card(storage: Storage, *, splits_text: str = "") -> None:
    """Write the card, and each split's own metadata, from the dataset's metadata as it is now.

    A `README.md` that does not hold `MARK` is somebody's own, and stays; one that would say the same is left alone.

    Args:
        storage: the dataset.
        splits_text: how its splits were made, in Markdown.

    Raises:
        BadInput: a split has a name that `datasets` cannot load.
        StorageError: the store says no, or the metadata is damaged.
    """
    for _ in range(_ATTEMPTS):
        before = await storage.head(METADATA_KEY)
        if before is None:
            return
        await _write_once(storage, splits_text)
        after = await storage.head(METADATA_KEY)
        # Another run's rows came in between: what was written may be older than what it wrote.
        if after is not None and after.etag == before.etag:
            return


async def _write_once(storage: Storage, splits_text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        metadata = Path(folder, METADATA_KEY)
        await storage.get_to_file(METADATA_KEY, metadata)
        try:
            summary = await asyncio.to_thread(summarise, metadata)
            splits = await asyncio.to_thread(write_splits, metadata, Path(folder)) if summary.images else {}
        except (pa.ArrowException, KeyError) as error:
            raise StorageError(f"{storage.uri_of(METADATA_KEY)} cannot be read as metadata: {error}") from error
        for split, path in splits.items():
            await storage.put(split_metadata_key(split), path, content_type=_PARQUET)
    name = storage.uri.rstrip("/").rpartition("/")[2]
    await put_card(storage, card_text(summary, name=name, splits_text=splits_text))


async def put_card(storage: Storage, text: str) -> None:
    """Write a card, unless what is there is somebody's own or says the same."""
    try:
        known = await storage.get(CARD_KEY)
    except ObjectNotFound:
        known = None
    if known is not None and MARK.encode() not in known:
        _log.info("%s is not ours: it stays as it is", printable(storage.uri_of(CARD_KEY)))
    elif known != text.encode():
        await storage.put(CARD_KEY, text.encode(), content_type=_MARKDOWN)


def card_text(
    summary: Summary,
    *,
    name: str,
    splits_text: str = "",
    data_files: dict[str, str] | None = None,
    features: list[dict[str, Any]] | None = None,
) -> str:
    """Return the card.

    Args:
        summary: what the dataset holds.
        name: what it is called.
        splits_text: how its splits were made, in Markdown.
        data_files: by split, where the files of an export are; without it, it is the image folder that is described.
        features: of the files of an export, where `datasets` has to be told.
    """
    front = yaml.safe_dump(_front(summary, name, data_files, features), sort_keys=False, allow_unicode=True, width=1000)
    parts = [
        f"---\n{front}---\n{MARK}\n",
        f"# {name}\n",
        _opening(summary),
        f"## Load it\n\n{_loading(summary, data_files)}",
        f"## What is in it\n\n{_counts(summary)}",
        f"## Splits\n\n{_splits(summary, splits_text)}",
        f"## Parameters\n\n{_parameters(summary)}",
        f"## Labels\n\n{_labels(summary)}",
        f"## Where each image comes from\n\n{_PROVENANCE}",
        f"## Terms\n\n{_TERMS}",
    ]
    return "\n".join(parts)


def _front(
    summary: Summary, name: str, data_files: dict[str, str] | None, features: list[dict[str, Any]] | None
) -> dict[str, Any]:
    size = next((at for at, limit in enumerate(_SIZES) if summary.kept < limit), len(_SIZES))
    front: dict[str, Any] = {
        "pretty_name": name,
        "license": "other",
        "license_name": "flux-1-dev-non-commercial-license",
        "license_link": LICENSE_URL,
        "tags": ["image", "synthetic", "data-augmentation", "flux"],
        "size_categories": [_SIZE_NAMES[size]],
    }
    if summary.labels:
        front["task_categories"] = ["image-classification"]
    config = _config(summary, data_files)
    if features:
        front["dataset_info"] = {"config_name": "default", "features": features}
    if config:
        front["configs"] = [{"config_name": "default", **config}]
    return front


def _config(summary: Summary, data_files: dict[str, str] | None) -> dict[str, Any]:
    """Return what `datasets` reads: which files make up which split. A pattern that finds nothing would be an error."""
    if data_files is None and summary.images:
        data_files = {split: f"{split_folder(split)}**" for split in summary.images}
    if data_files:
        return {"data_files": [{"split": split, "path": path} for split, path in data_files.items()]}
    if data_files is None and summary.kept:
        # Rows of what failed have no image, and would be rows with None.
        paths = [METADATA_KEY, "images/**"]
        # Where sources have splits, and no image lies in one's folder, `train` would be a lie.
        split = "unsplit" if summary.elsewhere else "train"
        return {"filters": [["status", "==", "kept"]], "data_files": [{"split": split, "path": paths}]}
    return {}


def _opening(summary: Summary) -> str:
    models = ", ".join(str(model) for model in sorted(summary.models.counts)) or "flux-redux-dev"
    made = ""
    if summary.first is not None and summary.last is not None:
        days = sorted({f"{summary.first:%Y-%m-%d}", f"{summary.last:%Y-%m-%d}"})
        made = f", made {' to '.join(days)}"
    return (
        f"{summary.kept:,} image variations{made}. **Every image is synthetic**: each was generated by the model\n"
        f"`{models}` ([FLUX.1 Redux \\[dev\\]]({MODEL_URL})) from one source image, which is not part of it.\n"
        "Labels were carried over from the source; that they hold of what was generated is not checked.\n"
    )


def _loading(summary: Summary, data_files: dict[str, str] | None) -> str:
    if not summary.kept:
        return "There is no image to load: what became of each that was wanted is in `metadata.parquet`.\n"
    splits = list(data_files or summary.images) or ["unsplit" if summary.elsewhere else "train"]
    split = "train" if "train" in splits else splits[0]
    label = json.dumps(next(iter(summary.labels), "source_id"), ensure_ascii=False)
    image, label = 'row["image"]', f"row[{label}]"
    if any(path.endswith(".tar") for path in (data_files or {}).values()):
        image, label = 'row["jpg"]', f'row["json"]{label.removeprefix("row")}'
    lines = [
        "from datasets import load_dataset",
        "",
        f'dataset = load_dataset("path/of/this/folder", split="{split}")',
        "for row in dataset:",
        f"    image, label = {image}, {label}",
    ]
    text = "```python\n" + "\n".join(lines) + "\n```\n"
    if data_files is None:
        text += "\nFrom S3, fetch the folder first, or load what `variations export` writes.\n"
    return text


def _counts(summary: Summary) -> str:
    lines = ["| status | rows |", "|---|---|"]
    lines += [
        f"| {status} | {count:,} |" for status, count in sorted(summary.statuses.items(), key=lambda one: -one[1])
    ]
    text = "\n".join(lines)
    text += f"\n\n{summary.bytes / 1e6:,.1f} MB of images; {summary.cost_usd:,.2f} USD were paid for all rows.\n"
    if summary.verdicts.least is not None:
        text += f"\nVerdicts of the quality gate: {markdown_text(str(summary.verdicts))}.\n"
    return text


def _splits(summary: Summary, splits_text: str) -> str:
    if not summary.images and not summary.elsewhere:
        return "There are none: `datasets` shows all images as `train`.\n"
    lines = ["| split | images |", "|---|---|"]
    lines += [f"| {split} | {count:,} |" for split, count in summary.images.items()]
    text = "\n".join(lines) + "\n"
    if splits_text:
        text += f"\n{splits_text.strip()}\n"
    if summary.without_split:
        text += (
            f"\n{summary.without_split:,} images have no split: they are in `metadata.parquet`, and in none of the "
            "splits that `datasets` loads.\n"
        )
    if summary.elsewhere:
        text += (
            f"\n{summary.elsewhere:,} images were made before their source had the split that it has now: they are in "
            "`metadata.parquet`, and in none of the splits that `datasets` loads from here. An export has them.\n"
        )
    return text


def _parameters(summary: Summary) -> str:
    rows = [(name, str(values)) for name, values in summary.parameters.items() if values.least is not None]
    lines = [
        "As sent to the API, of the images that are there; in brackets, how many.",
        "",
        "| parameter | values |",
        "|---|---|",
    ]
    return "\n".join([*lines, *(f"| `{name}` | {markdown_text(values)} |" for name, values in rows)]) + "\n"


def _labels(summary: Summary) -> str:
    if not summary.labels:
        return "There are none.\n"
    lines = ["The manifest's own columns.", "", "| column | type | values |", "|---|---|---|"]
    for name, (kind, values) in summary.labels.items():
        lines.append(f"| {markdown_text(name)} | {markdown_text(kind)} | {markdown_text(str(values))} |")
    return "\n".join(lines) + "\n"

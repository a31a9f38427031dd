"""From a dataset to its gallery, and again."""

import json
import re
from typing import Any

import pytest

from tests.variations.examples import outcome, write_part
from tests.variations.published import refuse
from variations.dataset import METADATA_KEY
from variations.errors import ObjectNotFound, StorageError
from variations.layout import receipt_key
from variations.models import RejectedSource
from variations.publish import publish
from variations.report import write_report
from variations.status import read_status
from variations.storage import Storage

from .scene import KEPT, PHOTOS, ROWS, RUN, furnish, photos


async def data_of(storage: Storage) -> dict[str, Any]:
    """Return the data of the gallery."""
    page = (await storage.get("report.html")).decode()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


async def test_it_lies_beside_the_data(any_dataset: Storage) -> None:
    """All rows, a picture of each image and of each source that can be had; a second time nothing is fetched."""
    await furnish(any_dataset)
    told: list[tuple[int, int]] = []
    written = await write_report(any_dataset, local_sources=True, on_progress=lambda *at: told.append(at))
    sources = len(photos())
    assert written.uri == f"{any_dataset.uri}/report.html"
    assert (written.rows, written.shown, written.pictures) == (ROWS, ROWS, KEPT + sources)
    # The refused row's source is nowhere.
    assert (written.fetched, written.missing) == (KEPT + sources, 1)
    assert told[-1] == (KEPT + sources + 1, KEPT + sources + 1)
    data = await data_of(any_dataset)
    assert len(data["source_of_row"]) == ROWS
    assert len(data["sources"]) == sources + 1
    assert sum(number >= 0 for number in data["picture_of_row"]) == KEPT
    assert data["runs"][0]["kept"] == KEPT
    again = await write_report(any_dataset, local_sources=True)
    assert (again.fetched, again.pictures) == (0, KEPT + sources)
    assert dict(again.lines())["pictures"] == f"{KEPT + sources}, 0 of them new; 1 could not be had"


async def test_a_run_shows_the_files_that_it_made_something_of(s3_dataset: Storage) -> None:
    """It read them here, so their pictures lie with the data; what else the metadata names is not read for that."""
    await furnish(s3_dataset)
    for run, pictures in (("", KEPT), ("20261123T080000Z-bbbbbb", KEPT), (RUN, KEPT + len(photos()))):
        assert (await write_report(s3_dataset, own_run=run)).pictures == pictures


async def test_a_run_shows_the_files_that_it_found_to_be_alike(s3_dataset: Storage) -> None:
    """Those that are not varied included: a leak is to be looked at."""
    await furnish(s3_dataset)
    held_out = PHOTOS / "11_astronaut_rgba_lossy.webp"
    values = json.loads(await s3_dataset.get(receipt_key(RUN)))
    values["leaks"]["pairs"][0]["other"]["source_uri"] = held_out.as_uri()
    await s3_dataset.put(receipt_key(RUN), json.dumps(values).encode())
    assert (await write_report(s3_dataset, own_run="20261123T080000Z-bbbbbb")).pictures == KEPT
    assert (await write_report(s3_dataset, own_run=RUN)).pictures == KEPT + len(photos()) + 1


async def test_a_file_that_a_run_refused_is_not_shown(s3_dataset: Storage) -> None:
    """Whoever writes a manifest in S3 may name a file of the machine that reads it; that row is refused."""
    await furnish(s3_dataset)
    private = photos()[0].as_uri()
    row = RejectedSource(7, "a file of this machine", "private", private, {})
    run = "20261123T090000Z-cccccc"
    await refuse(s3_dataset, run, row)
    await publish(s3_dataset, [run])
    assert (await write_report(s3_dataset, own_run=run)).pictures == KEPT


async def test_there_is_an_end_to_what_it_fetches(dataset: Storage) -> None:
    """From when it is enough the page is written with what is there, sources first; the next one has the rest."""
    await furnish(dataset)
    asked = 0

    def is_enough() -> bool:
        nonlocal asked
        asked += 1
        return asked > 20

    written = await write_report(dataset, is_enough=is_enough)
    sources = len(photos())
    assert (written.fetched, written.pictures) == (19, 19)
    assert (written.left, written.missing) == (KEPT + sources - 19, 1)
    assert "are left for the next gallery" in dict(written.lines())["pictures"]
    data = await data_of(dataset)
    assert sum(source["picture"] >= 0 for source in data["sources"]) == sources
    assert "it is not in this gallery yet" in next(iter(data["missing_of_row"].values()))
    rest = await write_report(dataset)
    assert (rest.fetched, rest.left, rest.pictures) == (KEPT + sources - 19, 0, KEPT + sources)


async def test_of_more_rows_than_are_wanted_some_sources_are_shown(dataset: Storage) -> None:
    """The page says of how many; the pictures of the others are neither in it nor fetched."""
    await furnish(dataset)
    written = await write_report(dataset, most_rows=ROWS // 2)
    assert 0 < written.shown <= ROWS // 2
    assert (written.rows, written.pictures) == (ROWS, written.fetched)
    assert written.pictures < KEPT
    assert "of some sources" in dict(written.lines())["rows"]
    data = await data_of(dataset)
    assert (data["total"], len(data["source_of_row"])) == (ROWS, written.shown)


async def test_it_is_no_run(dataset: Storage) -> None:
    """What it keeps for the next one is not taken for a run."""
    await furnish(dataset)
    before = await read_status(dataset, runs=5)
    await write_report(dataset)
    after = await read_status(dataset, runs=5)
    assert [run["run_id"] for run in after.runs] == [run["run_id"] for run in before.runs]


async def test_images_that_are_gone_leave_their_places(dataset: Storage) -> None:
    """With the reason; the page is written all the same."""
    await write_part(dataset, "run-1", [outcome()])
    await publish(dataset, ["run-1"])
    written = await write_report(dataset)
    assert (written.pictures, written.missing) == (0, 2)
    data = await data_of(dataset)
    assert data["picture_of_row"] == [-1]
    assert "images/" in data["missing_of_row"]["0"]


async def test_a_place_without_a_dataset_is_one_clear_error(any_dataset: Storage) -> None:
    """Nothing is written."""
    with pytest.raises(ObjectNotFound, match=r"no dataset at .*: it has no metadata\.parquet"):
        await write_report(any_dataset)
    assert not await any_dataset.exists("report.html")


async def test_damaged_metadata_is_one_clear_error(any_dataset: Storage) -> None:
    """It says what to do."""
    await any_dataset.put(METADATA_KEY, b"PAR1 but not really")
    with pytest.raises(StorageError, match="is damaged, or another program's"):
        await write_report(any_dataset)

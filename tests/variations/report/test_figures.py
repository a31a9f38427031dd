"""The runs in figures, counted over the whole dataset."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.variations.examples import outcome, source, variation, write_part
from variations.dataset import METADATA_KEY
from variations.layout import receipt_key
from variations.parameters import Parameters
from variations.publish import publish
from variations.report.figures import BARS, SAMPLES, histogram, over_time, read_figures, read_runs
from variations.storage import Storage

from .scene import RUN, furnish, furnish_outputs


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1))
def test_every_value_is_in_a_bar(values: list[float]) -> None:
    """Whatever they are; there are some dozens of bars at most."""
    told = histogram("Any", np.array(values), unit="s")
    assert told is not None
    assert sum(told["bars"]) == told["count"] == len(values)
    assert len(told["bars"]) <= BARS + 2


@given(st.lists(st.integers(0, 4_000_000_000), min_size=1))
def test_every_moment_is_in_a_bar(values: list[int]) -> None:
    """Over seconds as over a century."""
    told = over_time("Any", np.array(values, float))
    assert told is not None
    assert sum(told["bars"]) == len(values)


def test_bars_are_of_a_round_width_and_a_straggler_is_in_the_last() -> None:
    """It does not squeeze the others into one."""
    told = histogram("Latency", np.array([*np.linspace(10, 20, 999), 900.0]), unit="s")
    assert told is not None
    assert (told["start"], told["step"], told["max"]) == (10, 0.5, 900)
    assert told["bars"][-1] == pytest.approx(told["bars"][0], abs=30)
    assert len(told["bars"]) < 25


def test_whole_numbers_have_a_bar_each() -> None:
    """And what is all alike has one."""
    told = histogram("Requests", np.array([3.0, 3, 4, 6]), unit="requests", is_whole=True)
    assert told is not None
    assert (told["start"], told["step"], told["bars"]) == (3, 1, [2, 1, 0, 1])
    alike = histogram("Cost", np.array([0.031] * 7), unit="USD")
    assert alike is not None
    assert (alike["bars"], alike["note"]) == ([7], "0.031 USD each")
    assert histogram("Nothing", np.array([]), unit="s") is None


@pytest.fixture
async def metadata(dataset: Storage, tmp_path: Path) -> Path:
    """Publish some that failed, for two reasons, and return the metadata's file."""
    failed = [outcome("failed", of=variation(f"f{at}"), error_code="content_policy") for at in range(3)]
    unknown = outcome("unknown", of=variation("u", source=source("u")), cost_usd=0.031)
    await write_part(dataset, RUN, [outcome(), *failed, unknown])
    await publish(dataset, [RUN])
    await dataset.get_to_file(METADATA_KEY, tmp_path / "metadata.parquet")
    return tmp_path / "metadata.parquet"


def test_failures_are_counted_by_their_reason(metadata: Path) -> None:
    """The most frequent first; what may have been paid for is told."""
    told = read_figures(metadata)
    assert told["statuses"] == {"kept": 1, "failed": 3, "unknown": 1}
    assert [(one["status"], one["error_code"], one["count"], one["cost_usd"]) for one in told["failures"]] == [
        ("failed", "content_policy", 3, 0.0),
        ("unknown", "unknown", 1, 0.031),
    ]
    assert told["failures"][0]["samples"] == ["it was failed"]
    assert [one["title"] for one in told["histograms"]] == ["Cost an image", "Requests an image"]


async def test_what_was_flagged_is_counted_by_why(dataset: Storage, tmp_path: Path) -> None:
    """With what some of each say; what has two reasons is under both."""
    await furnish_outputs(dataset)
    path = tmp_path / "metadata.parquet"
    await dataset.get_to_file(METADATA_KEY, path)
    told = read_figures(path)["failures"]
    assert {one["verdict"]: (one["count"], one["cost_usd"]) for one in told} == {
        "flagged: blank": (2, 0.062),
        "flagged: copy": (2, 0.062),
        "flagged: twin": (1, 0.031),
    }
    assert {(one["status"], one["error_code"]) for one in told} == {("rejected", "flagged")}
    assert told[-1]["samples"] == ["2 bits from another one, 16:9"]
    assert sorted(told[0]["samples"]) == ["its contrast is 0, 16:9", "its contrast is 0, 9:16"]


async def test_a_few_of_many_texts_are_told(dataset: Storage, tmp_path: Path) -> None:
    """Where each failure has its own."""
    failed = [outcome("failed", of=variation(f"f{at}"), error_code="timeout", error=f"{at} s") for at in range(50)]
    await write_part(dataset, RUN, failed)
    await publish(dataset, [RUN])
    await dataset.get_to_file(METADATA_KEY, tmp_path / "metadata.parquet")
    (one,) = read_figures(tmp_path / "metadata.parquet")["failures"]
    assert (one["count"], len(one["samples"])) == (50, SAMPLES)


async def test_a_request_for_several_images_is_a_part_of_each(dataset: Storage, tmp_path: Path) -> None:
    """As in the receipt; one that makes a single image counts whole."""
    several = variation("v", parameters=Parameters(num_outputs=4))
    outcomes = [outcome(of=several, output_index=index, polls=5) for index in range(4)]
    await write_part(dataset, RUN, [*outcomes, outcome(polls=2)])
    await publish(dataset, [RUN])
    await dataset.get_to_file(METADATA_KEY, tmp_path / "metadata.parquet")
    told = {one["title"]: one for one in read_figures(tmp_path / "metadata.parquet")["histograms"]}
    assert told["Requests an image"]["note"] == "median 1.5, 95 % up to 2.7, mean 1.8 requests"


async def test_measures_of_a_gate_have_histograms(dataset: Storage, tmp_path: Path) -> None:
    """Where the dataset has them."""
    await furnish(dataset)
    path = tmp_path / "metadata.parquet"
    await dataset.get_to_file(METADATA_KEY, path)
    titles = [one["title"] for one in read_figures(path)["histograms"]]
    assert "Distance to the source" in titles
    assert "Distance to siblings" not in titles


async def test_runs_are_told_by_their_receipts(dataset: Storage) -> None:
    """Newest first; one without a receipt, or with a damaged one, is left out."""
    for run, receipt in {"1": b'{"source": "m", "kept": 1}', "2": b'{"source": "m", "kept": 2}', "3": b"{"}.items():
        await dataset.put(receipt_key(run), receipt)
    await dataset.put("_runs/4/plan/plan.json", b"{}")
    assert [run["kept"] for run in await read_runs(dataset)] == [2, 1]

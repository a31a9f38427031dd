"""The form of a run and what comes of it, as a person at the UI sees it in a browser."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from variations import read_dataset

from .browser import FORM_HEIGHT, Browser, programs, running_browser
from .processes import Running, until
from .stage import Stage

PHOTOS: Final = 6
# From a click to the run, or to the word that it was refused; and for how long it is worth to click again.
CLICK_SECONDS: Final = 10.0
CLICKS_SECONDS: Final = 120.0
# What is to be read there.
ARTIFACTS: Final = {
    "plan": "images to pay for",
    "progress": "Progress: 100%",
    "receipt": "Receipt of",
    "failures": "inference_failed",
}


@pytest.fixture
def browser(stage: Stage, tmp_path: Path) -> Iterator[Browser]:
    """A browser; its pictures are kept where E2E_PICTURES says."""
    if (paths := programs()) is None:
        # Where nobody may install one; CI does. A form that no browser shows cannot be looked at.
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    pictures = Path(os.environ.get("E2E_PICTURES") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    with running_browser(paths, folder=tmp_path, pictures=pictures, env=dict(stage.env)) as window:
        yield window


def deployment_page(stage: Stage) -> str:
    """Return the address of the deployment of `augment`."""
    return f"{stage.server.url}/v2/deployments/deployment/{stage.server.deployment('augment')['id']}"


def shown(default: Any) -> str:
    """Return a default as the form shows it."""
    if isinstance(default, bool):
        return str(default).lower()
    return default if isinstance(default, str) else f"{default:g}"


def test_the_form_is_one_that_a_person_can_fill_in(stage: Stage, browser: Browser) -> None:
    """Fields in their order, with names, descriptions, defaults and choices; it does not let a bad value through."""
    deployment = stage.server.deployment("augment")
    schema = deployment["parameter_openapi_schema"]
    browser.open(deployment_page(stage), height=FORM_HEIGHT)
    browser.button("Run").click()
    browser.button("Custom run").click()
    form = browser.fields()
    browser.picture("form")
    wanted = sorted(schema["properties"].items(), key=lambda field: field[1]["position"])
    assert list(form) == [name for name, _ in wanted]
    for name, field in wanted:
        assert form[name].description == field["description"]
        assert form[name].is_optional is (name not in schema["required"])
        default = deployment["parameters"].get(name, field.get("default", ""))
        assert form[name].value == shown(default), name
        if choices := field.get("enum"):
            assert browser.choices(form[name]) == choices
            browser.picture(f"form-{name}")
            browser.choose(default)

    form["guidance"].fill("12")
    browser.button("Submit").click()
    browser.picture("form-refused")
    assert "10" in browser.complaint(form["guidance"])
    form["guidance"].fill("3.5")
    assert not browser.complaint(form["guidance"])


def test_a_run_is_started_from_the_form(stage: Stage, workers: list[Running], browser: Browser) -> None:
    """It does what was filled in, and its page leads to its plan, progress, receipt and failures."""
    del workers
    sources = stage.fill("form", photos=PHOTOS)
    # One of six is not enough to call it failed.
    stage.sandbox.set_faults("failed:1:1")
    browser.open(f"{deployment_page(stage)}/run", height=FORM_HEIGHT)
    form = browser.fields()
    form["source"].fill(sources.source)
    form["destination"].fill(sources.destination)
    form["guidance"].fill("3.5")
    browser.choices(form["output_format"])
    browser.choose("png")
    form["requests_per_minute"].fill("600")
    browser.picture("form-filled")

    def submitted() -> list[dict[str, Any]]:
        """Return the run, or click: on SQLite the server may be too busy to take it, and says so."""
        runs = stage.server.flow_runs("augment")
        found = [one for one in runs if one["parameters"]["destination"] == sources.destination]
        if not found:
            browser.button("Submit").click()
        return found

    (run,) = until("the run to be there", submitted, seconds=CLICKS_SECONDS, every=CLICK_SECONDS)
    browser.open(f"{stage.server.url}/v2/runs/flow-run/{run['id']}")
    state = stage.until_ended(run["id"])
    assert (state["name"], state["type"]) == ("CompletedWithFailures", "COMPLETED"), state
    browser.reads("CompletedWithFailures")
    # A line of its log, in which a person reads how it went.
    browser.reads("Planned: ")
    browser.picture("run")
    frame = read_dataset(sources.destination)
    assert sorted(frame["status"]) == ["failed"] + ["kept"] * (PHOTOS - 1)
    assert (set(frame["guidance"]), set(frame["output_format"])) == ({3.5}, {"png"})

    browser.button("Artifacts").click()
    for name in ARTIFACTS:
        browser.reads(f"variations-{name}")
    browser.picture("artifacts")
    artifacts = stage.server.artifacts(run["id"])
    for name, text in ARTIFACTS.items():
        browser.open(f"{stage.server.url}/v2/artifacts/artifact/{artifacts[f'variations-{name}']['id']}")
        browser.reads(text)
        browser.picture(name)


def test_a_form_without_a_destination_is_refused(stage: Stage, browser: Browser) -> None:
    """It says which field is missing, and no run is made."""
    before = len(stage.server.flow_runs("augment"))
    browser.open(f"{deployment_page(stage)}/run", height=FORM_HEIGHT)
    browser.fields()["source"].fill("s3://bucket/manifest.parquet")
    browser.button("Submit").click()
    browser.reads("'destination' is a required property")
    browser.picture("form-incomplete")
    assert len(stage.server.flow_runs("augment")) == before

"""What Prefect's blocks hold: which settings, with which bounds, and what wins over them."""

import inspect
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import ValidationError

from config import Settings, load_settings
from config.blocks import VariationsSettings, stored_settings
from flows.augment import augment
from variations.errors import SettingsError

NO_SERVER = "http://127.0.0.1:9/api"


def test_the_settings_of_the_block_are_those_that_are_no_runs_own() -> None:
    """Neither what the form asks for, nor the key, nor what the deployments set for each process."""
    form = set(inspect.signature(augment.fn).parameters)
    elsewhere = {"segmind_api_key", "work_deployment", "concurrency_limit"}
    assert set(Settings.model_fields) - form - elsewhere == VariationsSettings.NAMES


def test_a_block_changes_nothing_until_it_is_filled_in() -> None:
    """Its defaults are the settings' own."""
    assert load_settings(stored=VariationsSettings().values()) == load_settings()


@pytest.mark.parametrize("wrong", [{"price_usd": -1}, {"lease_seconds": 0}, {"requests_counted": "none"}])
def test_the_bounds_of_the_settings_are_the_blocks(wrong: dict[str, Any]) -> None:
    """Prefect's form refuses what a run would refuse."""
    with pytest.raises(ValidationError):
        VariationsSettings(**wrong)


def test_everything_wins_over_a_block_but_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """An option over the environment over the file over the block."""
    stored = {"price_usd": 4.0, "segmind_api_key": "SG_4", "output_hosts": "a,b"}
    assert load_settings(stored=stored).price_usd == 4.0
    assert load_settings(stored=stored).output_hosts == ("a", "b")
    assert load_settings(stored=stored).endpoint().api_key == "SG_4"
    (tmp_path / "variations.toml").write_text("price_usd = 3.0\nsegmind_api_key = 'SG_3'")
    assert load_settings(stored=stored).price_usd == 3.0
    assert load_settings(stored=stored).endpoint().api_key == "SG_3"
    monkeypatch.setenv("VARIATIONS_PRICE_USD", "2")
    monkeypatch.setenv("SEGMIND_API_KEY", "SG_2")
    assert load_settings(stored=stored).price_usd == 2.0
    assert load_settings(stored=stored).endpoint().api_key == "SG_2"
    assert load_settings({"price_usd": 1.0}, stored=stored).price_usd == 1.0
    assert load_settings().price_usd == 2.0


def test_what_is_wrong_in_a_block_is_said_to_be_there() -> None:
    """A person would look for it in the environment."""
    with pytest.raises(SettingsError, match=r"segmind_base_url \(in Prefect's block\) is 'api': is no http"):
        load_settings(stored={"segmind_base_url": "api"})


@pytest.mark.parametrize("url", [None, NO_SERVER])
async def test_where_there_is_no_server_nothing_is_stored(url: str | None) -> None:
    """The environment may hold all that is needed."""
    with temporary_settings({PREFECT_API_URL: url}):
        assert await stored_settings() == {}


@contextmanager
def failing_server() -> Iterator[str]:
    """Give the address of a server that answers everything with 500."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


@contextmanager
def flow_run(*, deployment_id: UUID | None) -> Iterator[None]:
    """Be in a flow run, as Prefect's engine puts its flow there."""
    run = FlowRun(flow_id=uuid4(), deployment_id=deployment_id)
    # What else the engine puts there, nobody here asks for.
    with FlowRunContext.model_construct(flow_run=run):
        yield


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_deployed_run_does_not_go_on_without_them(*, is_there: bool) -> None:
    """It would send requests to another host, or say that there is no key; any other run goes on with what it has."""
    with failing_server() as failing, temporary_settings({PREFECT_API_URL: failing if is_there else NO_SERVER}):
        with flow_run(deployment_id=None):
            assert await stored_settings() == {}
        with flow_run(deployment_id=uuid4()), pytest.raises(SettingsError) as caught:
            await stored_settings()
        assert f"the Prefect server at {failing if is_there else NO_SERVER} did not tell the settings" in str(
            caught.value
        )
        assert "\n" not in str(caught.value)
    with temporary_settings({PREFECT_API_URL: None}), flow_run(deployment_id=uuid4()):
        assert await stored_settings() == {}


def test_the_settings_alone_need_no_prefect() -> None:
    """A command that needs none does not wait two seconds for it."""
    code = "import sys, config; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603

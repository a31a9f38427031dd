"""What a flow run reads of itself: where a deployed one may read and write."""

from datetime import date

import pytest

from tasks.runtime import place_of
from variations.errors import BadInput

DAY = date(2026, 11, 22)


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be a run of a deployment, as Prefect's own documentation has it for tests."""
    monkeypatch.setenv("PREFECT__RUNTIME__DEPLOYMENT__ID", "a2bcd0ff-94b4-4fd0-8b5e-8c5e9ca5e1cd")


@pytest.mark.usefixtures("deployed")
def test_a_deployed_run_refuses_a_relative_path() -> None:
    """Its folder is removed when it ends, and what was paid for with it."""
    with pytest.raises(BadInput, match=r"destination: data/2026-11-22 is a relative path.*write an absolute one"):
        place_of("data/{date}", DAY, name="destination")


@pytest.mark.usefixtures("deployed")
@pytest.mark.parametrize("place", ["s3://bucket/{date}", "/data/{date}", "file:///data/{date}"])
def test_a_deployed_run_takes_what_stays(place: str) -> None:
    """A bucket, or a folder of the machine."""
    assert place_of(place, DAY, name="source") == place.replace("{date}", "2026-11-22")


def test_a_run_from_the_command_line_takes_a_relative_path() -> None:
    """It works where the user is."""
    assert place_of("data", DAY, name="source") == "data"

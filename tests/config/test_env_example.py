"""`.env.example` is the list of settings: whole, right, and explained."""

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from config import Settings, load_settings
from config.settings import variable_of

TEXT = (Path(__file__).parents[2] / ".env.example").read_text(encoding="utf-8")
LINE = re.compile(r"#?([A-Z][A-Z0-9_]*)=(.*)")
POINTERS = {"VARIATIONS_CONFIG", "VARIATIONS_PROFILE"}


def variables() -> dict[str, str]:
    """Return the variables of the file with their values."""
    found = [match.groups() for line in TEXT.splitlines() if (match := LINE.fullmatch(line))]
    assert len(dict(found)) == len(found), "a variable stands there twice"
    return dict(found)


def own() -> dict[str, str]:
    """Return those that are not boto3's."""
    return {name: value for name, value in variables().items() if not name.startswith("AWS_")}


def test_it_names_exactly_the_settings_there_are() -> None:
    """A setting that is added is documented; one that went is gone."""
    assert set(own()) == {variable_of(name) for name in Settings.model_fields} | POINTERS


@pytest.mark.parametrize("name", Settings.model_fields)
def test_its_value_is_the_default(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who uncomments a line changes nothing."""
    value = own()[variable_of(name)]
    monkeypatch.setenv(variable_of(name), value)
    assert getattr(load_settings(), name) == Settings.model_fields[name].default

    default: Any = Settings.model_fields[name].default
    plain = default.get_secret_value() if isinstance(default, SecretStr) else default
    assert bool(value) == bool(plain not in ("", ())), "an empty value says that there is none"


def test_only_the_key_is_to_be_filled_in() -> None:
    """All else is commented out."""
    active = [line for line in TEXT.splitlines() if line and not line.startswith("#")]
    assert active == ["SEGMIND_API_KEY="]


def test_each_is_explained() -> None:
    """By a sentence above it, or above the group it stands in; a line under a heading explains nothing."""
    said = ""
    for line in TEXT.splitlines():
        if LINE.fullmatch(line):
            assert len(said) > 10, f"{line} is not explained"
        elif line.startswith("# ---") or not line.strip():
            said = ""
        else:
            said = line


def test_each_has_a_description() -> None:
    """Which the command's help shows."""
    for name, setting in Settings.model_fields.items():
        assert setting.description, name
        assert len(setting.description) > 10, name


def test_no_secret_is_in_it() -> None:
    """It is checked in."""
    assert not re.search(r"SG_[0-9a-f]{4}", TEXT)
    assert variables()["AWS_SECRET_ACCESS_KEY"] == ""

"""Settings: where they come from, which one wins, and what is said of a wrong one."""

import traceback
from pathlib import Path
from typing import Any

import pytest

from config import Settings, load_settings
from config.settings import variable_of
from variations.errors import SettingsError
from variations.gate import Gate
from variations.parameters import PARAMETER_NAMES, Parameters
from variations.planning.recipe import Recipe

KEY = "SG_0123456789abcdef"


@pytest.fixture
def toml(tmp_path: Path) -> Any:
    """Write `variations.toml` where a test works."""

    def write(text: str, *, name: str = "variations.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(**options: Any) -> str:
    """Return what is said of settings that are refused."""
    profile = options.pop("profile", None)
    with pytest.raises(SettingsError) as caught:
        load_settings(options, profile=profile)
    return str(caught.value)


def test_without_anything_each_setting_has_its_default() -> None:
    """A user sets the key alone."""
    settings = load_settings()
    assert settings.segmind_base_url == "https://api.segmind.com"
    assert settings.recipe() == Recipe(parameters=Parameters())
    assert (settings.limits().max_in_flight, settings.limits().requests_per_minute) == (0, 0.0)


LAYERS = [
    ("guidance", 1.0, 2.0, 4.0, 5.0, 3.0),
    (
        "segmind_base_url",
        "http://override",
        "http://environment",
        "http://profile",
        "http://top",
        "https://api.segmind.com",
    ),
    ("segmind_api_key", "SG_1", "SG_2", "SG_3", "SG_4", ""),
    ("output_hosts", ("a",), ("b",), ("c",), ("d",), ()),
    ("max_in_flight", 1, 2, 3, 4, 0),
]


@pytest.mark.parametrize(("name", "override", "environment", "profile", "top", "default"), LAYERS, ids=str)
def test_which_of_several_wins(
    toml: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    override: Any,
    environment: Any,
    profile: Any,
    top: Any,
    default: Any,
) -> None:
    """An option over the environment over the profile over the top of the file over the default."""

    def value(settings: Settings) -> Any:
        found = getattr(settings, name)
        return found.get_secret_value() if name == "segmind_api_key" else found

    def written(thing: Any) -> str:
        return str(list(thing)) if isinstance(thing, tuple) else repr(thing)

    assert value(load_settings()) == default
    toml(f"{name} = {written(top)}\n[profiles.night]\n{name} = {written(profile)}\n[profiles.other]\n")
    assert value(load_settings()) == top
    assert value(load_settings(profile="other")) == top
    assert value(load_settings(profile="night")) == profile
    monkeypatch.setenv("VARIATIONS_PROFILE", "night")
    assert value(load_settings()) == profile
    assert value(load_settings(profile="other")) == top
    monkeypatch.setenv(variable_of(name), ",".join(environment) if isinstance(environment, tuple) else str(environment))
    assert value(load_settings()) == environment
    assert value(load_settings({name: override})) == override


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file of variables leaves it that was not filled in."""
    for name in ("VARIATIONS_GUIDANCE", "VARIATIONS_CONFIG", "VARIATIONS_PROFILE", "SEGMIND_API_KEY"):
        monkeypatch.setenv(name, "")
    assert load_settings() == Settings()


def test_a_file_can_be_named(toml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the usual one is not read."""
    toml("guidance = 1.0")
    monkeypatch.setenv("VARIATIONS_CONFIG", str(toml("guidance = 2.0", name="other.toml")))
    assert load_settings().guidance == 2.0


def test_one_load_leaves_nothing_for_the_next(toml: Any) -> None:
    """Not even after a failure."""
    path = toml("guidance = 2.0\noutputs_per_request = 9")
    assert "outputs_per_request" in refused()
    path.unlink()
    assert load_settings() == Settings()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("VARIATIONS_GUIDENCE", "did you mean VARIATIONS_GUIDANCE?"),
        ("SEGMIND_APIKEY", "did you mean SEGMIND_API_KEY?"),
        ("VARIATIONS_SEGMIND_API_KEY", "did you mean SEGMIND_API_KEY?"),
        ("VARIATIONS_XYZZY", "known are "),
    ],
)
def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str, said: str) -> None:
    """With the nearest name: a misspelt limit must not be paid for at its default."""
    monkeypatch.setenv(variable, KEY)
    text = refused()
    assert text.startswith(f"unknown setting {variable} in the environment")
    assert said in text
    assert KEY not in text


@pytest.mark.parametrize(
    ("content", "profile", "said"),
    [
        ("guidence = 3", None, "unknown setting 'guidence' of variations.toml; did you mean guidance?"),
        (
            "[profiles.a]\nguidence = 3",
            None,
            "unknown setting 'guidence' in [profiles.a] of variations.toml; did you mean",
        ),
        ("VARIATIONS_GUIDANCE = 3", None, "unknown setting 'VARIATIONS_GUIDANCE' of variations.toml"),
        ("[profiles.night]", "nigth", "variations.toml has no profile 'nigth'; did you mean night?"),
        ("guidance = 3", "night", "variations.toml has no profile 'night'"),
        ("profiles = 3", None, "variations.toml: a profile is a table, [profiles.NAME]"),
        ("[profiles]\nnight = 3", None, "variations.toml: a profile is a table, [profiles.NAME]"),
        ("guidance = = 3", None, "variations.toml is no TOML: Invalid value (at line 1"),
        ("guidance = 11", None, "guidance is 11: input should be less than or equal to 10"),
        ("guidance = 'high'", None, "guidance is 'high': input should be a valid number"),
        ("[guidance]\nx = 1", None, "guidance is {'x': 1}: input should be a valid number"),
        (
            "num_outputs = 2",
            None,
            "unknown setting 'num_outputs' of variations.toml; did you mean outputs_per_request?",
        ),
        ("outputs_per_request = 1.5", None, "outputs_per_request is 1.5: input should be a valid integer"),
        ("output_hosts = 3", None, "output_hosts is 3: input should be a valid tuple"),
        ("aspect_ratio = '1:2'", None, "aspect_ratio is '1:2': input should be '1:1'"),
        ("segmind_base_url = 'api.segmind.com'", None, "segmind_base_url is 'api.segmind.com': is no http(s) URL"),
        ("price_usd = nan", None, "price_usd is nan: input should be a finite number"),
        ("price_usd = inf", None, "price_usd is inf: input should be a finite number"),
    ],
)
def test_what_is_said_of_a_wrong_file(toml: Any, content: str, profile: str | None, said: str) -> None:
    """What is wrong, and where."""
    toml(content)
    assert said in refused(profile=profile)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Somebody named an image."""
    (tmp_path / "variations.toml").write_bytes(b"\xff\xfe\x00")
    assert "variations.toml is no TOML" in refused()


def test_a_file_or_a_profile_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one was asked for."""
    assert refused(profile="night") == "there is no file variations.toml with the profile 'night'"
    monkeypatch.setenv("VARIATIONS_CONFIG", "no.toml")
    assert refused() == "there is no file no.toml named by VARIATIONS_CONFIG"


def test_a_wrong_variable_is_named_as_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at once; an option goes by the option's name."""
    monkeypatch.setenv("VARIATIONS_GUIDANCE", "11")
    monkeypatch.setenv("VARIATIONS_OUTPUTS_PER_REQUEST", "many")
    text = refused()
    assert "VARIATIONS_GUIDANCE is '11': input should be less than or equal to 10" in text
    assert "VARIATIONS_OUTPUTS_PER_REQUEST is 'many': input should be a valid integer" in text
    assert refused(guidance=12, outputs_per_request=1) == "guidance is 12: input should be less than or equal to 10"


def test_of_a_long_value_the_beginning_is_shown() -> None:
    """What is wrong with it stands behind it, and is to be seen."""
    sweep = "guidance=" + ",".join(f"{number / 1000}" for number in range(2000, 3500))
    said = refused(sweep=sweep)
    assert said.startswith("sweep is 'guidance=2.0,2.001,")
    assert "…': 1,500 settings a source" in said
    assert len(said) < 250


def test_an_unknown_option_is_refused() -> None:
    """With the nearest name."""
    assert refused(guidence=3) == "unknown setting 'guidence'; did you mean guidance?"


@pytest.mark.parametrize("name", ["segmind_base_url", "segmind_history_url", "segmind_upload_url"])
def test_a_url_is_checked(name: str) -> None:
    """Its scheme, its host, and that no password is in it; a slash at its end makes no difference."""
    for wrong in ("", "ftp://h", "https://", "h", "https://[::1"):
        assert name in refused(**{name: wrong})
    assert getattr(load_settings({name: "http://127.0.0.1:8080/"}), name) == "http://127.0.0.1:8080"


def test_no_password_of_a_url_is_shown() -> None:
    """It is refused, and the refusal does not repeat it."""
    text = refused(segmind_base_url="https://me:open-sesame@h")
    assert "user name or password" in text
    assert "open-sesame" not in text


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("variations_per_source", [0, 1001]),
        ("retry", ["all", ""]),
        ("seed", [-1, 2**31]),
        ("max_in_flight", [-1, 1001]),
        ("requests_per_minute", [-1, 1_000_001, float("nan")]),
        ("poll_interval_seconds", [-1, 601]),
        ("expected_latency_seconds", [0, 3601]),
        ("deadline_seconds", [0, 3601]),
        ("requests_counted", ["none"]),
        ("max_images_in_memory", [0, 1001]),
        ("presign_seconds", [59, 7 * 86400 + 1]),
        ("price_usd", [-0.01]),
        ("max_cost_usd", [-0.01, float("inf")]),
        ("unknown", ["forget", ""]),
        ("unknown_wait_seconds", [-1, 30 * 86400 + 1]),
        ("grace_seconds", [-1, 3601]),
        ("lease_seconds", [0, 3601]),
    ],
)
def test_every_bound_holds(name: str, values: list[Any]) -> None:
    """Just beyond what is allowed."""
    for value in values:
        assert refused(**{name: value}).startswith(f"{name} is {value!r}: ")


class TestKey:
    """The key is a secret."""

    @pytest.mark.parametrize("source", ["environment", "file", "profile", "option"])
    def test_it_shows_nowhere(self, toml: Any, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
        """In no repr, no text, no dump, wherever it came from."""
        options: dict[str, Any] = {}
        if source == "environment":
            monkeypatch.setenv("SEGMIND_API_KEY", KEY)
        elif source == "option":
            options["segmind_api_key"] = KEY
        else:
            toml(f"{'[profiles.p]' if source == 'profile' else ''}\nsegmind_api_key = '{KEY}'")
        settings = load_settings(options, profile="p" if source == "profile" else None)
        assert settings.endpoint().api_key == KEY
        for text in (repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json()):
            assert KEY not in text
        assert KEY not in repr(settings.endpoint())

    @pytest.mark.parametrize(
        "wrong", [{"guidance": 99}, {"segmind_base_url": KEY}, {"segmind_api_key": [KEY]}, {KEY: 1}]
    )
    def test_no_error_shows_it(self, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]) -> None:
        """Neither its text nor its traceback, not even where it was put in the wrong place."""
        monkeypatch.setenv("SEGMIND_API_KEY", KEY)
        with pytest.raises(SettingsError) as caught:
            load_settings(wrong)
        if KEY not in wrong:
            assert KEY not in "".join(traceback.format_exception(caught.value))

    def test_a_broken_file_does_not_show_it(self, toml: Any) -> None:
        """The parser's error says where, not what."""
        toml(f"segmind_api_key = '{KEY}")
        with pytest.raises(SettingsError) as caught:
            load_settings()
        assert KEY not in "".join(traceback.format_exception(caught.value))

    def test_without_one_there_is_no_endpoint(self) -> None:
        """Planning needs none; running does."""
        with pytest.raises(SettingsError, match="set SEGMIND_API_KEY"):
            load_settings().endpoint()

    @pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY}é", "SG_a b", "SG_\x00"])
    def test_one_that_no_header_can_carry_is_refused(self, key: str) -> None:
        """As it comes from a file with a line's end; the key is not repeated."""
        with pytest.raises(SettingsError, match="a character that no key has") as caught:
            load_settings({"segmind_api_key": key}).endpoint()
        assert key.strip() not in str(caught.value)


def test_the_recipe_is_what_was_set() -> None:
    """Every parameter but the seed, whose 0 means that each source has its own."""
    changed: dict[str, Any] = {
        "aspect_ratio": "16:9",
        "disable_safety_checker": True,
        "guidance": 5.0,
        "megapixels": "0.25",
        "num_inference_steps": 50,
        "num_outputs": 4,
        "output_format": "webp",
        "output_quality": 1,
    }
    assert {*changed, "seed"} == set(PARAMETER_NAMES)
    settings = {("outputs_per_request" if name == "num_outputs" else name): value for name, value in changed.items()}
    recipe = load_settings({**settings, "variations_per_source": 3, "retry": "failed", "seed": 7}).recipe()
    assert recipe == Recipe(Parameters(**changed), variations_per_source=3, seed=7, retry_failed=True)
    assert load_settings({"seed": 0}).recipe().seed is None
    assert load_settings({"retry": "none"}).recipe().retry_failed is False
    assert load_settings({"unknown_wait_seconds": 600}).recipe().resubmit_after_seconds is None
    waiting = load_settings({"unknown": "resubmit", "unknown_wait_seconds": 600})
    assert waiting.recipe().resubmit_after_seconds == 600


def test_the_limits_are_what_was_set() -> None:
    """Each setting of how hard to go reaches the engine."""
    limits = load_settings(
        {
            "max_in_flight": 3,
            "requests_per_minute": 120,
            "requests_counted": "submit",
            "poll_interval_seconds": 1,
            "deadline_seconds": 30,
            "max_images_in_memory": 4,
            "presign_seconds": 60,
            "price_usd": 0.5,
            "max_cost_usd": 20,
            "grace_seconds": 5,
            "output_hosts": "a, b,,",
        }
    ).limits()
    assert (limits.max_in_flight, limits.requests_per_minute, limits.count_all_requests) == (3, 120, False)
    assert (limits.poll_interval_seconds, limits.deadline_seconds, limits.max_images_in_memory) == (1, 30, 4)
    assert (limits.presign_seconds, limits.price_usd, limits.output_hosts) == (60, 0.5, ("a", "b"))
    assert (limits.max_cost_usd, limits.grace_seconds) == (20, 5)


def test_the_endpoint_is_what_was_set() -> None:
    """A sandbox stands in for all three hosts."""
    names = ("segmind_base_url", "segmind_history_url", "segmind_upload_url")
    urls = {name: f"http://{name.replace('_', '-')}" for name in names}
    endpoint = load_settings({**urls, "segmind_api_key": KEY}).endpoint()
    assert [endpoint.base_url, endpoint.history_url, endpoint.upload_url] == list(urls.values())


def test_settings_do_not_change() -> None:
    """They are read once and passed down."""
    with pytest.raises(ValueError, match="frozen"):
        load_settings().guidance = 5.0


def test_the_gate_is_set_by_its_own_names() -> None:
    """Each threshold, and what becomes of what is flagged."""
    changed = {"on_flagged": "reroll", "max_rolls": 5, "gate_blank": 12, "gate_copy": 2, "gate_lost": 30}
    settings = load_settings({**changed, "gate_twin": 0, "gate_size_percent": 3, "gate_sources": False})
    assert settings.recipe().gate == Gate(
        on_flagged="reroll",
        max_rolls=5,
        blank=12,
        size_percent=3,
        copy_bits=2,
        lost_bits=30,
        twin_bits=0,
        sources=False,
    )
    assert load_settings({"retry": "flagged"}).recipe().retry_flagged
    assert not load_settings({"retry": "failed"}).recipe().retry_flagged

"""Settings: from the environment, a TOML profile, and Prefect's blocks; read once by the flow and passed down.

An environment variable is a setting's name in capitals: `VARIATIONS_` before all but the vendor's own (`SEGMIND_…`).
In `variations.toml` (or the file that `VARIATIONS_CONFIG` names) the same names stand in small letters without that
prefix, for every profile at the top and for one under `[profiles.NAME]`.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from config import options
from variations import parameters
from variations.api.client import Endpoint
from variations.engine.limits import LATENCY_SECONDS, Limits
from variations.errors import BadInput, SettingsError
from variations.gate import Gate
from variations.job import Job
from variations.leak_report import DEFAULT_DISTANCE, LeakCheck
from variations.parameters import PARAMETER_NAMES, Parameters
from variations.planning.recipe import Recipe
from variations.planning.sweep import parse_sweep
from variations.splits import SplitRule, parse_ratios, parse_splits
from variations.uris import shown_uri

PREFIX: Final = "VARIATIONS_"
VENDOR_PREFIX: Final = "SEGMIND_"
DEFAULT_FILE: Final = "variations.toml"
# Where no limit is told: what most plans of the vendor's allow.
FIRST_REQUESTS_PER_MINUTE: Final = 60.0
# So much of a value that is refused is shown, before what is wrong with it.
LONGEST_SHOWN: Final = 80
# Not settings themselves: they say where settings are.
_POINTERS: Final = {"VARIATIONS_CONFIG", "VARIATIONS_PROFILE"}


# Settings that are called otherwise than the API's parameter, which manifest, sweep and metadata have.
_OF_PARAMETER: Final = {"num_outputs": "outputs_per_request"}
_KEY: Final = re.compile(r"SG_\w+")
_toml: ContextVar[dict[str, Any]] = ContextVar("toml", default={})  # noqa: B039 - nobody writes to it
_stored: ContextVar[Mapping[str, Any]] = ContextVar("stored", default={})  # noqa: B039 - same


def _comma_separated(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class Settings(BaseSettings):
    """Everything that can be set. `load_settings` reads it, with clearer errors."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, populate_by_name=True, env_ignore_empty=True
    )

    segmind_api_key: SecretStr = Field(
        SecretStr(""), validation_alias="SEGMIND_API_KEY", description="Key of the API, `SG_` and 16 hex digits."
    )
    segmind_base_url: str = Field(
        "https://api.segmind.com", validation_alias="SEGMIND_BASE_URL", description="Root of the API."
    )
    segmind_history_url: str = Field(
        "https://api.spotprod.segmind.com/inference-request/request-history",
        validation_alias="SEGMIND_HISTORY_URL",
        description="The account's request history.",
    )
    segmind_upload_url: str = Field(
        "https://workflows-api.segmind.com/upload-asset",
        validation_alias="SEGMIND_UPLOAD_URL",
        description="Where local source images are uploaded.",
    )

    variations_per_source: options.VariationsPerSource = 1
    sweep: options.SweepText = ""
    max_per_source: options.MaxPerSource = 0
    split_ratios: options.SplitRatios = ""
    group_by: options.GroupBy = ""
    augment_splits: options.AugmentSplits = "train"
    leak_check: options.LeakCheckBy = "images"
    max_leak_distance: options.MaxLeakDistance = DEFAULT_DISTANCE
    fail_on_leak: options.FailOnLeak = False
    retry: options.Retry = "none"
    seed: options.FirstSeed = 0
    aspect_ratio: parameters.AspectRatio = "1:1"
    guidance: parameters.Guidance = 3.0
    megapixels: parameters.Megapixels = "1"
    num_inference_steps: parameters.NumInferenceSteps = 28
    outputs_per_request: parameters.NumOutputs = 1
    output_format: parameters.OutputFormat = "jpg"
    output_quality: parameters.OutputQuality = 80
    disable_safety_checker: parameters.DisableSafetyChecker = False
    uri_column: options.UriColumn = ""
    id_column: options.IdColumn = ""
    max_in_flight: options.MaxInFlight = 0
    requests_per_minute: options.RequestsPerMinute = 0.0
    poll_interval_seconds: options.PollIntervalSeconds = 0.0
    deadline_seconds: options.DeadlineSeconds = 600.0
    max_cost_usd: options.MaxCostUsd = 0.0
    canary: options.Canary = 0
    max_canary_percent: options.MaxCanaryPercent = 20.0
    max_failed_percent: options.MaxFailedPercent = 20.0
    on_flagged: options.OnFlagged = "keep"
    max_rolls: options.MaxRolls = 3
    gate_blank: options.GateBlank = 8.0
    gate_copy: options.GateCopy = 6
    gate_lost: options.GateLost = 0
    gate_twin: options.GateTwin = 6
    gate_size_percent: options.GateSizePercent = 10.0
    gate_sources: options.GateSources = True
    workers: options.Workers = 0
    unknown: options.Unknown = "hold"
    unknown_wait_seconds: options.UnknownWaitSeconds = 3600.0
    wait: options.Wait = False
    gallery: options.Gallery = True

    requests_counted: Literal["all", "submit"] = Field(
        "all", description="Which calls count against the request limit: all of them, or submits alone."
    )
    expected_latency_seconds: float = Field(
        LATENCY_SECONDS, gt=0, le=3600, description="Seconds that a request takes, before it is known better."
    )
    max_images_in_memory: int = Field(16, ge=1, le=1000, description="Images fetched and not yet stored, at once.")
    presign_seconds: int = Field(
        6 * 3600, ge=60, le=7 * 86400, description="Life of the presigned URL of a source in S3."
    )
    price_usd: float = Field(
        0.031, ge=0, allow_inf_nan=False, description="Price of an image, where the API does not report it."
    )
    grace_seconds: float = Field(
        20.0, ge=0, le=3600, description="Seconds that what is in flight has to finish after Ctrl-C or SIGTERM."
    )
    lease_seconds: float = Field(
        60.0, ge=1, le=3600, description="Seconds without a sign of life after which another run may take one over."
    )
    canary_wait_seconds: float = Field(
        3600.0,
        ge=0,
        le=7 * 86400,
        description="Seconds that a deployed run waits, paused in Prefect, for somebody to resume it after its canary.",
    )
    work_deployment: str = Field(
        "work/variations", min_length=1, description="Deployment that workers are runs of, as flow/deployment."
    )
    concurrency_limit: str = Field(
        "", description="Global concurrency limit of Prefect that each process at work takes a slot of; empty: none."
    )
    output_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_comma_separated)] = Field(
        (), description="Hosts that outputs may be fetched from besides the API's own, separated by commas."
    )

    @field_validator("segmind_base_url", "segmind_history_url", "segmind_upload_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("is no http(s) URL")
        if parts.username or parts.password:
            raise ValueError("carries a user name or password; the key has a setting of its own")
        return value.rstrip("/")

    @field_validator("sweep", "split_ratios", "augment_splits")
    @classmethod
    def _is_well_formed(cls, value: str, info: ValidationInfo) -> str:
        parsers = {"sweep": parse_sweep, "split_ratios": parse_ratios, "augment_splits": parse_splits}
        try:
            parsers[str(info.field_name)](value)
        except BadInput as error:
            raise ValueError(error.message.removeprefix(f"{info.field_name}: ")) from None
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the TOML file and the stored settings that `load_settings` was given behind the environment."""
        del dotenv_settings, file_secret_settings
        behind = (InitSettingsSource(settings_cls, init_kwargs=dict(one.get())) for one in (_toml, _stored))
        return init_settings, env_settings, *behind

    @property
    def has_key(self) -> bool:
        """Whether there is a key."""
        return bool(self.segmind_api_key.get_secret_value())

    def endpoint(self) -> Endpoint:
        """Return the API and its key.

        Raises:
            SettingsError: there is no key.
        """
        key = self.segmind_api_key.get_secret_value()
        if not key:
            raise SettingsError("no API key: set SEGMIND_API_KEY (or segmind_api_key in variations.toml)")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise SettingsError("SEGMIND_API_KEY holds a character that no key has; look for a blank or a line's end")
        return Endpoint(key, self.segmind_base_url, self.segmind_history_url, self.segmind_upload_url)

    def limits(self) -> Limits:
        """Return how hard to go."""
        return Limits(
            max_in_flight=self.max_in_flight,
            requests_per_minute=self.requests_per_minute,
            first_requests_per_minute=FIRST_REQUESTS_PER_MINUTE,
            count_all_requests=self.requests_counted == "all",
            poll_interval_seconds=self.poll_interval_seconds,
            expected_latency_seconds=self.expected_latency_seconds,
            deadline_seconds=self.deadline_seconds,
            max_images_in_memory=self.max_images_in_memory,
            presign_seconds=self.presign_seconds,
            price_usd=self.price_usd,
            max_cost_usd=self.max_cost_usd,
            grace_seconds=self.grace_seconds,
            output_hosts=self.output_hosts,
        )

    def job(self, source: str, destination: str) -> Job:
        """Return what a run is to do.

        Raises:
            BadInput: source or destination cannot be one.
        """
        return Job(
            source,
            destination,
            self.recipe(),
            uri_column=self.uri_column or None,
            id_column=self.id_column or None,
            leaks=LeakCheck(self.leak_check == "images", self.max_leak_distance, self.fail_on_leak),
        )

    def recovery(self, destination: str) -> Job:
        """Return a job that makes nothing new.

        Raises:
            BadInput: the destination cannot be one.
        """
        return Job(None, destination, self.recipe())

    def recipe(self) -> Recipe:
        """Return what is wanted of every source."""
        names = [name for name in PARAMETER_NAMES if name != "seed"]
        return Recipe(
            parameters=Parameters(**{name: getattr(self, _OF_PARAMETER.get(name, name)) for name in names}),
            variations_per_source=self.variations_per_source,
            sweep=parse_sweep(self.sweep),
            max_per_source=self.max_per_source,
            splits=SplitRule(parse_ratios(self.split_ratios), self.group_by, parse_splits(self.augment_splits)),
            canary=self.canary,
            max_canary_percent=self.max_canary_percent,
            seed=self.seed or None,
            retry_failed=self.retry == "failed",
            retry_flagged=self.retry == "flagged",
            gate=Gate(
                on_flagged=self.on_flagged,
                max_rolls=self.max_rolls,
                blank=self.gate_blank,
                copy_bits=self.gate_copy,
                lost_bits=self.gate_lost,
                twin_bits=self.gate_twin,
                size_percent=self.gate_size_percent,
                sources=self.gate_sources,
            ),
            resubmit_after_seconds=self.unknown_wait_seconds if self.unknown == "resubmit" else None,
        )


def variable_of(name: str) -> str:
    """Return the environment variable of a setting."""
    return name.upper() if name.startswith(VENDOR_PREFIX.lower()) else PREFIX + name.upper()


def load_settings(
    overrides: Mapping[str, Any] | None = None, *, profile: str | None = None, stored: Mapping[str, Any] | None = None
) -> Settings:
    """Read the settings: `overrides` win over the environment, that over the TOML profile, and that over `stored`.

    Args:
        overrides: what a command or a flow was asked for.
        profile: profile of the TOML file.
        stored: what Prefect's blocks hold, from `config.blocks.stored_settings()`.

    Raises:
        SettingsError: a setting is unknown (with the nearest known name), out of bounds, or of the wrong type; or the
            file or the profile is not there.
    """
    _refuse_unknown_variables(os.environ)
    overrides = overrides or {}
    token = _toml.set(_from_toml(profile or os.environ.get("VARIATIONS_PROFILE"), os.environ.get("VARIATIONS_CONFIG")))
    stored_token = _stored.set(stored or {})
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise SettingsError("; ".join(_explained(problem, overrides, stored or {}) for problem in problems)) from None
    finally:
        _toml.reset(token)
        _stored.reset(stored_token)


def _refuse_unknown_variables(environ: Mapping[str, str]) -> None:
    known = {variable_of(name) for name in Settings.model_fields} | _POINTERS
    for variable in environ:
        if variable.startswith((PREFIX, VENDOR_PREFIX)) and variable not in known:
            raise SettingsError(f"unknown setting {variable} in the environment{_nearest(variable, known)}")


def _from_toml(profile: str | None, named: str | None) -> dict[str, Any]:
    path = Path(named or DEFAULT_FILE)
    if not path.is_file():
        if named or profile:
            reason = "named by VARIATIONS_CONFIG" if named else f"with the profile {profile!r}"
            raise SettingsError(f"there is no file {path} {reason}")
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is no TOML: {error}") from error
    profiles = content.pop("profiles", {})
    if not isinstance(profiles, dict) or not all(isinstance(table, dict) for table in profiles.values()):
        raise SettingsError(f"{path}: a profile is a table, [profiles.NAME]")
    if profile is not None and profile not in profiles:
        raise SettingsError(f"{path} has no profile {profile!r}{_nearest(profile, profiles)}")
    for table, where in ((content, ""), *((profiles[name], f" in [profiles.{name}]") for name in profiles)):
        for name in table:
            if name not in Settings.model_fields:
                raise SettingsError(f"unknown setting {name!r}{where} of {path}{_nearest(name, Settings.model_fields)}")
    return {**content, **(profiles[profile] if profile else {})}


def _nearest(name: str, known: Iterable[str]) -> str:
    # The prefix that all share makes none of them near.
    bare = {one.removeprefix(PREFIX): one for one in sorted(known)}
    for parameter, setting in _OF_PARAMETER.items():
        for spelled, wanted in ((parameter, setting), (parameter.upper(), setting.upper())):
            if name.removeprefix(PREFIX) == spelled and wanted in bare:
                return f"; did you mean {bare[wanted]}?"
    close = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {bare[close[0]]}?"
    return f"; known are {', '.join(bare.values())}" if bare else ""


def _shown(value: Any) -> Any:
    """Return a value for a message: no password in a URL, no key that was put in the wrong place, and not too long."""
    if not isinstance(value, str):
        return value
    shown = _KEY.sub("SG_…", shown_uri(value) if "@" in value else value)
    return shown if len(shown) <= LONGEST_SHOWN else shown[: LONGEST_SHOWN - 1] + "…"


def _explained(problem: ErrorDetails, overrides: Mapping[str, Any], stored: Mapping[str, Any]) -> str:
    location = str(problem["loc"][0])
    name = next((name for name in Settings.model_fields if location in {name, variable_of(name)}), location)
    if name not in Settings.model_fields:
        return f"unknown setting {name!r}{_nearest(name, Settings.model_fields)}"
    label = name if name in overrides or not os.environ.get(variable_of(name)) else variable_of(name)
    shown = "" if name == "segmind_api_key" else f" is {_shown(problem['input'])!r}:"
    message = problem["msg"].removeprefix("Value error, ")
    where = " (in Prefect's block)" if name in stored and stored[name] == problem["input"] else ""
    return f"{label}{where}{shown} {message[0].lower()}{message[1:]}"

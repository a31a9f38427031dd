"""The options of `run` and `plan`: the settings of a run by their own names, None until they are given."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Optional

from cyclopts import Parameter
from pydantic import BaseModel, Field, create_model

from config import Settings
from variations.dates import parsed_day
from variations.errors import BadInput

# In the order in which help and form list them. Hosts, key, price and the like are settings, not options.
RUN_OPTIONS: Final = (
    "variations_per_source",
    "sweep",
    "max_per_source",
    "max_cost_usd",
    "canary",
    "max_canary_percent",
    "split_ratios",
    "group_by",
    "augment_splits",
    "leak_check",
    "max_leak_distance",
    "fail_on_leak",
    "retry",
    "aspect_ratio",
    "megapixels",
    "guidance",
    "num_inference_steps",
    "outputs_per_request",
    "output_format",
    "output_quality",
    "disable_safety_checker",
    "seed",
    "on_flagged",
    "max_rolls",
    "max_failed_percent",
    "workers",
    "wait",
    "gallery",
    "gate_blank",
    "gate_copy",
    "gate_lost",
    "gate_twin",
    "gate_size_percent",
    "gate_sources",
    "uri_column",
    "id_column",
    "requests_per_minute",
    "max_in_flight",
    "poll_interval_seconds",
    "deadline_seconds",
    "unknown",
    "unknown_wait_seconds",
)


def _field(name: str) -> Any:
    setting = Settings.model_fields[name]
    return (
        Optional[setting.annotation],  # noqa: UP045 - what stands there is no plain type, and has no |
        Field(None, description=f"{setting.description} [default: {setting.default!r}]"),
    )


def _sweep_fields() -> dict[str, Any]:
    described = "Values of a parameter that each source is varied with, name=value,value; several make a grid."
    file = "TOML file with a table [grid] or [random], or several [[list]], in place of --sweep."
    return {
        "sweep": (Annotated[list[str] | None, Parameter(negative="")], Field(None, description=described)),
        "sweep_file": (Path | None, Field(None, description=file)),
    }


if TYPE_CHECKING:
    Options = BaseModel
else:
    Options = create_model("Options", **{**{name: _field(name) for name in RUN_OPTIONS}, **_sweep_fields()})

RunOptions = Annotated[Options, Parameter(name="*")]
NO_OPTIONS: Final = Options()


def given(options: BaseModel) -> dict[str, Any]:
    """Return the options that were given, by the names of their settings.

    Raises:
        BadInput: the file of a sweep cannot be read.
    """
    asked = options.model_dump(exclude_none=True)
    file = asked.pop("sweep_file", None)
    if "sweep" in asked:
        asked["sweep"] = "; ".join(asked["sweep"])
    if file is None:
        return asked
    if "sweep" in asked:
        raise BadInput("sweep: --sweep and --sweep-file are two ways to say it: give one")
    try:
        return {**asked, "sweep": file.read_text(encoding="utf-8")}
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"sweep: {file} cannot be read: {error}") from error


def day_of(text: str) -> date:
    """Return the day that was given, else today, in UTC.

    Raises:
        BadInput: it is no day.
    """
    return parsed_day(text) if text else datetime.now(UTC).date()

"""What did not become an image, and why: counted by reason, with a few of each, and what can be done about it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from variations import errors
from variations.models import Outcome
from variations.texts import markdown_text

SAMPLES: Final = 10
SAMPLES_SHOWN: Final = 3
_LONGEST_SAMPLE: Final = 200

_AGAIN: Final = "start again with retry = failed"
_BY_ITSELF: Final = "nothing: the next run, or recover, looks for it; it is not submitted again by itself"
_LEFT_ALONE: Final = "leave it: another request would pay again for the other images of its request"
# Of these another try could help, were it not for the other images of the request.
_OF_ONE_IMAGE: Final = (errors.OutputMissing.code, errors.OutputInvalid.code, errors.RequestGone.code)
_TO_DO: Final = {
    errors.InvalidRequest.code: "change the parameter, or the row of the manifest, that the text names",
    errors.SourceUnavailable.code: f"make the source readable for the API, then {_AGAIN}",
    errors.OutputRefused.code: "if its host can be trusted, name it in the setting output_hosts; then recover",
}


@dataclass(slots=True)
class Failures:
    """Images that have one reason in common: how many, and the first few of them.

    Attributes:
        code: the reason.
        status: `failed`, or `unknown`.
        can_retry: of failed ones, whether trying them again can help.
        samples: `variation_id`, `source_uri`, `request_id` and `error` of a few.
    """

    code: str
    status: str
    can_retry: bool | None
    count: int = 0
    samples: list[dict[str, str | None]] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count an image."""
        self.count += 1
        if len(self.samples) < SAMPLES:
            self.samples.append(
                {
                    "variation_id": outcome.variation.variation_id,
                    "source_uri": outcome.variation.source.public_uri,
                    "request_id": outcome.request_id,
                    "error": outcome.error,
                }
            )

    def merge(self, other: "Failures") -> None:
        """Count what another one counts, too."""
        self.count += other.count
        self.samples = (self.samples + other.samples)[:SAMPLES]

    def again(self) -> str:
        """Say whether it can be had yet."""
        if self.status == "unknown":
            return "it may be there"
        return "no" if self.can_retry is False else "yes"

    def to_do(self) -> str:
        """Say what a person can do."""
        if self.code in _TO_DO:
            return _TO_DO[self.code]
        if self.status == "unknown":
            return _BY_ITSELF
        if self.can_retry is False and self.code in _OF_ONE_IMAGE:
            return _LEFT_ALONE
        if self.can_retry is False:
            return "leave it, or try another source: the same request would be refused again"
        return _AGAIN


def failure_table(
    failures: Iterable[Mapping[str, Any]], *, rejected: int = 0, rejected_rows: Iterable[str] = ()
) -> list[dict[str, str | int]]:
    """Return a table for people, whose texts are Markdown, as Prefect's UI takes them: a row a reason.

    Args:
        failures: `Failures` as they stand in a receipt.
        rejected: rows of the manifest that could not be used.
        rejected_rows: what is wrong with the first of them.
    """
    rows: list[dict[str, str | int]] = []
    for one in (Failures(**values) for values in failures):
        samples = [f"{sample['source_uri']}: {sample['error']}" for sample in one.samples]
        rows.append(_row(f"{one.status}: {one.code}", one.count, one.again(), one.to_do(), samples))
    if rejected:
        to_do = "mend these rows of the manifest: the next run takes them"
        rows.append(_row("rejected: row of the manifest", rejected, "no", to_do, list(rejected_rows)))
    return rows


def as_values(failures: Iterable[Failures]) -> list[dict[str, Any]]:
    """Return them as JSON values, the most frequent first."""
    return [asdict(one) for one in sorted(failures, key=lambda one: -one.count)]


def _row(reason: str, count: int, again: str, to_do: str, samples: list[str]) -> dict[str, str | int]:
    # They hold what a manifest does, a picture of somebody's that the browser would fetch, say.
    shown = " · ".join(markdown_text(sample[:_LONGEST_SAMPLE]) for sample in samples[:SAMPLES_SHOWN])
    return {"reason": reason, "images": count, "again?": again, "what to do": to_do, "samples": shown}

"""The nouns of the package: frozen values that pass from one stage to the next."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from variations.parameters import Parameters


@dataclass(frozen=True, slots=True)
class Source:
    """A row of the manifest: an image that is to be varied.

    Attributes:
        row: its number in its manifest, counted from 1, a header line not counted.
        source_id: the manifest's id for it, else its URI without the signature of a presigned URL.
        uri: where the image lies, as given. It may carry a signature, so it is left out of every `repr`.
        public_uri: `uri` without the signature: the one for logs, keys and tables.
        version: the manifest's `version` of it, which makes a new identity.
        has_id: whether `source_id` was given (then it is the identity, and the URI may change).
        overrides: API parameters that this row sets for itself, already validated.
        labels: every other column of the row, by its own name.
        split: the part of a training set that it belongs to, where there are such parts.
        group: what it has in common with those that belong to the same part, if the manifest says it.
    """

    row: int
    source_id: str
    uri: str = field(repr=False)
    public_uri: str
    version: str | None = None
    has_id: bool = False
    overrides: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedSource:
    """A row of the manifest that cannot be used, and why.

    `source_id` and `public_uri` are there as far as the row had them.
    """

    row: int
    reason: str
    source_id: str | None = None
    public_uri: str | None = None
    labels: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variation:
    """One source with one full set of parameters, seed included: the unit that is paid for.

    `variation_id` is 32 hex digits; `number` counts a source's variations from 0; `attempt` counts from 1 how
    often it was wanted, and is more than 1 only where a failed one is tried again by request, or an unknown one is
    submitted again by a setting; `before` then says where the attempt before is written down. `roll` counts from 0
    how often its place was filled anew, each time with another seed, as what was made for it was flagged; `rolled_from`
    is then the id of the one before. `paid_before_usd` is what the attempts before cost, or perhaps did.
    """

    variation_id: str
    source: Source
    number: int
    parameters: Parameters
    attempt: int = 1
    before: "Attempt | None" = None
    roll: int = 0
    rolled_from: str | None = None
    paid_before_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where an attempt at a variation is written down: the run, its shard, and the request, if one was accepted."""

    run_id: str
    shard: int
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The API's answer to a submit: from here on it is paid for."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Metrics:
    """What the API reports of a request; seconds and USD, None where it was silent."""

    cost_usd: float | None = None
    remaining_credits: float | None = None
    inference_seconds: float | None = None
    queue_seconds: float | None = None
    total_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class OutputFile:
    """One image of a finished request, at a public URL that lives for about 7 days."""

    url: str
    content_type: str | None = None
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Queued:
    """Accepted and waiting."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Processing:
    """Being made."""

    request_id: str


@dataclass(frozen=True, slots=True)
class Completed:
    """Done. `outputs` is empty in an answer to a status request, which carries none."""

    request_id: str
    outputs: tuple[OutputFile, ...] = ()
    metrics: Metrics = Metrics()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The inference ran and failed; nothing was charged."""

    request_id: str
    error: str
    metrics: Metrics = Metrics()


Status = Queued | Processing | Completed | Failed


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as it lies in the dataset.

    `file_name` is its key there; `notes` say what is odd about it (an unexpected size).
    """

    file_name: str
    width: int
    height: int
    bytes: int
    format: str
    sha256: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """What was measured of an image, and the verdict on it: `passed`, or `flagged: ` and why.

    Attributes:
        contrast: between its darkest and its lightest part, in levels of 255.
        phash: perceptual hash, 16 hex digits.
        source_distance: bits of 64 in which it differs from its source; None if that could not be looked at, or if one
            of the two is blank, and all that is blank hashes alike.
        sibling_distance: bits in which it differs from the nearest of its source's other images; None without one.
    """

    contrast: float
    phash: str
    source_distance: int | None = None
    sibling_distance: int | None = None
    verdict: str = "passed"


OutcomeStatus = Literal["kept", "rejected", "failed", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOutcome:
    """What became of one image of a request.

    Attributes:
        output_index: which image of the request, from 0.
        status: `rejected` was dropped by the quality gate, or failed beside such a one and is made again with it.
        image: there exactly where `status` is `kept`.
        measures: of what was made; None of images that an older version made.
        can_retry: of what failed, whether trying it again can help.
        redux_image: the source as the API was given it, without a signature.
        output_url: where the API put the image; the file lives there for about 7 days.
        polls: status requests that its request took.
        cost_usd: its share of what its request cost; where the API did not say, of the price that was set.
    """

    output_index: int
    status: OutcomeStatus
    image: StoredImage | None = None
    measures: Measures | None = None
    error_code: str | None = None
    error: str | None = None
    can_retry: bool | None = None
    redux_image: str | None = None
    request_id: str | None = None
    output_url: str | None = None
    submitted_at: datetime | None = None
    completed_at: datetime | None = None
    metrics: Metrics = Metrics()
    polls: int = 0
    cost_usd: float = 0.0

    @property
    def is_dropped(self) -> bool:
        """Whether it was made, and paid, and dropped by the quality gate."""
        return self.status == "rejected" and self.measures is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(ImageOutcome):
    """What became of one wanted image: a row of the metadata."""

    variation: Variation

    def without_variation(self) -> ImageOutcome:
        """Return it as a journal holds it, under its variation's id."""
        return ImageOutcome(**{one.name: getattr(self, one.name) for one in fields(ImageOutcome)})


@dataclass(frozen=True, slots=True)
class Credits:
    """The account's balance in USD, paid and free."""

    paid: float
    free: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.paid + self.free


@dataclass(frozen=True, slots=True)
class GeneratedImage:
    """The blocking v1 call's answer: the image itself and what its headers say of it."""

    content: bytes = field(repr=False)
    content_type: str | None
    request_id: str | None
    cost_usd: float | None
    remaining_credits: float | None
    generation_seconds: float | None
    seed: int | None


@dataclass(frozen=True, slots=True)
class HistoryRecord:
    """One request as the account's own history shows it; it lands there late.

    `inputs` are the request's fields as sent (`request_body`), `output_urls` of all its rows.
    """

    request_id: str
    status: str
    model: str | None
    cost_usd: float | None
    inputs: dict[str, Any] = field(repr=False)
    output_urls: tuple[str, ...]
    latency_seconds: float | None
    created_at: datetime | None
    error: str | None

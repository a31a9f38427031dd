"""Every error of the package, grouped by what the caller does about it.

    VariationsError
    ├── Repeatable                it was not done, and it is safe to do again
    │   ├── RateLimited             429; says when the limit ends
    │   └── ServiceUnavailable      5xx, a lost answer to a GET
    │       └── Unreachable           no connection: it never left
    ├── ItemError                 give up on this item, go on with the others
    │   ├── InvalidRequest          400 and 406: the API refuses a value
    │   ├── InferenceFailed         the inference ran and failed
    │   ├── SourceUnavailable       the source image cannot be handed to the API
    │   ├── OutputRefused           the output's address or size is not one we fetch
    │   ├── OutputUnavailable       the output cannot be fetched
    │   ├── OutputMissing           the API made fewer images than were asked for
    │   ├── OutputInvalid           what was fetched does not decode as an image
    │   ├── Flagged                 the quality gate flagged the image, and it was dropped
    │   └── ItemUnknown             it may be paid for, and its image is not here
    │       ├── SubmitUnknown         the answer to a submit was lost
    │       │   └── NotInHistory        and the request history does not show it
    │       ├── InferenceTimeout      accepted, and not done by the deadline
    │       ├── Interrupted           submitted, and this process was ended before it was done
    │       └── RequestGone           accepted, and the API no longer knows it
    ├── RunError                  stop the run: every item would fail the same way
    │   ├── Unauthorized            401: the key is missing or refused
    │   ├── Forbidden               403: the model is not allowed for this account
    │   ├── ModelUnavailable        404 on submit, 410: no such model
    │   ├── UnexpectedAnswer        405, or an answer that is not the contract
    │   ├── StorageError            the object store says no
    │   │   ├── BucketNotFound
    │   │   ├── ObjectNotFound
    │   │   ├── AccessDenied
    │   │   ├── CredentialsRefused
    │   │   ├── PreconditionFailed    somebody else replaced the object first
    │   │   ├── StorageUnavailable
    │   │   ├── StoreUnsafe           it ignores conditions on writes: it cannot keep two runs apart
    │   │   └── JournalDamaged        what lies there is no journal of ours
    │   ├── Replaced                somebody else took this run over, and works on it now
    │   └── BadInput                what the user gave cannot be used
    │       ├── ManifestError
    │       ├── NoDataset             no run has ever written there
    │       ├── LeakFound             sources leak from one split into another, and must not
    │       └── SettingsError
    └── RunPaused                 ask a person; the same command goes on afterwards
        ├── InsufficientCredits     406: the balance does not cover a request
        ├── SpendLimitReached       406: the team's limit is used up
        ├── BudgetReached           what the run may cost at most is, or would be, used up
        ├── CanaryPaused            the first images are not good enough to make the rest
        ├── DatasetBusy             another run works on this dataset
        │   └── LookedAfter         and lives, so that nothing has to be recovered
        ├── NothingPasses           image after image was flagged, and dropped
        ├── ServiceDown             the API cannot be reached, or failed many submits in a row
        ├── StoppedByUser           Ctrl-C or SIGTERM
        └── RunOver                 the run that this machine helps with is closed

`code` is the short, stable name that lands in the metadata's `error_code`.
"""

import re
from typing import Any, ClassVar, Final

_BLOCKED: Final = re.compile(r"nsfw|safety|sensitive|moderat|content polic|flagged|\brai\b", re.IGNORECASE)


class VariationsError(Exception):
    """Base of every error that this package raises on purpose.

    Args:
        message: one line that names the thing and what to do.
        request_id: the API request that it concerns, if there is one.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} [request {self.request_id}]" if self.request_id else self.message


class Repeatable(VariationsError):
    """It was not done, and doing it again cannot pay twice."""

    code = "unavailable"


class RateLimited(Repeatable):
    """429: not accepted, not billed.

    `wait_seconds` is how long the limit still lasts by the API's own word (`x-rate-limit-reset-at-utc` against its
    `date`), or None when it gave none.
    """

    code = "rate_limited"

    def __init__(self, message: str, *, wait_seconds: float | None = None, request_id: str | None = None) -> None:
        super().__init__(message, request_id=request_id)
        self.wait_seconds = wait_seconds


class ServiceUnavailable(Repeatable):
    """A 5xx that proves nothing was accepted, or a lost answer to a GET."""

    code = "service_unavailable"


class Unreachable(ServiceUnavailable):
    """No connection could be made: the request never left."""

    code = "unreachable"


class ItemError(VariationsError):
    """This item cannot be had; the others can. `can_retry` says whether trying it again can help."""

    code = "item_error"
    can_retry: bool = True


class InvalidRequest(ItemError):
    """400 or 406: the API refuses a value of this request."""

    code = "invalid_request"
    can_retry = False


class InferenceFailed(ItemError):
    """The inference ran and failed (the name is the vendor SDK's). Nothing was charged.

    `detail` is the API's own text. It alone tells a content or safety block from a fault of the service.
    """

    code = "inference_failed"

    def __init__(self, detail: str, *, request_id: str | None = None) -> None:
        super().__init__(detail or "the API gave no reason", request_id=request_id)
        self.detail = detail
        # The same seed makes the same image, and the same image is blocked again.
        self.can_retry = not _BLOCKED.search(detail)


class SourceUnavailable(ItemError):
    """The source image cannot be read, signed or uploaded."""

    code = "source_unavailable"


class OutputRefused(ItemError):
    """The output's address, size or redirects are not ones that are fetched."""

    code = "output_refused"


class OutputUnavailable(ItemError):
    """The output file cannot be fetched."""

    code = "output_unavailable"


class OutputMissing(ItemError):
    """The API made fewer images than were asked for."""

    code = "output_missing"


class OutputInvalid(ItemError):
    """What was fetched is not an image that fully decodes."""

    code = "output_invalid"


class Flagged(ItemError):
    """The quality gate flagged the image, and it was dropped. It is paid for."""

    code = "flagged"


class ItemUnknown(ItemError):
    """It may be paid for, and its image is not here: counted as spent, and looked for by every later run."""

    code = "unknown"


class SubmitUnknown(ItemUnknown):
    """The answer to a submit was lost: it may have been accepted and billed."""

    code = "submit_unknown"


class NotInHistory(SubmitUnknown):
    """The answer to a submit was lost, and the request history was read and does not show it, or not yet."""

    code = "not_in_history"


class InferenceTimeout(ItemUnknown):
    """Accepted, and not done by the deadline (the name is the vendor SDK's)."""

    code = "timeout"

    def __init__(self, request_id: str, elapsed_seconds: float) -> None:
        super().__init__(f"not done after {elapsed_seconds:.0f} s", request_id=request_id)
        self.elapsed_seconds = elapsed_seconds


class Interrupted(ItemUnknown):
    """Submitted, and this process was ended before it was done."""

    code = "interrupted"


class RequestGone(ItemUnknown):
    """404 on a poll: the API knows no such request, or forgot it an hour after submission."""

    code = "request_gone"


class RunError(VariationsError):
    """Every further item would fail the same way: nothing more is submitted."""

    code = "run_error"


class Unauthorized(RunError):
    """401: no key arrived, or the key was refused."""

    code = "unauthorized"


class Forbidden(RunError):
    """403: the model is not allowed for this account."""

    code = "forbidden"


class ModelUnavailable(RunError):
    """404 on submit or 410: the model is unknown or retired."""

    code = "model_unavailable"


class UnexpectedAnswer(RunError):
    """405, or an answer outside the contract: a programming error, here or there."""

    code = "unexpected_answer"


class StorageError(RunError):
    """The object store says no; the message names the URI."""

    code = "storage_error"


class BucketNotFound(StorageError):
    """The bucket (or the local folder) is not there."""

    code = "bucket_not_found"


class ObjectNotFound(StorageError):
    """The object (or the file) is not there."""

    code = "object_not_found"


class AccessDenied(StorageError):
    """The credentials are good and do not allow this."""

    code = "access_denied"


class CredentialsRefused(StorageError):
    """No credentials were found, or the store does not accept them."""

    code = "credentials_refused"


class PreconditionFailed(StorageError):
    """The object is no longer the one that was to be replaced."""

    code = "precondition_failed"


class StorageUnavailable(StorageError):
    """The store does not answer, or broke off every time it was asked."""

    code = "storage_unavailable"


class StoreUnsafe(StorageError):
    """The store ignores `If-None-Match` or `If-Match`: two runs at once could not be told from one."""

    code = "store_unsafe"


class JournalDamaged(StorageError):
    """An object in the place of a journal's is not one."""

    code = "journal_damaged"


class Replaced(RunError):
    """Somebody else took this run over: its journal has another writer now, and this one submits nothing more."""

    code = "replaced"


class BadInput(RunError):
    """What the user gave cannot be used; nothing was paid."""

    code = "bad_input"


class ManifestError(BadInput):
    """The manifest is missing, empty or has no usable column."""

    code = "manifest_error"


class NoDataset(BadInput):
    """No run has ever written to the destination."""

    code = "no_dataset"


class LeakFound(BadInput):
    """Sources leak from one split into another, and the run was asked to submit nothing then; `plan` tells it all."""

    code = "leak_found"
    plan: Any = None


class SettingsError(BadInput):
    """A setting is unknown or out of range."""

    code = "settings_error"


class RunPaused(VariationsError):
    """A person has to do something; the same command then goes on where this one stopped."""

    code = "paused"


class InsufficientCredits(RunPaused):
    """406: the balance does not cover another request."""

    code = "insufficient_credits"


class SpendLimitReached(RunPaused):
    """406: the team's spend limit is used up."""

    code = "spend_limit_reached"


class BudgetReached(RunPaused):
    """`max_cost_usd` does not cover another request, or would not cover the run."""

    code = "budget"


class CanaryPaused(RunPaused):
    """Too many of the images that are made and looked at before the rest failed, are unknown or flagged."""

    code = "canary"


class DatasetBusy(RunPaused):
    """Another run works on this dataset, and showed signs of life a moment ago."""

    code = "dataset_busy"


class LookedAfter(DatasetBusy):
    """Nothing has to be recovered: the run that works on this dataset lives, and looks after what is open itself."""

    code = "looked_after"


class ServiceDown(RunPaused):
    """The API could not be reached, or failed, for many submits in a row: the others are left for later."""

    code = "service_down"


class NothingPasses(RunPaused):
    """Image after image was flagged and dropped: all of it is paid, and none of it is there."""

    code = "nothing_passes"


class StoppedByUser(RunPaused):
    """Ctrl-C or SIGTERM: nothing more was submitted; what was in flight was finished, or is left to the next run."""

    code = "stopped_by_user"


class RunOver(RunPaused):
    """The run that this machine helps with is closed, or the one that planned it is gone."""

    code = "run_over"


def of_code(code: str, message: str) -> "RunError | RunPaused":
    """Return why a run was stopped, as another machine wrote it down; what is not known is a `RunError`."""
    kinds: list[type[VariationsError]] = [RunError, RunPaused]
    for kind in kinds:
        if kind.code == code and issubclass(kind, RunError | RunPaused):
            return kind(message)
        kinds += kind.__subclasses__()
    return RunError(message)

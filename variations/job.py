"""What a run is to do."""

from dataclasses import dataclass, field

from variations.errors import BadInput
from variations.leak_report import LeakCheck
from variations.planning.recipe import Recipe
from variations.storage import open_storage
from variations.uris import public_uri, shown_uri


@dataclass(frozen=True, slots=True)
class Job:
    """What a run is to do: the manifest it reads, the dataset it grows, and what it makes of each source.

    Without a source it makes nothing new, and only looks after what earlier runs left open. `uri_column` and
    `id_column` name columns of the manifest where their names do not tell; `leaks` says what is looked for where it is
    split.

    Raises:
        BadInput: a URI is none, begins or ends with a blank, or carries a signature or credentials, which would show in
            plans, receipts and logs; or the dataset would lie among its own sources, and its images be taken for them.
    """

    source: str | None
    destination: str
    recipe: Recipe = field(default_factory=Recipe)
    uri_column: str | None = None
    id_column: str | None = None
    leaks: LeakCheck = field(default_factory=LeakCheck)

    def __post_init__(self) -> None:
        """Refuse what would do harm."""
        for name, uri in (("source", self.source), ("destination", self.destination)):
            if uri is not None:
                refuse_secrets(uri, name=f"the {name}")
        destination = _opened(self.destination, name="destination")
        if self.source is None:
            return
        source = _opened(self.source, name="source")
        if f"{destination}/".startswith(f"{source}/"):
            raise BadInput(
                f"the destination {self.destination} lies within the source {self.source}: the next run would take the "
                "images of this one for sources; name a place beside it"
            )

    @property
    def is_source_local(self) -> bool:
        """Whether its manifest is a file of this machine; no other one may name such files as sources."""
        return self.source is not None and open_storage(self.source).uri.startswith("file:")


def _opened(uri: str, *, name: str) -> str:
    # One that was pasted with a blank is another dataset, in which all would be made, and paid for, once more.
    if uri != uri.strip():
        raise BadInput(f"{name}: {uri!r} begins or ends with a blank")
    try:
        return open_storage(uri).uri
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None


def refuse_secrets(uri: str, *, name: str) -> None:
    """Refuse a place that would give a secret away wherever it is shown.

    Raises:
        BadInput: it carries a signature or credentials; the message begins with `name`, and does not show them.
    """
    if _has_secret(uri):
        raise BadInput(
            f"{name} carries a signature or credentials ({shown_uri(uri)}): name the place alone, "
            "credentials are boto3's to find"
        )


def _has_secret(uri: str) -> bool:
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme.lower() == "file":
        return False
    # In a key a `?` is a letter, but who pasted a signed URL with s3:// before it did not mean one.
    return "@" in rest.partition("/")[0] or public_uri(f"https://{rest}") != f"https://{rest}"

"""What a journal says, record by record; a record is one line of JSON.

A variation's records come in this order: `Intended` before its POST leaves, `Accepted` once it has a request id,
`Settled` when it is known what became of its images. `Withdrawn` takes an intent back.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from variations.models import Attempt, ImageOutcome

FORMAT: Final = 1

FoundIn = Literal["answer", "note", "history"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """The variation is about to be submitted: from here on it may be paid for.

    `redux_image` is the source as it is sent, without a signature: by it and the parameters the request is found in
    the API's history. `before` is the attempt that this one repeats. What was not planned, as it takes the place of a
    variation that was flagged, names that in `rolled_from`, and its own `seed`.
    """

    variation_id: str
    attempt: int
    redux_image: str | None = None
    before: Attempt | None = None
    rolled_from: str | None = None
    seed: int | None = None
    kind: Literal["intended"] = "intended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """It was not submitted after all, or not accepted: it is still to be made."""

    variation_id: str
    reason: str
    kind: Literal["withdrawn"] = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """It has a request id, `found_in` the answer to its POST, a replaced writer's note, or the request history."""

    variation_id: str
    request_id: str
    found_in: FoundIn = "answer"
    kind: Literal["accepted"] = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of its images. While one of them is `unknown`, it is held, and looked for again."""

    variation_id: str
    images: tuple[ImageOutcome, ...]
    kind: Literal["settled"] = "settled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Whoever wrote this is done with the shard, and its rows are stored. `tally` is what it came to."""

    tally: dict[str, Any]
    kind: Literal["ended"] = "ended"


Record = Intended | Withdrawn | Accepted | Settled | Ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line of an object: whose it is. `writer` is random, so that a writer knows its own objects."""

    writer: str
    number: int
    format: int = FORMAT


_RECORD: Final[TypeAdapter[Record]] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])
_HEADER: Final = TypeAdapter(Header)


@dataclass(frozen=True, slots=True)
class Group:
    """The content of one object: records that were committed together."""

    header: Header
    records: tuple[Record, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """Return it as JSON lines."""
        return content_of(self.header, lines_of(self.records))

    @classmethod
    def of_bytes(cls, content: bytes) -> "Group":
        """Read JSON lines.

        Raises:
            ValueError: they are no journal's, or that of a later version.
        """
        first, *lines = content.removesuffix(b"\n").split(b"\n")
        try:
            header = _HEADER.validate_json(first)
        except ValidationError:
            raise ValueError("it does not begin as a journal does") from None
        if header.format != FORMAT:
            raise ValueError(f"it is a journal of format {header.format}, of which this version knows {FORMAT} alone")
        try:
            return cls(header, tuple(_RECORD.validate_json(line) for line in lines))
        except ValidationError as error:
            raise ValueError(f"it holds a line that is no record ({error.errors()[0]['msg']})") from None


def content_of(header: Header, lines: Iterable[bytes]) -> bytes:
    """Return the content of an object."""
    return b"\n".join([_HEADER.dump_json(header), *lines, b""])


def lines_of(records: Iterable[Record]) -> list[bytes]:
    """Return records as lines of JSON, without their ends."""
    return [_line(record) for record in records]


def _line(record: Record) -> bytes:
    try:
        return _RECORD.dump_json(record, exclude_none=True)
    except PydanticSerializationError:
        # Half a surrogate pair, which JSON can spell and UTF-8 cannot: it is written as the text of its escape.
        return json.dumps(_encodable(_RECORD.dump_python(record, exclude_none=True)), default=_isoformat).encode()


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(one) for name, one in value.items()}
    return [_encodable(one) for one in value] if isinstance(value, list | tuple) else value


def _isoformat(value: datetime) -> str:
    return value.isoformat()

"""What the rest of the package asks of an object store, and nothing more.

A `Storage` is rooted at a prefix; every `key` is relative to it and uses `/`. A key that is empty, absolute, ends in
`/` or has `.` or `..` as a folder is refused with `BadInput` by every method but `uri_of`. Both backends raise the
errors of `variations.errors.StorageError`, with the URI in the message and without a secret in it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a listing or a head request shows it.

    `modified` is the store's own clock, never this machine's. `etag` is opaque: compare it, hand it back to
    `replace`, read nothing into it.
    """

    key: str
    size: int
    modified: datetime
    etag: str


class Storage(Protocol):
    """A prefix of an object store."""

    @property
    def uri(self) -> str:
        """The root, as `s3://bucket/prefix` or `file:///folder`, without a trailing slash."""

    def uri_of(self, key: str) -> str:
        """Return the whole URI of a key."""

    def list(self, prefix: str = "") -> AsyncIterator[Entry]:
        """Yield every object whose key starts with `prefix`, in key order, page by page."""

    def folders(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the names of the folders directly below `prefix`, in the order of their UTF-8, without a slash.

        What lies in them is not walked. A folder is listed if an object lies in it, at any depth; one without may be
        listed, too, if the store keeps such (an empty local folder, the mark of an S3 console).

        Args:
            prefix: the folder to look in: empty, or something that ends in `/`. One that is not there has none.

        Raises:
            BadInput: the prefix does not end in `/`.
        """

    async def now(self) -> datetime:
        """Return the store's own time in UTC, to the second or finer: the `Entry.modified` of an object written now.

        Whoever judges the age of an object subtracts from this, not from this machine's time, which may be off.
        """

    async def head(self, key: str) -> Entry | None:
        """Return what the store says of one object, or None if there is none."""

    async def exists(self, key: str) -> bool:
        """Return whether the object is there."""

    async def get(self, key: str) -> bytes:
        """Return the whole object; a body that breaks off is fetched again.

        Raises:
            ObjectNotFound: there is no such object.
        """

    async def get_to_file(self, key: str, path: Path) -> None:
        """Write the object to `path`, whole or not at all, in bounded memory."""

    async def put(
        self,
        key: str,
        data: bytes | Path,
        *,
        content_type: str | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Entry:
        """Write the object, replacing what is there; a `Path` is streamed from the file."""

    async def put_if_absent(self, key: str, data: bytes, *, content_type: str | None = None) -> Entry | None:
        """Write the object if there is none, atomically; None says that somebody was first.

        "Somebody" can be this very call, if the store's answer to it was lost: read the object to know its writer.
        """

    async def replace(self, key: str, data: bytes | Path, *, etag: str, content_type: str | None = None) -> Entry:
        """Write the object if it is still the one with `etag`, atomically.

        Raises:
            PreconditionFailed: it has been replaced or removed since; by this very call, if its answer was lost.
        """

    async def delete(self, key: str) -> None:
        """Remove the object; removing what is not there is no error."""

    async def presigned_url(self, key: str, *, expires_seconds: int) -> str:
        """Return a URL that fetches the object without credentials until it expires.

        The URL carries a signature: it is handed to the API and never logged, stored or put in an error.

        Raises:
            StorageError: the backend has no such URLs (local files).
        """

    async def aclose(self) -> None:
        """Release what is this storage's alone; what storages share is released by `close_clients`."""

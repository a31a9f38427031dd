"""Find out whether a store keeps conditional writes apart, before anything is paid."""

from typing import Final

from variations import errors
from variations.layout import PROBE_KEY
from variations.storage import Storage

_WRONG_ETAG: Final = "0" * 32


async def check_conditional_writes(storage: Storage) -> None:
    """Write an object that is there already only if it is absent, and replace it under a wrong ETag.

    Some look-alikes of S3 ignore `If-None-Match` and `If-Match`. On such a store two runs at once would both believe
    that they are alone, and pay twice.

    Raises:
        StoreUnsafe: the store took a write that it had to refuse.
        StorageError: the store says no.
    """
    # After the first time it is there, and stays: then the first try tells.
    if await storage.put_if_absent(PROBE_KEY, b"probe") and await storage.put_if_absent(PROBE_KEY, b"probe"):
        raise _unsafe(storage, "If-None-Match")
    try:
        await storage.replace(PROBE_KEY, b"probe", etag=_WRONG_ETAG)
    except errors.PreconditionFailed:
        return
    raise _unsafe(storage, "If-Match")


def _unsafe(storage: Storage, header: str) -> errors.StoreUnsafe:
    return errors.StoreUnsafe(
        f"{storage.uri}: this store ignores {header} on a PUT, so it cannot keep two runs from paying for the same "
        "image; nothing was submitted. Use one that honours conditional writes, as Amazon S3, Ceph and MinIO do"
    )

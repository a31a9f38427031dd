"""The journal of one shard, as its writers and readers open it."""

from typing import Any

from tests.variations.chaos.store import Store
from variations.layout import journal_key, journal_prefix
from variations.ledger.journal import Journal
from variations.ledger.records import Group

RUN = "20260101T000000Z-abcdef"
SHARD = 3


def key(number: int) -> str:
    """Return the key of an object of the journal."""
    return journal_key(RUN, SHARD, number)


def journal(storage: Any, writer: str = "a", **options: Any) -> Journal:
    """Return the journal, as a writer sees it."""
    return Journal(storage, run_id=RUN, shard=SHARD, writer=writer, **options)


async def claimed(storage: Any, writer: str = "a", **options: Any) -> Journal:
    """Return a journal that a writer has claimed."""
    made = journal(storage, writer, **options)
    await made.claim()
    return made


async def replayed(storage: Any) -> Journal:
    """Return the journal, as anybody reads it."""
    reader = journal(storage, "reader")
    await reader.replay()
    return reader


def group_of(store: Store, number: int) -> Group:
    """Return what lies in the store under a number."""
    return Group.of_bytes(store.get(key(number)))


def writers(store: Store) -> list[str]:
    """Return who wrote each object."""
    found = [Group.of_bytes(store.get(name)).header.writer for name in store.keys(journal_prefix(RUN, SHARD))]
    return [name.rpartition(".")[0] for name in found]

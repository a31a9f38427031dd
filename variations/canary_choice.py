"""A canary: a few variations, spread over all that a run is to make, which are made and looked at before the rest.

Which ones they are is written down beside the plan. A run whose canary is not good enough pauses, and so does the next
one, for it looks at the same ones again and pays for none of them: until a run without a canary, or somebody who looked
at it, goes on with the rest. What was let go on is written down, too; the run after that has a canary of its own.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from variations.errors import JournalDamaged, ObjectNotFound
from variations.layout import canary_key, canary_said_key
from variations.planned import last_runs, read_planned
from variations.storage import Storage
from variations.texts import json_bytes

logger = logging.getLogger(__name__)

Said = Literal["passed", "allowed"]
_GOLDEN_RATIO: Final = (5**0.5 - 1) / 2


def spread(count: int, *, among: int) -> list[int]:
    """Return so many numbers below `among`, evenly spread, in their order: one in each of `count` equal parts.

    Where in its part each lies differs, always in the same way: steps of one length would meet the same setting of a
    sweep again and again.
    """
    count = min(count, among)
    parts = [(part * among // count, (part + 1) * among // count) for part in range(count)]
    return [low + int((part * _GOLDEN_RATIO + 0.5) % 1 * (high - low)) for part, (low, high) in enumerate(parts)]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The variations of a run that are its canary.

    Attributes:
        ids: all of them.
        rows: where those that are to be made lie among all that are, in their order.
    """

    ids: tuple[str, ...] = ()
    rows: tuple[int, ...] = ()


def choose(spool: Path, count: int, *, first: Iterable[str] = ()) -> Chosen:
    """Choose a run's canary; synchronous, for a thread.

    Args:
        spool: the variations that are to be made; there are some.
        count: how many are asked for.
        first: ids of wanted ones, to be made or there already, that are in it whatever their number.
    """
    waiting = list(first)
    ids = pq.read_table(spool, columns=["variation_id"]).column("variation_id")
    again = np.flatnonzero(pc.is_in(ids, pa.array(waiting, pa.string())).to_numpy())
    others = np.delete(np.arange(len(ids)), again)
    new = others[spread(max(0, count - len(waiting)), among=len(others))]
    return Chosen((*waiting, *ids.take(pa.array(new)).to_pylist()), tuple(sorted([*again.tolist(), *new.tolist()])))


async def read_waiting(storage: Storage, source: str) -> list[str]:
    """Return the ids of the canary of the last run over a manifest, if nobody let that go on.

    Raises:
        StorageError: the store says no, or what lies there is not what a run of ours wrote.
    """
    for run_id in await last_runs(storage):
        try:
            planned = await read_planned(storage, run_id)
        except ObjectNotFound:
            continue
        except JournalDamaged as error:
            # What one run left must not keep every later one from working; each has a canary of its own.
            logger.warning("whether the run %s left a canary that waits is not known: %s", run_id, error)
            continue
        # One that was closed before it had planned anything, or of another manifest.
        if planned is None or planned.plan.source != source:
            continue
        if not planned.plan.canary or await storage.exists(canary_said_key(run_id)):
            return []
        content = await storage.get(canary_key(run_id))
        try:
            return [str(one) for one in json.loads(content)]
        except (ValueError, TypeError) as error:
            raise JournalDamaged(
                f"{storage.uri_of(canary_key(run_id))}: it is no part of a plan; a run with canary 0 does without it"
            ) from error
    return []


async def write_chosen(storage: Storage, run_id: str, chosen: Chosen) -> None:
    """Write down which variations are a run's canary; before its plan, which says that there is one."""
    await storage.put(canary_key(run_id), json_bytes(chosen.ids))


async def write_said(storage: Storage, run_id: str, said: Said, *, summary: str) -> None:
    """Write down that a run goes on, and what its canary came to: no later one waits for it."""
    await storage.put(canary_said_key(run_id), json_bytes({"said": said, "canary": summary}))

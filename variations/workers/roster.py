"""Who works on a run: each worker gives a sign of life every few seconds, and says what it has done so far.

Signs are compared by the store's clock. One that is older than the run's lease allows is a dead worker's; a worker that
leaves in order moves its last one away from among the living.
"""

from dataclasses import dataclass, field

from pydantic import TypeAdapter

from variations.errors import JournalDamaged, ObjectNotFound
from variations.layout import left_key, left_prefix, worker_key, workers_prefix
from variations.ledger.lock import ROUNDING_SECONDS
from variations.ledger.writer import Writer
from variations.recovery import at_once
from variations.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A worker's sign of life.

    Attributes:
        writer: the worker; its token is its name in the journals.
        label: what its scheduler calls it; the flow run's id.
        kept, failed, unknown, dropped, rerolled, in_flight: images.
        cost_usd: spent, what may be spent on unknown ones included.
        price_usd: of an image, as the API charges it.
        requests, refused, limit_found, all_found_counted: API calls by kind; how many of them were refused for the
            request limit; that limit, as far as this worker found it; whether it found that every call counts.
        stopped_by, stopped_because: why it submits nothing more, if that is so.
    """

    writer: Writer
    label: str = ""
    beat: int = 0
    kept: int = 0
    failed: int = 0
    unknown: int = 0
    dropped: int = 0
    rerolled: int = 0
    in_flight: int = 0
    cost_usd: float = 0.0
    price_usd: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    refused: int = 0
    limit_found: float | None = None
    all_found_counted: bool = False
    stopped_by: str | None = None
    stopped_because: str | None = None


_SIGN = TypeAdapter(Sign)


class Roster:
    """The workers of a run.

    Args:
        storage: the dataset.
        run_id: of the run.
        lease_seconds: after so long without a sign of life a worker counts as gone.
    """

    def __init__(self, storage: Storage, run_id: str, *, lease_seconds: float) -> None:
        self._storage = storage
        self._run_id = run_id
        self._lease_seconds = lease_seconds

    async def sign(self, sign: Sign) -> None:
        """Give a sign of life."""
        key = worker_key(self._run_id, sign.writer.token)
        await self._storage.put(key, _SIGN.dump_json(sign), content_type="application/json")

    async def leave(self, sign: Sign) -> None:
        """Leave in order, with what was done in all."""
        token = sign.writer.token
        await self._storage.put(left_key(self._run_id, token), _SIGN.dump_json(sign), content_type="application/json")
        await self._storage.delete(worker_key(self._run_id, token))

    async def living(self) -> list[str]:
        """Return the tokens of the workers that gave a sign of life of late, sorted; one listing."""
        return sorted(token for token, age_seconds in (await self.ages()).items() if self.is_fresh(age_seconds))

    async def ages(self) -> dict[str, float]:
        """Return the tokens of the workers that have not left in order, with the seconds since their last sign."""
        now = await self._storage.now()
        signs = [entry async for entry in self._storage.list(workers_prefix(self._run_id))]
        return {_token(one.key): max(0.0, (now - one.modified).total_seconds()) for one in signs}

    def is_fresh(self, age_seconds: float) -> bool:
        """Return whether the worker of a sign of that age may live."""
        return age_seconds <= self._lease_seconds + ROUNDING_SECONDS

    async def signs(self) -> list[Sign]:
        """Return the last sign of every worker that ever was, the dead and those that have left included."""
        keys = [entry.key async for entry in self._storage.list(workers_prefix(self._run_id))]
        left = [entry.key async for entry in self._storage.list(left_prefix(self._run_id))]
        found = await at_once(self._read, keys + left)
        # One that leaves in this moment may be in both.
        return list({sign.writer.token: sign for sign in found if sign is not None}.values())

    async def signs_of_living(self) -> list[Sign]:
        """Return the last signs of the workers that gave one of late."""
        found = await at_once(self._read, [worker_key(self._run_id, token) for token in await self.living()])
        return [sign for sign in found if sign is not None]

    async def has_left(self) -> set[str]:
        """Return the tokens of the workers that left in order."""
        return {_token(entry.key) async for entry in self._storage.list(left_prefix(self._run_id))}

    async def _read(self, key: str) -> Sign | None:
        try:
            return _SIGN.validate_json(await self._storage.get(key))
        except ObjectNotFound:
            return None
        except ValueError as error:
            raise JournalDamaged(f"{self._storage.uri_of(key)}: it is no worker's sign of life") from error


def _token(key: str) -> str:
    return key.rpartition("/")[2].removesuffix(".json")

"""Who is who: the same request always has the same id, so a run is a set difference against what the dataset has.

These functions are frozen: a change to any of them makes every image of every dataset a new one, to be paid again.
"""

import hashlib
import json
from json.encoder import encode_basestring as _quoted
from typing import Any

from variations.models import RejectedSource, Source
from variations.parameters import Parameters

ID_BYTES = 16
_SEEDS = 2**31 - 2


def source_identity(source: Source) -> str:
    """Return what makes a source itself: its id and version where it has an id, else its URI without a signature."""
    # As `_canonical` writes it, in a tenth of the time: a million sources pass here.
    if source.has_id:
        version = "null" if source.version is None else _quoted(source.version)
        return f'["id",{_quoted(source.source_id)},{version}]'
    return f'["uri",{_quoted(source.public_uri)}]'


def parameters_identity(parameters: Parameters) -> str:
    """Return what makes a set of parameters itself, its seed aside: those that are sent, in canonical JSON."""
    fields = parameters.as_sent()
    del fields["seed"]
    return _canonical(fields)


def variation_id(*, model: str, source: str, parameters: str, seed: int) -> str:
    """Return the id of a variation, 32 hex digits (128 bits).

    Args:
        model: the model's slug.
        source: from `source_identity`.
        parameters: from `parameters_identity`.
        seed: of the image.
    """
    return _digest("variation", model, source, parameters, str(seed)).hex()


def derived_seed(source: str, number: int) -> int:
    """Return the seed of a source's variation where none is given: from 1 to 2³¹ − 2, so never 0 and never −1."""
    return int.from_bytes(_digest("seed", source, str(number))[:8], "big") % _SEEDS + 1


def rerolled(name: str) -> tuple[str, int]:
    """Return id and seed of the variation that takes the place of the one of this id, as its image was flagged.

    Its id is no other one's, be the seed the same by chance: what is told apart by it is paid for only once.
    """
    digest = _digest("reroll", name)
    return digest.hex(), int.from_bytes(_digest("reroll seed", name)[:8], "big") % _SEEDS + 1


def rejected_id(rejected: RejectedSource, *, manifest: str) -> str:
    """Return the id of a row that could not be used: of its place in its manifest and what it held."""
    place = [manifest, rejected.row, rejected.source_id, rejected.public_uri]
    return _digest("rejected", _canonical(place)).hex()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _digest(*parts: str) -> bytes:
    # No part can hold a NUL but the two that are JSON, and JSON escapes it: the parts stay apart.
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=ID_BYTES).digest()

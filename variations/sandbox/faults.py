"""Faults to order: each has a name, a probability and a count, and its own seeded stream of chances."""

import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

FAULTS: Final[dict[str, str]] = {
    "refuse": "a submit's connection is reset before anything is accepted",
    "submit_500": "a submit is answered with 500 and not accepted",
    "accept_and_break": "a submit is accepted, then the connection is closed without an answer",
    "accept_502": "a submit is accepted, then answered with 502",
    "failed": "the request ends as FAILED",
    "slow": "the request takes ten times its latency",
    "fewer_outputs": "a request for several images delivers fewer; one for a single image is left alone",
    "output_blank": "the request makes black images, as a block does, and is charged",
    "output_copy": "the request makes copies of its source, and is charged",
    "status_500": "a status call is answered with 500",
    "status_502": "a status call is answered with 502",
    "result_500": "a result call (v2, or the v1 poll) is answered with 500",
    "result_502": "a result call (v2, or the v1 poll) is answered with 502",
    "output_404": "an output file is answered with 404, this once",
    "output_damaged": "an output file is cut in half, this once",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Order one fault.

    Attributes:
        name: one of `FAULTS`.
        probability: the chance of each call or request it can strike, 0 to 1.
        count: how often it strikes at most; None for no end.
    """

    name: str
    probability: float = 1.0
    count: int | None = None

    def __post_init__(self) -> None:
        """Check the name and the bounds.

        Raises:
            ValueError: with the names there are, or the bound.
        """
        if self.name not in FAULTS:
            raise ValueError(f"unknown fault {self.name!r}; there are: {', '.join(FAULTS)}")
        if isinstance(self.probability, bool) or not isinstance(self.probability, int | float):
            raise ValueError(f"{self.name}: the probability is a number")  # noqa: TRY004 - one kind for the caller
        if not 0 <= self.probability <= 1:
            raise ValueError(f"{self.name}: the probability lies between 0 and 1")
        if self.count is not None and (isinstance(self.count, bool) or not isinstance(self.count, int)):
            raise ValueError(f"{self.name}: the count is a whole number or nothing")
        if self.count is not None and self.count < 0:
            raise ValueError(f"{self.name}: the count is not negative")

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Read `name`, `name:probability` or `name:probability:count`.

        Raises:
            ValueError: the text is none of these.
        """
        name, *numbers = text.split(":")
        if len(numbers) > 2:  # noqa: PLR2004 - probability and count
            raise ValueError(f"a fault is written name:probability[:count], not {text!r}")
        try:
            probability = float(numbers[0]) if numbers else 1.0
            count = int(numbers[1]) if numbers[1:] else None
        except ValueError:
            raise ValueError(f"a fault is written name:probability[:count], not {text!r}") from None
        return cls(name, probability, count)


class FaultPlan:
    """Decide, call by call, whether an ordered fault strikes."""

    def __init__(self, faults: Iterable[Fault] = (), *, seed: int = 0) -> None:
        self._seed = seed
        self.order(faults)

    def order(self, faults: Iterable[Fault]) -> None:
        """Replace every order by these; each stream of chances begins anew."""
        self._faults = {fault.name: fault for fault in faults}
        self._struck = dict.fromkeys(self._faults, 0)
        # One stream a fault: ordering a second one does not change when the first one strikes.
        self._chances = {name: random.Random(f"{self._seed}:{name}") for name in self._faults}  # noqa: S311

    def strikes(self, name: str) -> bool:
        """Return whether the fault strikes now, and count it."""
        fault = self._faults.get(name)
        if fault is None or (fault.count is not None and self._struck[name] >= fault.count):
            return False
        if self._chances[name].random() >= fault.probability:
            return False
        self._struck[name] += 1
        return True

    def describe(self) -> list[dict[str, Any]]:
        """Return the orders and how often each one struck."""
        return [
            {
                "name": fault.name,
                "probability": fault.probability,
                "count": fault.count,
                "struck": self._struck[fault.name],
            }
            for fault in self._faults.values()
        ]

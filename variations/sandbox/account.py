"""The account: two balances, what is reserved for requests in flight, and a team's spend limit."""

from variations.sandbox.refusals import Refused
from variations.sandbox.settings import SandboxSettings

# Sums of prices are compared with balances: a rounding error must not refuse the last affordable request.
TOLERANCE_USD = 1e-9


class Account:
    """Keep the balance in USD. A request is charged when it completes, its price for each image it delivers.

    That is the one place where the price is applied: a failed request and an image that was not delivered cost
    nothing. What a request will cost at most is reserved while it is in flight, so that the balance never
    becomes negative.
    """

    def __init__(self, settings: SandboxSettings) -> None:
        self.credits = settings.credits
        self.free_credits = settings.free_credits
        self.spent_usd = 0.0
        self._reserved_usd = 0.0

    @property
    def balance_usd(self) -> float:
        """Return both balances together, reservations not deducted."""
        return self.credits + self.free_credits

    def reserve(self, settings: SandboxSettings, *, images: int) -> None:
        """Reserve what a request for so many images will cost.

        Raises:
            Refused: 406, for the credits or for the team's spend limit.
        """
        price_usd = settings.price_usd * images
        committed_usd = self._reserved_usd + price_usd
        limit_usd = settings.spend_limit_usd
        if limit_usd is not None and self.spent_usd + committed_usd > limit_usd + TOLERANCE_USD:
            raise Refused(406, "Team spend limit reached. Ask the owner of the team to raise it.")
        if committed_usd > self.balance_usd + TOLERANCE_USD:
            raise Refused(406, "Insufficient credits. Please add credits to your account and try again.")
        self._reserved_usd = committed_usd

    def settle(self, *, reserved_images: int, delivered_images: int, price_usd: float) -> float:
        """Release a reservation, charge what was delivered and return the charge in USD."""
        self._reserved_usd = max(0.0, self._reserved_usd - price_usd * reserved_images)
        cost_usd = round(price_usd * delivered_images, 6)
        from_free_usd = min(self.free_credits, cost_usd)
        self.free_credits = round(self.free_credits - from_free_usd, 6)
        self.credits = round(self.credits - (cost_usd - from_free_usd), 6)
        self.spent_usd = round(self.spent_usd + cost_usd, 6)
        return cost_usd

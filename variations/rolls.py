"""Fill the place of an image that was flagged and dropped anew: the same variation with the next seed.

Its id and its seed follow from the id of the one before, so whoever comes to a place, in whatever run, finds the same
chain of variations in it: none of them is paid twice.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from variations.identity import rerolled
from variations.ledger.story import Item, Story
from variations.models import ImageOutcome, Outcome, Variation


def next_roll(variation: Variation) -> Variation:
    """Return what takes the place of a variation that was flagged."""
    return _rolled(variation, *rerolled(variation.variation_id))


def is_vacant(images: Iterable[ImageOutcome]) -> bool:
    """Return whether a request brought nothing but what was flagged and dropped: then its place may be filled anew.

    Of a request for several images, one that passed fills it, and one that is unknown may.
    """
    statuses = {image.status for image in images}
    return "rejected" in statuses and not statuses & {"kept", "unknown"}


def settled_together(images: Sequence[Outcome]) -> list[Outcome]:
    """Return what became of a request's images, where that of one depends on the others.

    Where its place is to be filled anew, what failed beside what was flagged is given up with it: its place has its
    image then, or fails with the request that is made for it. Else what failed beside one that was made is not tried
    again: another request would pay for that one again.
    """
    if is_vacant(images) and any(image.status == "rejected" and image.can_retry for image in images):
        return [
            replace(image, status="rejected", can_retry=True, error=f"{image.error}; made again with what was flagged")
            if image.status == "failed"
            else image
            for image in images
        ]
    if any(image.status in {"kept", "rejected"} for image in images):
        return [replace(image, can_retry=False) if image.status == "failed" else image for image in images]
    return list(images)


def with_rolls(planned: Mapping[str, Variation], story: Story) -> dict[str, Variation]:
    """Return a shard's variations by their ids: those that were planned, and those that its journal put after them."""
    variations = dict(planned)
    for item in story.items.values():
        before = variations.get(item.rolled_from or "")
        if before is not None and item.seed is not None and item.variation_id not in variations:
            variations[item.variation_id] = _rolled(before, item.variation_id, item.seed)
    return variations


def rolls_due(variations: Mapping[str, Variation], story: Story, *, most: int) -> Iterator[Variation]:
    """Yield what is to take the place of the flagged ones of a journal, where nothing has yet.

    Args:
        variations: of the shard, those that the journal put in such places included.
        story: what the journal tells.
        most: how often a place is filled, the first time included.
    """
    for item in story.items.values():
        variation = variations.get(item.variation_id)
        if variation is None or variation.roll + 1 >= most or not is_vacant(item.images):
            continue
        following = next_roll(variation)
        if _is_to_be_made(story.items.get(following.variation_id)):
            yield following


def _is_to_be_made(item: Item | None) -> bool:
    return item is None or (item.is_withdrawn and not item.images)


def _rolled(before: Variation, name: str, seed: int) -> Variation:
    return replace(
        before,
        variation_id=name,
        parameters=before.parameters.model_copy(update={"seed": seed}),
        attempt=1,
        before=None,
        paid_before_usd=0.0,
        roll=before.roll + 1,
        rolled_from=before.variation_id,
    )

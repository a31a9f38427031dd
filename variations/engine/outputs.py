"""Bring one finished image home: fetch it, look at it, judge it, store it."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, NamedTuple
from urllib.parse import quote

from variations import errors
from variations.appearance import Nearest
from variations.engine.siblings import Siblings
from variations.engine.source_looks import SourceLooks
from variations.gate import Gate
from variations.identity import source_identity
from variations.images import BLANK_SPREAD, CONTENT_TYPES, ImageFacts, inspect_image, size_notes
from variations.models import Measures, OutputFile, StoredImage, Variation
from variations.storage import Storage

# With their backoff, about two minutes: it is paid for, and its host may only be restarting.
FETCH_ATTEMPTS: Final = 10
FETCH_SECONDS: Final = 120.0
# Whatever the clock says: a process that was asleep has not waited.
LEAST_FETCH_ATTEMPTS: Final = 4
# A host that hangs must not hold the place of those that can be had.
ONE_FETCH_SECONDS: Final = 30.0
DECODE_ATTEMPTS: Final = 4
# S3 takes 2 KB of metadata with an object.
SOURCE_ID_BYTES: Final = 1_500

Fetch = Callable[[str], Awaitable[bytes]]


class Brought(NamedTuple):
    """An image that was brought home: as it is stored, or None if it was dropped; what was measured of it, and why."""

    image: StoredImage | None
    measures: Measures
    reason: str = ""


class OutputStore:
    """Fetch, check, judge and store outputs, a bounded number at a time: the images in memory.

    Args:
        fetch: returns the content at an output's URL.
        storage: the dataset.
        max_images: held in memory at once.
        pause: awaited with the number of the attempt that failed, before the next one.
        looks: what their sources look like; None where they are not looked at.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        storage: Storage,
        max_images: int,
        pause: Callable[[int], Awaitable[None]],
        looks: SourceLooks | None = None,
    ) -> None:
        self._fetch = fetch
        self._looks = looks
        self._siblings = Siblings()
        self._storage = storage
        self._places = asyncio.Semaphore(max_images)
        self._pause = pause

    def expect(self, variation: Variation) -> None:
        """Begin to look at the source of an image that is about to be made."""
        if self._looks is not None:
            self._looks.expect(variation.source)

    async def keep(self, variation: Variation, output: OutputFile, *, output_index: int, gate: Gate) -> Brought:
        """Store one image under its own key, so that a repeat overwrites and never duplicates; or drop it, if flagged.

        Args:
            variation: that it is an image of.
            output: where it lies.
            output_index: which image of its request it is.
            gate: says whether it is flagged, and whether it is stored then.

        Raises:
            OutputRefused: it lies where outputs do not come from, or is too large.
            OutputUnavailable: it could not be had in `FETCH_ATTEMPTS` attempts, or fewer in `FETCH_SECONDS`.
            OutputInvalid: what was fetched was no whole image, `DECODE_ATTEMPTS` times.
            StorageError: the destination does not take it.
        """
        if self._looks is not None:
            await self._looks.wait(variation.source)
        attempt = 0
        loop = asyncio.get_running_loop()
        give_up_at = math.inf
        while True:
            attempt += 1
            # A pause holds no place: an outage of the images' host must not keep those that can be had waiting.
            async with self._places:
                give_up_at = min(give_up_at, loop.time() + FETCH_SECONDS)
                try:
                    return await self._keep_once(variation, output.url, output_index=output_index, gate=gate)
                except (errors.OutputUnavailable, errors.Repeatable) as error:
                    # The file lands a moment after the request is done, so its 404 too is asked for again.
                    is_late = attempt >= LEAST_FETCH_ATTEMPTS and loop.time() >= give_up_at
                    if attempt == FETCH_ATTEMPTS or is_late:
                        raise errors.OutputUnavailable(f"{error.message} ({attempt} times)") from error
                except errors.OutputInvalid as error:
                    if attempt == DECODE_ATTEMPTS:
                        raise errors.OutputInvalid(f"{error.message} (fetched {attempt} times)") from error
            await self._pause(attempt)

    async def _keep_once(self, variation: Variation, url: str, *, output_index: int, gate: Gate) -> Brought:
        try:
            async with asyncio.timeout(ONE_FETCH_SECONDS):
                content = await self._fetch(url)
        except TimeoutError as error:
            raise errors.ServiceUnavailable(f"the output was not there after {ONE_FETCH_SECONDS:.0f} s") from error
        facts = await asyncio.to_thread(inspect_image, content)
        measures, reason = await self._judged(variation, facts, output_index=output_index, gate=gate)
        if gate.drops(measures.verdict):
            return Brought(None, measures, reason)
        file_name = image_key(variation, output_index=output_index, extension=facts.format)
        await self._storage.put(
            file_name, content, content_type=CONTENT_TYPES[facts.format], metadata=lineage(variation)
        )
        parameters = variation.parameters
        image = StoredImage(
            file_name=file_name,
            width=facts.width,
            height=facts.height,
            bytes=facts.bytes,
            format=facts.format,
            sha256=facts.sha256,
            notes=size_notes(facts, parameters.expected_size(), wanted_format=parameters.output_format),
        )
        return Brought(image, measures, reason)

    async def _judged(
        self, variation: Variation, facts: ImageFacts, *, output_index: int, gate: Gate
    ) -> tuple[Measures, str]:
        """Measure an image, and say what the gate thinks of it; a later one is compared with it, if it is stored."""
        look, size = facts.appearance, (facts.width, facts.height)
        to_source = Nearest()
        if self._looks is not None:
            to_source = await self._looks.nearest(variation.source, look, size)
        source, name = source_identity(variation.source), f"{variation.variation_id}-{output_index}"
        # All that is blank looks alike. From here on nothing waits: of two images that come at once, one is the first.
        is_blank = look.contrast < BLANK_SPREAD
        nearest = Nearest() if is_blank else self._siblings.nearest(source, name, look)
        measures = Measures(
            contrast=round(look.contrast, 1),
            phash=f"{look.hash:016x}",
            source_distance=to_source.distance,
            sibling_distance=nearest.distance,
        )
        verdict, reason = gate.judge(
            measures,
            size=size,
            expected_size=variation.parameters.expected_size(),
            copy_distance=to_source.alike,
            twin_distance=nearest.alike,
        )
        measures = replace(measures, verdict=verdict)
        if not is_blank and not gate.drops(verdict):
            self._siblings.add(source, name, look)
        return measures, reason


def lineage(variation: Variation) -> dict[str, str]:
    """Return what an image's object says of where it comes from; an id that S3 would refuse for its length is left out.

    The names have no underscore: proxies drop headers that have one, and a signature does not survive that.
    """
    said = {"variation-id": variation.variation_id}
    # Half a surrogate pair, which JSON can spell, is no text that could be sent.
    source_id = variation.source.source_id.encode("utf-8", "backslashreplace").decode()
    if len(quote(source_id)) <= SOURCE_ID_BYTES:
        said["source-id"] = source_id
    return said


def image_key(variation: Variation, *, output_index: int, extension: str) -> str:
    """Return an image's key, `images/[<split>/]<2 hex>/<variation_id>[-k].<ext>`.

    k tells the outputs of one request apart. Hugging Face's `datasets` reads a split as a folder.
    """
    name = variation.variation_id
    suffix = f"-{output_index}" if variation.parameters.num_outputs > 1 else ""
    folder = f"images/{variation.source.split}" if variation.source.split else "images"
    return f"{folder}/{name[:2]}/{name}{suffix}.{extension}"

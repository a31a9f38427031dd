"""One image, from its address to its key."""

from dataclasses import replace

import pytest

from variations import errors
from variations.engine.outputs import DECODE_ATTEMPTS, FETCH_ATTEMPTS, OutputStore, image_key, lineage
from variations.gate import Gate
from variations.models import OutputFile, StoredImage

from .simulation import MemoryStorage, picture, simulate, variation

Answer = bytes | Exception


def keep(*answers: Answer, **parameters: object) -> tuple[StoredImage | Exception | None, list[int], MemoryStorage]:
    """Keep one image that is fetched so; returns it or its error, the pauses made, and the dataset."""
    storage = MemoryStorage()
    script = list(answers)
    pauses: list[int] = []

    async def fetch(url: str) -> bytes:
        assert url == "https://images.segmind.com/1.jpg"
        answer = script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pause(attempt: int) -> None:
        pauses.append(attempt)

    async def main() -> StoredImage | None:
        store = OutputStore(fetch, storage=storage, max_images=2, pause=pause)  # type: ignore[arg-type]
        output = OutputFile("https://images.segmind.com/1.jpg")
        return (await store.keep(variation(1, **parameters), output, output_index=0, gate=Gate())).image

    try:
        return simulate(main()), pauses, storage
    except errors.VariationsError as error:
        return error, pauses, storage


def test_an_image_is_stored_as_what_it_is() -> None:
    """Its extension is that of its content, and what is unexpected is noted: it is kept all the same."""
    image, pauses, storage = keep(picture(image_format="PNG"), output_format="webp")
    assert isinstance(image, StoredImage)
    assert (image.format, image.width, image.height, image.bytes) == ("png", 64, 48, len(picture(image_format="PNG")))
    assert image.file_name.endswith(".png")
    assert "unexpected format: png instead of webp" in image.notes
    assert any(note.startswith("unexpected size") for note in image.notes)
    assert list(storage.objects) == [image.file_name]
    assert pauses == []


@pytest.mark.parametrize(
    ("trouble", "attempts"),
    [
        (errors.OutputUnavailable("404"), FETCH_ATTEMPTS),
        (errors.ServiceUnavailable("broke off"), FETCH_ATTEMPTS),
        (picture()[:300], DECODE_ATTEMPTS),
        (b"", DECODE_ATTEMPTS),
    ],
    ids=["404", "broke off", "truncated", "empty"],
)
def test_trouble_is_asked_again_so_many_times(trouble: Answer, attempts: int) -> None:
    """With a pause that grows before each; the last answer counts."""
    image, pauses, _ = keep(*[trouble] * (attempts - 1), picture())
    assert isinstance(image, StoredImage)
    assert pauses == list(range(1, attempts))
    error, pauses, storage = keep(*[trouble] * attempts)
    assert isinstance(error, errors.OutputInvalid | errors.OutputUnavailable)
    assert pauses == list(range(1, attempts))
    assert not storage.puts


def test_a_refused_address_is_not_asked_again() -> None:
    """It would be refused again."""
    error, pauses, _ = keep(errors.OutputRefused("elsewhere"))
    assert isinstance(error, errors.OutputRefused)
    assert pauses == []


@pytest.mark.parametrize(("num_outputs", "index", "suffix"), [(1, 0, ""), (2, 0, "-0"), (4, 3, "-3")])
def test_a_key_tells_the_outputs_of_a_request_apart(num_outputs: int, index: int, suffix: str) -> None:
    """`images/<2 hex>/<variation_id>[-k].<ext>`, the same at every repeat."""
    wanted = variation(0xAB << 120, num_outputs=num_outputs, seed=5)
    key = image_key(wanted, output_index=index, extension="webp")
    assert key == f"images/ab/ab{'0' * 30}{suffix}.webp"


@pytest.mark.parametrize(
    ("source_id", "said"),
    [
        ("cat 1", "cat 1"),
        ("katze ß", "katze ß"),
        ("half \ud800 a pair", "half \\ud800 a pair"),
        ("x" * 1_500, "x" * 1_500),
        ("x" * 1_501, None),
        ("ß" * 251, None),
    ],
)
def test_an_object_says_where_it_comes_from(source_id: str, said: str | None) -> None:
    """Whatever the id is, the image that was paid for can be stored: S3 takes 2 KB, and no half of a pair."""
    of = variation(1)
    of = replace(of, source=replace(of.source, source_id=source_id))
    expected = {"variation-id": of.variation_id} | ({} if said is None else {"source-id": said})
    assert lineage(of) == expected

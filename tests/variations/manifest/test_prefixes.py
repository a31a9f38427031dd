"""What a prefix may hold."""

from pathlib import Path
from typing import Any

import pytest


def fill(folder: Path, files: dict[str, str]) -> None:
    """Write the files into the folder."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_prefix_of_manifests(read: Any, tmp_path: Path, encode: Any, slash: str) -> None:
    """Files of several formats are read in the order of their keys, and labels are the union of theirs."""
    fill(
        tmp_path,
        {
            "b/part-2.csv": "url,n,x\nhttps://h/2.jpg,2.5,a\nnone,1,b\n",
            "c.txt": "https://h/3.jpg\n",
            "_SUCCESS": "",
            "_temporary/0/part-9.csv": "url\nhttps://h/9.jpg\n",
            ".hidden.csv": "url\nhttps://h/9.jpg\n",
            "empty.csv": "",
            "header.csv": "something,else\n",
            "readme.md": "not a manifest",
        },
    )
    (tmp_path / "a.parquet").write_bytes(encode([{"url": "https://h/1.jpg", "n": 1}], ".parquet"))
    found = await read(f"{tmp_path}{slash}")
    assert found.labels == {"n": "double", "x": "string"}
    assert found.files == tuple(f"file://{tmp_path}/{name}" for name in ("a.parquet", "b/part-2.csv", "c.txt"))
    assert [(source.row, source.uri, source.labels) for source in found.sources] == [
        (1, "https://h/1.jpg", {"n": 1.0}),
        (1, "https://h/2.jpg", {"n": 2.5, "x": "a"}),
        (1, "https://h/3.jpg", {}),
    ]
    [bad] = found.rejected
    assert (bad.row, bad.reason) == (
        2,
        "b/part-2.csv: not a URI: 'none' has no scheme and, as a path, no image's extension",
    )


async def test_labels_of_several_files_get_one_type(read: Any, tmp_path: Path, encode: Any) -> None:
    """A label that is a number in one file and text in another is text in all of them, as it was written."""
    fill(tmp_path, {"1.csv": "url,zip\nhttps://h/1.jpg,10\n", "2.csv": "url,zip\nhttps://h/2.jpg,007\n"})
    (tmp_path / "3.parquet").write_bytes(encode([{"url": "https://h/3.jpg", "zip": 12}], ".parquet"))
    (tmp_path / "4.parquet").write_bytes(encode([{"url": "https://h/4.jpg", "zip": ["é"]}], ".parquet"))
    found = await read(tmp_path)
    assert found.labels == {"zip": "string"}
    assert [source.labels["zip"] for source in found.sources] == ["10", "007", "12", '["é"]']


async def test_relative_paths_are_relative_to_their_own_file(read: Any, tmp_path: Path) -> None:
    """In a prefix of several manifests, each file's folder counts."""
    fill(tmp_path, {"a/1.csv": "url\nx.jpg\n", "b/2.csv": "url\nx.jpg\n"})
    found = await read(tmp_path)
    assert [source.uri for source in found.sources] == [f"file://{tmp_path}/a/x.jpg", f"file://{tmp_path}/b/x.jpg"]


async def test_prefix_of_images(read: Any, tmp_path: Path) -> None:
    """Each image is a source without an id, whatever lies beside it as a caption or a sidecar."""
    names = ["1.jpg", "2.JPEG", "a b/3.png", "é.webp", "x.gif", "y.tiff", "z.avif"]
    fill(tmp_path, dict.fromkeys([*names, "1.txt", "LICENSE.txt", "1.json", "thumbs.db", ".x.jpg", "_old/4.jpg"], "x"))
    found = await read(f"{tmp_path}/")
    assert found.files == (f"file://{tmp_path}",)
    assert found.labels == {}
    assert [source.row for source in found.sources] == list(range(1, len(names) + 1))
    assert sorted(source.uri for source in found.sources) == sorted((tmp_path / name).as_uri() for name in names)
    assert not any(source.has_id for source in found.sources)
    assert all(source.source_id == source.uri for source in found.sources)


async def test_manifest_beside_images(refusal_of: Any, tmp_path: Path) -> None:
    """A prefix with both is ambiguous, and a person has to say which is meant."""
    fill(tmp_path, {"metadata.csv": "url\nx.jpg\n", "a.jpg": "x", "b.jpg": "x"})
    message = await refusal_of()
    assert (
        "1 manifest files (metadata.csv) and 2 images: name the manifest file, or the folder of the images" in message
    )


async def test_prefix_without_anything_usable(refusal_of: Any, tmp_path: Path) -> None:
    """The extensions that are there are named."""
    fill(tmp_path, dict.fromkeys(["a.xml", "b.xml", "c.mp4", "README"], "x"))
    assert "but .xml (2), no extension (1), .mp4 (1)" in await refusal_of()


async def test_empty_prefix(refusal_of: Any, tmp_path: Path) -> None:
    """An empty folder is a manifest that is missing; what lies beside it is named."""
    (tmp_path / "empty").mkdir()
    fill(tmp_path, {"m.csv": "url\n"})
    assert "nothing is there" in await refusal_of("empty/")


async def test_prefix_of_empty_manifests(refusal_of: Any, tmp_path: Path) -> None:
    """Files without rows are passed over only where others have some."""
    fill(tmp_path, {"1.csv": "", "2.csv": "url\n"})
    assert "none of its 2 files has a row" in await refusal_of()


async def test_every_file_needs_its_uri_column(refusal_of: Any, tmp_path: Path) -> None:
    """The one file that has none is the one that is named."""
    fill(tmp_path, {"1.csv": "url\nhttps://h/1.jpg\n", "2.csv": "photo\nhttps://h/2.jpg\n"})
    assert "2.csv: no column is called" in await refusal_of()


async def test_named_column_does_not_concern_text_files(read: Any, tmp_path: Path) -> None:
    """A text file beside tables has no columns to be named."""
    fill(tmp_path, {"1.csv": "photo\nhttps://h/1.jpg\n", "2.txt": "https://h/2.jpg\n"})
    assert len((await read(tmp_path, uri_column="photo")).sources) == 2

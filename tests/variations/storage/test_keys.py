"""Which URIs and keys there are."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.errors import BadInput
from variations.storage import open_storage, split_uri


@pytest.mark.parametrize(
    ("uri", "root"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("s3://bucket/a%20b+c?d#e", "s3://bucket/a%20b+c?d#e"),
        ("s3://bucket//", "s3://bucket//"),
        ("s3://bucket/a//", "s3://bucket/a//"),
        ("file:///data", "file:///data"),
        ("file:///data/", "file:///data"),
        ("file://localhost/data", "file:///data"),
        ("file:///a%20b%23", "file:///a%20b%23"),
        ("file:///a b?", "file:///a%20b%3F"),
        ("/data//set/../x", "file:///data/x"),
        ("//data", "file:///data"),
        ("/", "file:///"),
        ("file:///", "file:///"),
        ("/a:b", "file:///a%3Ab"),
        ("/100%25", "file:///100%2525"),
    ],
)
def test_a_root_has_one_form(uri: str, root: str) -> None:
    """A URI is shown in its canonical form, which opens the same place again."""
    assert open_storage(uri).uri == root
    assert open_storage(root).uri == root


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from where the process is, and `~` from the user's home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert open_storage("out").uri == (tmp_path / "out").as_uri()
    assert open_storage(".").uri == tmp_path.as_uri()
    assert open_storage("~/out/").uri == (tmp_path / "home" / "out").as_uri()
    assert open_storage("~").uri == (tmp_path / "home").as_uri()
    assert split_uri("in/a b.png") == ((tmp_path / "in").as_uri(), "a b.png")


@pytest.mark.parametrize(
    "uri",
    [
        "", "s3://", "s3:///key", "s3:/bucket", "s3:bucket", "s3://buc ket/a", "gs://bucket/a", "s3a://bucket",
        "http://host/a", "file://host/a", "file://a", "file:a", "s3://bucket/a/../b", "s3://bucket/..", "s3://bucket/./a",
        "s3://bucket/a\0", "/a\0", "s3://bucket/\ud800", "file:///%00", "file:///%ff",
    ],
)  # fmt: skip
def test_what_is_no_uri_is_bad_input(uri: str) -> None:
    """The message is one line that names it."""
    with pytest.raises(BadInput) as caught:
        open_storage(uri)
    assert "\n" not in str(caught.value)


def test_the_message_for_a_web_address_keeps_its_signature_secret() -> None:
    """Neither the query nor the user of a URL is shown."""
    with pytest.raises(BadInput) as caught:
        open_storage("https://me:hunter2@b.s3.amazonaws.com/a.png?X-Amz-Signature=abcdef")
    assert str(caught.value).startswith("https://b.s3.amazonaws.com/a.png: ")
    assert "abcdef" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "root", "key"),
    [
        ("s3://bucket/a/b.parquet", "s3://bucket/a", "b.parquet"),
        ("s3://bucket/b c%20.png", "s3://bucket", "b c%20.png"),
        ("s3://bucket//b", "s3://bucket//", "b"),
        ("s3://bucket/a//b", "s3://bucket/a//", "b"),
        ("/data/b%20.png", "file:///data", "b%20.png"),
        ("/b.png", "file:///", "b.png"),
        ("file:///data/a%20b%2Bc.png", "file:///data", "a b+c.png"),
    ],
)
def test_the_uri_of_an_object_is_split_at_its_folder(uri: str, root: str, key: str) -> None:
    """The root opens, and the key under it has the URI again."""
    assert split_uri(uri) == (root, key)
    assert split_uri(open_storage(root).uri_of(key)) == (root, key)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "s3://bucket/a/", "/", "/data/", "file:///a/", "a/.."])
def test_a_folder_is_not_split(uri: str) -> None:
    """What names no object has no key."""
    with pytest.raises(BadInput, match="folder"):
        split_uri(uri)


text = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
name = text.filter(lambda text: text not in {".", ".."})


@given(root=st.sampled_from(["s3://bucket", "s3://bucket/p", "/", "/data/x"]), parts=st.lists(name, min_size=1))
def test_every_uri_leads_back_to_its_key(root: str, parts: list[str]) -> None:
    """Splitting the URI of a key gives its folder's URI and its name."""
    storage = open_storage(root)
    folder, key = split_uri(storage.uri_of("/".join(parts)))
    assert key == parts[-1]
    assert open_storage(folder).uri == folder
    assert open_storage(folder).uri_of(key) == storage.uri_of("/".join(parts))

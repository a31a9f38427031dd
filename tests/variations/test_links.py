"""Where the output lies, for people: plain URIs, a page of Amazon's console, and nothing that lets anybody in."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from variations.links import gallery_link, output_links
from variations.storage import close_clients
from variations.storage.s3_console import console_url

from .examples import RECEIPT


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """S3 is Amazon's, of which nothing is asked."""
    close_clients()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "MADEUPACCESSKEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "made-up-secret")
    yield
    close_clients()


@pytest.mark.usefixtures("amazon")
@pytest.mark.parametrize(
    ("uri", "page"),
    [
        ("s3://b/data/set", "https://console.aws.amazon.com/s3/buckets/b?prefix=data/set/"),
        ("s3://b/data/", "https://console.aws.amazon.com/s3/buckets/b?prefix=data/"),
        ("s3://b", "https://console.aws.amazon.com/s3/buckets/b?prefix="),
        ("s3://b/a b&c", "https://console.aws.amazon.com/s3/buckets/b?prefix=a%20b%26c/"),
        ("file:///data/set", None),
    ],
)
def test_what_is_in_amazons_s3_has_a_page(uri: str, page: str | None) -> None:
    """Of the console, which asks for the reader's own credentials."""
    assert console_url(uri) == page


@pytest.mark.usefixtures("amazon")
def test_in_china_the_page_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """The console of the one knows nothing of the other."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "cn-north-1")
    assert console_url("s3://b/d") == "https://console.amazonaws.cn/s3/buckets/b?prefix=d/"


@pytest.mark.usefixtures("amazon")
def test_the_dataset_is_a_link_with_amazon() -> None:
    """Metadata and receipt are named."""
    assert output_links(RECEIPT).splitlines() == [
        "- dataset: [s3://b/d](https://console.aws.amazon.com/s3/buckets/b?prefix=d/)",
        "- metadata: s3://b/d/metadata.parquet",
        "- receipt: s3://b/d/_runs/run-1/receipt.json",
    ]


def test_elsewhere_there_are_plain_uris(s3_uri: str, tmp_path: Path) -> None:
    """A folder's is absolute, however it was given; what was not published is not named."""
    assert output_links(replace(RECEIPT, destination=f"{s3_uri}/d")).splitlines()[0] == f"- dataset: {s3_uri}/d"
    unpublished = replace(RECEIPT, destination="dataset", dataset_rows=None)
    assert output_links(unpublished) == f"- dataset: file://{tmp_path}/dataset\n"


@pytest.mark.usefixtures("amazon")
def test_the_gallery_is_a_page_with_amazon() -> None:
    """Of the one object, with a button that opens it; its link is not signed."""
    page = "https://console.aws.amazon.com/s3/object/b?prefix=a%20b%28c%29/report.html"
    assert gallery_link("s3://b/a b(c)") == page


def test_elsewhere_the_gallery_is_its_uri(s3_uri: str, tmp_path: Path) -> None:
    """Of a bucket or a folder, in letters that end no link in Markdown."""
    assert gallery_link(f"{s3_uri}/d") == f"{s3_uri}/d/report.html"
    assert gallery_link(f"{s3_uri}/a b)") == f"{s3_uri}/a%20b%29/report.html"
    assert gallery_link(str(tmp_path / "a b)")) == f"{tmp_path.as_uri()}/a%20b%29/report.html"

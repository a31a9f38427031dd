"""Where the output of a run lies, for people: plain URIs, and a page for what is in Amazon's S3."""

from urllib.parse import quote

from variations.dataset import METADATA_KEY
from variations.layout import REPORT_KEY, receipt_key
from variations.receipt import Receipt
from variations.storage import open_storage
from variations.storage.s3_console import console_url
from variations.texts import markdown_text


def gallery_uri(destination: str) -> str:
    """Return the whole URI of a dataset's gallery."""
    return open_storage(destination, missing_ok=True).uri_of(REPORT_KEY)


def gallery_link(destination: str) -> str:
    """Return where a person finds a dataset's gallery; nothing in it lets anybody in.

    In Amazon's S3 that is the object's page in the console, whose *Open* asks for the reader's own credentials; a link
    that were signed would open it for whoever reads it here. Elsewhere it is the gallery's own URI.
    """
    uri = gallery_uri(destination)
    page = console_url(uri, is_object=True)
    return page if page is not None else quote(uri, safe=":/%")


def output_links(receipt: Receipt) -> str:
    """Return a Markdown list. No link in it lets anybody in: none is signed."""
    storage = open_storage(receipt.destination)
    places = [("dataset", storage.uri)]
    if receipt.dataset_rows is not None:
        places += [("metadata", storage.uri_of(METADATA_KEY)), ("receipt", storage.uri_of(receipt_key(receipt.run_id)))]
    page = console_url(storage.uri)
    lines = [f"- {name}: {markdown_text(uri)}" for name, uri in places]
    if page is not None:
        lines[0] = f"- dataset: [{markdown_text(storage.uri)}]({page})"
    return "\n".join([*lines, ""])

"""Where the output of a run lies, for people: plain URIs, and a page for what is in Amazon's S3."""

from variations.dataset import METADATA_KEY
from variations.layout import receipt_key
from variations.receipt import Receipt, markdown_text
from variations.storage import open_storage
from variations.storage.s3_console import console_url


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

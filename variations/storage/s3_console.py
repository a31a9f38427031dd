"""Where a person looks at what lies in Amazon's S3: the console, which asks for the reader's own credentials."""

from urllib.parse import quote

from variations.storage.keys import S3Location, parse_uri
from variations.storage.s3_client import S3Options, is_amazon, shared_connection


def console_url(uri: str, *, is_object: bool = False) -> str | None:
    """Return the page of a folder, `s3://bucket/prefix`, or of an object; None where that is not with Amazon.

    Raises:
        BadInput: it is no URI.
    """
    location = parse_uri(uri)
    if not isinstance(location, S3Location):
        return None
    client = shared_connection(S3Options()).client_in(None)
    if not is_amazon(client):
        return None
    host = "console.amazonaws.cn" if client.meta.region_name.startswith("cn-") else "console.aws.amazon.com"
    if is_object:
        return f"https://{host}/s3/object/{location.bucket}?prefix={quote(location.path, safe='/')}"
    prefix = quote(location.path.rstrip("/") + "/", safe="/") if location.path.strip("/") else ""
    return f"https://{host}/s3/buckets/{location.bucket}?prefix={prefix}"

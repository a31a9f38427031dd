"""The rules for keys and URIs, alike for both backends: what may be one, and how a URI is taken apart.

`s3://` URIs are literal: `%20` in one is three characters of the key. `file://` URIs are percent-encoded, as
everywhere. A plain path is literal, and made absolute.
"""

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from variations.errors import BadInput

S3_KEY_MAX_BYTES = 1024
"""The longest key of S3, its prefix included, in UTF-8."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_SCHEME_WITHOUT_SLASHES = re.compile(r"(s3|file):", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class S3Location:
    """A place in a bucket; `path` is what follows `s3://bucket/`, literally."""

    bucket: str
    path: str


@dataclass(frozen=True, slots=True)
class LocalLocation:
    """A place in the file system; `path` is absolute, and ends in `/` if it was written so."""

    path: str


def parse_uri(uri: str) -> S3Location | LocalLocation:
    """Take a URI or a plain path apart.

    Raises:
        BadInput: it is neither `s3://bucket/…`, `file:///…` nor a path.
    """
    check_text(uri, what="a URI")
    if not uri:
        raise BadInput("an empty URI: write s3://bucket/prefix, file:///folder or a path")
    found = _SCHEME.match(uri)
    if found is None:
        if wrong := _SCHEME_WITHOUT_SLASHES.match(uri):
            raise BadInput(f"{without_secrets(uri)}: not a URI, write {wrong[1].lower()}:// with two slashes")
        return _local(uri)
    scheme, rest = found[1].lower(), uri[found.end() :]
    if scheme == "s3":
        bucket, _, path = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise BadInput(f"{without_secrets(uri)}: no bucket, write s3://bucket/prefix")
        _check_segments(path, shown=uri)
        return S3Location(bucket=bucket, path=path)
    if scheme == "file":
        path = unquote(rest.removeprefix("localhost"), errors="surrogateescape")
        if not path.startswith("/"):
            raise BadInput(f"{without_secrets(uri)}: a file:// URI needs an absolute path, write file:///folder")
        check_text(path, what=uri)
        return _local(path)
    raise BadInput(f"{without_secrets(uri)}: {scheme}:// is not supported here, write s3://, file:// or a path")


def split_uri(uri: str) -> tuple[str, str]:
    """Split the URI of one object into the URI of the folder that holds it, to be opened, and its key there.

    Raises:
        BadInput: it is no URI, or names a folder.
    """
    location = parse_uri(uri)
    parent, _, key = location.path.rpartition("/")
    if not key:
        raise BadInput(f"{without_secrets(uri)}: names a folder, not an object")
    if isinstance(location, LocalLocation):
        return local_uri(parent or "/"), key
    return s3_root_uri(location.bucket, s3_prefix(location.path[: -len(key)])), key


def s3_prefix(path: str) -> str:
    """Return what all keys under a path of a bucket begin with: nothing, or something that ends in `/`."""
    return path if not path or path.endswith("/") else path + "/"


def s3_root_uri(bucket: str, prefix: str) -> str:
    """Return the URI of a prefix, without its trailing slash.

    A prefix that ends in two slashes keeps both, and so does `/` itself: with one less it would be another prefix.
    """
    if prefix == "/" or prefix.endswith("//"):
        return f"s3://{bucket}/{prefix}"
    return f"s3://{bucket}/{prefix}".rstrip("/")


def local_uri(path: str) -> str:
    """Return the percent-encoded `file://` URI of an absolute path."""
    return "file://" + quote(path, errors="surrogateescape")


def check_key(key: str, *, root: str) -> None:
    """Refuse a key that is empty, names a folder, leaves the root or cannot be part of a URL.

    Raises:
        BadInput: with the root and the key in the message.
    """
    check_text(key, what=f"a key under {root}")
    if not key or key.endswith("/"):
        raise BadInput(f"{root}: {key!r} names a folder, not an object")
    check_prefix(key, root=root)
    if key.rpartition("/")[2] in {".", ".."}:
        raise _leaves(key, shown=root)


def check_prefix(prefix: str, *, root: str) -> None:
    """Refuse a listing's prefix that leaves the root.

    Raises:
        BadInput: with the root and the prefix in the message.
    """
    check_text(prefix, what=f"a key under {root}")
    if prefix.startswith("/"):
        raise BadInput(f"{root}: {prefix!r} is absolute; a key is relative to this root")
    # The last segment of a prefix is the beginning of a name: `..` is that of `..hidden`.
    _check_segments(prefix.rpartition("/")[0], shown=root)


def check_text(text: str, *, what: str) -> None:
    """Refuse text that no store can hold in a name: NUL, and what is not Unicode.

    Raises:
        BadInput: `what` is named in the message.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput(f"{printable(what)}: {text!r} is not Unicode text") from None
    if "\0" in text:
        raise BadInput(f"{printable(what)}: {text!r} has a NUL character in it")


def printable(text: str) -> str:
    """Return the text as one line: control characters and line breaks are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def without_secrets(uri: str) -> str:
    """Return a URI for messages: one line, and of a web address neither query nor user, which may be secret."""
    found = _SCHEME.match(uri)
    if found is None or found[1].lower() in {"s3", "file"}:
        return printable(uri)
    try:
        parts = urlsplit(uri)
    except ValueError:
        return found[0] + "…"
    return printable(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}")


def _local(path: str) -> LocalLocation:
    if path == "~" or path.startswith("~/"):
        path = os.path.expanduser(path)  # noqa: PTH111 - pathlib drops the trailing slash
    names_folder = path.endswith(("/", "/.", "/..")) or path in {".", ".."}
    # Lexically, as a shell's `cd` does it. Two slashes at the very front would survive, being special on POSIX.
    absolute = "/" + os.path.abspath(path).lstrip("/")  # noqa: PTH100 - pathlib keeps `..`
    return LocalLocation(path=absolute.rstrip("/") + "/" if names_folder else absolute)


def _check_segments(path: str, *, shown: str) -> None:
    if any(segment in {".", ".."} for segment in path.split("/")):
        raise _leaves(path, shown=shown)


def _leaves(path: str, *, shown: str) -> BadInput:
    # Clients of HTTP resolve both, so that even where S3 has such a key, its URL fetches another one.
    return BadInput(f"{printable(shown)}: {path!r} has '.' or '..' as a folder, which leads elsewhere")

"""What a source's URI may be, and what of it may be shown: pure functions of its text.

`public_uri` is the identity of a source without an id, so what it strips is part of the contract: a name added to
the tables below changes the identity of every URL that carries it.
"""

import posixpath
import re
from functools import lru_cache
from typing import Final
from urllib.parse import quote, unquote, urlsplit

IMAGE_EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif", ".bmp")

_LONGEST_SHOWN: Final = 100
_LONGEST_S3_KEY: Final = 1024

_AWS_V4: Final = frozenset({"x-amz-signature", "x-amz-credential", "x-amz-security-token"})
_GCS_V4: Final = frozenset({"x-goog-signature", "x-goog-credential"})
_OSS_V4: Final = frozenset({"x-oss-signature", "x-oss-credential", "x-oss-security-token"})
_COS: Final = frozenset({"q-signature", "q-ak"})
# AWS SigV2, CloudFront, GCS V2 and Alibaba OSS all say `Signature` and `Expires`.
_SIGNATURE: Final = frozenset({"signature", "awsaccesskeyid", "key-pair-id", "googleaccessid", "ossaccesskeyid"})
_AZURE: Final = frozenset({"sig"})

# For each way of signing: the parameters that give it away, the names and the prefixes that belong to it.
_SCHEMES: Final[tuple[tuple[frozenset[str], frozenset[str], tuple[str, ...]], ...]] = (
    (_AWS_V4, frozenset(), ("x-amz-",)),
    (_GCS_V4, frozenset(), ("x-goog-",)),
    (_OSS_V4, frozenset(), ("x-oss-",)),
    (_COS, frozenset(), ("q-sign-", "q-key-", "q-header-", "q-url-param-", "q-signature", "q-ak")),
    (_SIGNATURE, _SIGNATURE | {"expires", "policy", "hash-algorithm", "security-token"}, ()),
    (
        _AZURE,
        # "Create a service SAS", "Create an account SAS" and "Create a user delegation SAS" of the storage REST API.
        frozenset(
            "sv ss srt sp se st spr sig sr si sip sdd ses skoid sktid skt ske sks skv saoid suoid scid".split()  # noqa: SIM905
        ),
        (),
    ),
)

_ORDINARY_HTTP: Final = re.compile(r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(?::[0-9]{1,4})?(?:[/?#][!-~]*)?")
_SCHEME: Final = re.compile(r"([a-z][a-z0-9+.-]*)://|(data|blob|javascript|mailto|file|https?|s3):", re.IGNORECASE)
_BUCKET: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


def public_uri(uri: str) -> str:
    """Return the URI without the signature of a presigned URL, the one for logs, keys and tables.

    Only the parameters of a signature go, and only where one is there; all others stay in their order, byte for byte.
    Known are AWS (SigV4, SigV2, CloudFront), Google Cloud Storage, Azure SAS, Alibaba OSS and Tencent COS. Anything
    but an http(s) URL is returned as it is: in a key or a file's name a `?` is a letter.
    """
    if "?" not in uri or not uri[:5].lower().startswith(("http:", "https")):
        return uri
    address, _, rest = uri.partition("?")
    query, hash_sign, fragment = rest.partition("#")
    parts = query.split("&")
    unsigned = _unsigned(tuple([part.partition("=")[0] for part in parts]))
    if unsigned is None:
        return uri
    query = "&".join([parts[at] for at in unsigned])
    return f"{address}?{query}{hash_sign}{fragment}" if query else f"{address}{hash_sign}{fragment}"


def shown_uri(text: str) -> str:
    """Return what a message may show of a text that should have been a URI: one line, at most 100 characters.

    The query and the fragment are cut off. Of a text with an `@` only the scheme is left, because in a malformed URL
    it is not decidable where a password ends.
    """
    if "@" in text:
        scheme = _SCHEME.match(text)
        return f"{scheme[0]}…" if scheme else "…"
    shown = _UNPRINTABLE.sub("�", re.split(r"[?#]", text, maxsplit=1)[0])
    return shown if len(shown) <= _LONGEST_SHOWN else shown[: _LONGEST_SHOWN - 1] + "…"


def is_image_name(name: str) -> bool:
    """Return whether a key or a file's name ends like an image."""
    return name.lower().endswith(IMAGE_EXTENSIONS)


def resolve_uri(text: str, *, folder: str) -> str:
    """Return the absolute URI of a source as its manifest names it.

    http(s) URLs stay as they are. A path is taken relative to the manifest's folder, in S3 too. Files are only
    accepted from a manifest that is a file itself: whoever may write a manifest into a bucket must not be able to
    have a worker's own files sent to the API.

    Args:
        text: the cell of the manifest.
        folder: the URI of the folder of the manifest, `s3://bucket/prefix` or `file:///folder`.

    Raises:
        ValueError: it is not a URI that can be used; the message says why and repeats neither query nor password.
    """
    text = text.strip()
    if _ORDINARY_HTTP.fullmatch(text):
        return text
    if not text:
        raise ValueError("no URI")
    if _UNPRINTABLE.search(text):
        raise ValueError(f"not a URI: '{shown_uri(text)}' has a line break or a control character in it")
    match = _SCHEME.match(text)
    if match is None:
        return _resolve_path(text, folder=folder)
    scheme = (match[1] or match[2]).lower()
    if scheme in ("http", "https"):
        return _check_http(text)
    if scheme == "s3":
        return _check_s3(text)
    if scheme == "file":
        return _resolve_file_uri(text, folder=folder)
    if scheme == "data":
        raise ValueError("a data: URL holds the image itself: store it as a file or an object and name that")
    raise ValueError(f"{scheme}: is not supported, use http(s)://, s3:// or a file")


# The URLs of a manifest were signed alike: a million of them share one row of names.
@lru_cache(maxsize=256)
def _unsigned(names: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the positions of the parameters that belong to no signature, None if there is no signature."""
    plain = [(unquote(name) if "%" in name else name).lower() for name in names]
    schemes = [(owned, prefixes) for signs, owned, prefixes in _SCHEMES if not signs.isdisjoint(plain)]
    if not schemes:
        return None
    # SigV2 names its session token like SigV4 does, and a token is a secret under either.
    owned = frozenset[str]().union(*(owned for owned, _ in schemes))
    prefixes = tuple(prefix for _, owned_prefixes in schemes for prefix in owned_prefixes)
    return tuple(at for at, name in enumerate(plain) if name not in owned and not name.startswith(prefixes))


def _check_http(text: str) -> str:
    if re.search(r"\s", text):
        raise ValueError(f"not a URI: '{shown_uri(text)}' has a space in it (write %20)")
    try:
        parts = urlsplit(text)
        # Reading the port is what checks it.
        has_host = bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise ValueError(f"not a URI: '{shown_uri(text)}' has no valid host or port") from None
    if "@" in parts.netloc:
        raise ValueError("the URL carries a user name or a password: use a presigned URL or s3://")
    if not has_host or "\\" in parts.netloc:
        raise ValueError(f"not a URI: '{shown_uri(text)}' has no valid host")
    return text


def _check_s3(text: str) -> str:
    bucket, _, key = text[len("s3://") :].partition("/")
    if "@" in bucket:
        raise ValueError("the s3:// URI carries a user name or a password: credentials belong in the settings")
    if not text.lower().startswith("s3://") or not _BUCKET.fullmatch(bucket):
        raise ValueError(f"not a URI: '{shown_uri(text)}' has no valid bucket, write s3://bucket/key")
    if not key or key.endswith("/"):
        raise ValueError(f"'{shown_uri(text)}' names no object, write s3://bucket/key")
    if any(segment in (".", "..") for segment in key.split("/")):
        raise ValueError(f"'{shown_uri(text)}' has '.' or '..' as a folder, which in a URL leads elsewhere")
    if len(key.encode()) > _LONGEST_S3_KEY:
        raise ValueError(f"'{shown_uri(text)}' is longer than the {_LONGEST_S3_KEY} bytes that S3 allows")
    return f"s3://{bucket}/{key}"


def _resolve_file_uri(text: str, *, folder: str) -> str:
    _refuse_file_of_remote_manifest(text, folder=folder)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(f"not a URI: '{shown_uri(text)}'") from None
    path = _file_path(parts.path)
    if parts.netloc not in ("", "localhost") or not path.startswith("/") or "\0" in path:
        raise ValueError(f"not a file of this machine: '{shown_uri(text)}', write file:///folder/name")
    return _file_uri(path)


def _resolve_path(text: str, *, folder: str) -> str:
    if text.startswith(("//", "www.")):
        raise ValueError(f"not a URI: '{shown_uri(text)}' has no scheme, write https://")
    if text.startswith("/"):
        _refuse_file_of_remote_manifest(text, folder=folder)
        return _file_uri(text)
    if not is_image_name(text):
        raise ValueError(f"not a URI: '{shown_uri(text)}' has no scheme and, as a path, no image's extension")
    if folder.startswith("s3://"):
        bucket, _, prefix = folder[len("s3://") :].partition("/")
        key = posixpath.normpath(posixpath.join(prefix, text))
        if key.startswith("../"):
            raise ValueError(f"'{shown_uri(text)}' leaves the bucket of the manifest")
        return _check_s3(f"s3://{bucket}/{key}")
    return _file_uri(posixpath.join(_file_path(folder.removeprefix("file://")), text))


def _file_path(quoted: str) -> str:
    return unquote(quoted, errors="surrogateescape")


def _file_uri(path: str) -> str:
    return "file://" + quote("/" + posixpath.normpath(path).lstrip("/"), errors="surrogateescape")


def _refuse_file_of_remote_manifest(text: str, *, folder: str) -> None:
    if not folder.startswith("file:"):
        raise ValueError(f"'{shown_uri(text)}' is a local file, which only a local manifest may name")

"""What of a URI is a signature, and what a manifest's cell may be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from variations.uris import public_uri, resolve_uri, shown_uri

SECRET = "SeCrEt0123456789"

SIGNED = {
    "aws-v4": (
        f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA{SECRET}%2F20250101%2Fus-east-1%2Fs3%2Faws4_request"
        f"&X-Amz-Date=20250101T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Security-Token={SECRET}"
        f"&X-Amz-Signature={SECRET}"
    ),
    "aws-v2": f"AWSAccessKeyId=AKIA{SECRET}&Signature={SECRET}&x-amz-security-token={SECRET}&Expires=1767225600",
    "cloudfront": f"Policy={SECRET}&Signature={SECRET}&Key-Pair-Id=K{SECRET}",
    "gcs-v4": f"X-Goog-Algorithm=GOOG4-RSA-SHA256&X-Goog-Credential={SECRET}&X-Goog-Signature={SECRET}",
    "gcs-v2": f"GoogleAccessId=me&Expires=1767225600&Signature={SECRET}",
    "azure": f"sv=2024-11-04&ss=b&srt=o&sp=r&se=2030-01-01T00%3A00%3A00Z&st=2024-01-01&spr=https&sig={SECRET}%3D",
    "azure-user": f"sp=r&skoid={SECRET}&sktid=1&skt=2&ske=3&sks=b&skv=4&sr=b&sig={SECRET}",
    "oss": f"OSSAccessKeyId={SECRET}&Expires=1767225600&Signature={SECRET}",
    "cos": f"q-sign-algorithm=sha1&q-ak={SECRET}&q-sign-time=1;2&q-key-time=1;2&q-signature={SECRET}",
    "escaped-name": f"X%2DAmz%2DSignature={SECRET}",
}

plain_parameters = st.lists(
    st.tuples(
        st.sampled_from(["w", "h", "versionId", "v", "a[]", "q", "", "response-content-type"]),
        st.one_of(st.none(), st.text("abcXYZ019%-._~/?=+", max_size=8)),
    ).map(lambda pair: pair[0] if pair[1] is None else f"{pair[0]}={pair[1]}"),
    max_size=5,
)
fragments = st.sampled_from(["", "#", "#top", "#a?b&c"])


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_signature_is_stripped(query: str) -> None:
    """A URL that was presigned for one of the known stores is public without its query."""
    assert public_uri(f"https://host/a%20b.jpg?{query}") == "https://host/a%20b.jpg"


@pytest.mark.parametrize("query", SIGNED.values(), ids=SIGNED)
def test_other_parameters_stay_in_order(query: str) -> None:
    """What does not belong to the signature is kept byte for byte."""
    assert public_uri(f"https://h/a.jpg?w=%41&{query}&versionId=x&&b#c") == "https://h/a.jpg?w=%41&versionId=x&&b#c"


@pytest.mark.parametrize(
    "uri",
    [
        "https://h/a.jpg",
        "https://h/a.jpg?",
        "https://h/a.jpg?expires=5&policy=none",
        "https://h/a.jpg?sv=1&se=2&sp=r",
        "https://h/a.jpg?x-amz-meta=1",
        "s3://bucket/what?sig=1",
        "file:///a?Signature=1",
        "",
    ],
)
def test_unsigned_uri_is_unchanged(uri: str) -> None:
    """Parameters that only resemble a signature's, without one, are the URL's own."""
    assert public_uri(uri) == uri


@given(plain_parameters, st.sampled_from(sorted(SIGNED)), st.integers(0, 5), fragments)
def test_no_signature_survives(parameters: list[str], scheme: str, at: int, fragment: str) -> None:
    """Wherever the signature stands in the query, nothing of it is left, and stripping again changes nothing."""
    parts = [*parameters[:at], SIGNED[scheme], *parameters[at:]]
    public = public_uri(f"HTTPS://h/a.jpg?{'&'.join(parts)}{fragment}")
    assert SECRET not in public
    assert public_uri(public) == public
    query = "&".join(parameters)
    assert public == f"HTTPS://h/a.jpg{'?' if query else ''}{query}{fragment}"


@given(plain_parameters, fragments)
def test_unsigned_urls_are_untouched(parameters: list[str], fragment: str) -> None:
    """Without a signature no byte changes."""
    uri = f"https://h/a.jpg?{'&'.join(parameters)}{fragment}"
    assert public_uri(uri) == uri


@given(st.text(max_size=60))
def test_any_text_is_stripped_once(text: str) -> None:
    """Stripping is idempotent on any text whatever."""
    once = public_uri("http" + text)
    assert public_uri(once) == once


@given(st.text(max_size=300))
def test_shown_uri_is_one_short_line_without_query(text: str) -> None:
    """A message gets one line of at most 100 characters, which ends where a query begins."""
    shown = shown_uri(text)
    assert len(shown.splitlines()) <= 1
    assert len(shown) <= 100
    assert not set("?#@") & set(shown)


@pytest.mark.parametrize(
    ("text", "folder", "resolved"),
    [
        ("https://h/a.jpg?x=1", "s3://b/m", "https://h/a.jpg?x=1"),
        ("  https://h/a.jpg\t", "s3://b/m", "https://h/a.jpg"),
        ("HTTP://[::1]:80/é.jpg", "s3://b/m", "HTTP://[::1]:80/é.jpg"),
        ("https://h/@user/a.jpg", "s3://b/m", "https://h/@user/a.jpg"),
        ("s3://bucket/a b?c#d@e.jpg", "file:///m", "s3://bucket/a b?c#d@e.jpg"),
        ("S3://bucket/key", "s3://b", "s3://bucket/key"),
        ("images/a.jpg", "s3://b/m", "s3://b/m/images/a.jpg"),
        ("images/a.jpg", "s3://b", "s3://b/images/a.jpg"),
        ("../a.jpg", "s3://b/m/n", "s3://b/m/a.jpg"),
        ("./a b.JPG", "file:///m%20n", "file:///m%20n/a%20b.JPG"),
        ("../a.jpg", "file:///m/n", "file:///m/a.jpg"),
        ("/data/é.jpg", "file:///m", "file:///data/%C3%A9.jpg"),
        ("/data/no-extension", "file:///m", "file:///data/no-extension"),
        ("file:///data/a%20b.jpg", "file:///m", "file:///data/a%20b.jpg"),
        ("file://localhost/data/a.jpg", "file:///m", "file:///data/a.jpg"),
    ],
)
def test_usable_uri_is_resolved(text: str, folder: str, resolved: str) -> None:
    """URLs stay as given, paths become URIs relative to the manifest's folder, in S3 too."""
    assert resolve_uri(text, folder=folder) == resolved


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no URI"),
        ("   ", "no URI"),
        ("n/a", "no scheme"),
        ("none", "no scheme"),
        ("a nice picture", "no scheme"),
        ("www.example.com/a.jpg", "write https://"),
        ("//example.com/a.jpg", "write https://"),
        ("ftp://h/a.jpg", "ftp: is not supported"),
        ("gs://b/a.jpg", "gs: is not supported"),
        ("javascript:alert(1)", "javascript: is not supported"),
        ("data:image/png;base64,AAAA", "store it as a file"),
        ("http://", "no valid host"),
        ("https:///a.jpg", "no valid host"),
        ("http:a.jpg", "no valid host"),
        ("http://h:99999/a.jpg", "host or port"),
        ("http://[::1/a.jpg", "host or port"),
        ("https://h/a b.jpg", "space"),
        ("https://h/a\nb.jpg", "line break"),
        ("s3://bucket", "names no object"),
        ("s3://bucket/folder/", "names no object"),
        ("s3:///key", "no valid bucket"),
        ("s3:bucket/key", "no valid bucket"),
        ("s3://bucket/a/../b.jpg", "leads elsewhere"),
        ("s3://bucket/" + "a" * 1025, "1024 bytes"),
        ("../../a.jpg", "leaves the bucket"),
        ("/etc/passwd", "only a local manifest"),
        ("file:///etc/passwd", "only a local manifest"),
        ("FILE:/etc/passwd", "only a local manifest"),
    ],
)
def test_unusable_uri_has_a_reason(text: str, reason: str) -> None:
    """What is no URI for a manifest in S3 is refused with what is wrong."""
    with pytest.raises(ValueError, match=reason):
        resolve_uri(text, folder="s3://b/m")


@pytest.mark.parametrize("text", ["file://other/a.jpg", "file:a.jpg", "file://[/a", "file:///a%00.jpg"])
def test_file_uri_must_be_of_this_machine(text: str) -> None:
    """A local manifest may name files, on this machine and by absolute URIs."""
    with pytest.raises(ValueError, match=r"not a file of this machine|not a URI"):
        resolve_uri(text, folder="file:///m")


@pytest.mark.parametrize(
    "text",
    [
        f"http://user:{SECRET}@h/a.jpg",
        f"http://{SECRET}@h/a.jpg",
        f"http://user:{SECRET}/x@h/a.jpg",
        f"http://user:{SECRET}?x@h/a.jpg",
        f"s3://key:{SECRET}@bucket/a.jpg",
        f"ftp://user:{SECRET}@h/a.jpg",
        f"user:{SECRET}@h/a",
        f"http://h h/a.jpg?X-Amz-Signature={SECRET}",
        f"nothing?sig={SECRET}",
        f"http://h/a\n.jpg#{SECRET}",
    ],
)
def test_reason_repeats_no_secret(text: str) -> None:
    """A URI with a user, or a malformed one with a signature, is refused without repeating it."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        resolve_uri(text, folder="s3://b/m")
    assert SECRET not in str(caught.value)


@given(st.text(max_size=60), st.sampled_from(["s3://b/m", "file:///m"]))
def test_any_text_is_resolved_or_refused(text: str, folder: str) -> None:
    """Whatever a cell holds, there is an absolute URI or a reason, and a manifest in S3 never reaches a file."""
    try:
        uri = resolve_uri(text, folder=folder)
    except ValueError:
        return
    allowed = ("http://", "https://", "s3://") + (("file:///",) if folder.startswith("file") else ())
    assert uri.lower().startswith(allowed)
    assert resolve_uri(uri, folder=folder) == uri

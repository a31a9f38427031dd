"""What botocore raises, as the errors of this package: one line each, that names the URI and what to do.

Pure, and the only place that knows S3's error codes. Botocore's own text is not passed on: it can run over many
lines, and carries whole URLs.
"""

from typing import Any

from botocore import exceptions as boto
from urllib3.exceptions import HTTPError

from variations.errors import (
    AccessDenied,
    BadInput,
    BucketNotFound,
    CredentialsRefused,
    ObjectNotFound,
    PreconditionFailed,
    StorageError,
    StorageUnavailable,
    VariationsError,
)
from variations.storage.keys import printable

BROKEN_BODY = (
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    boto.ReadTimeoutError,
    boto.FlexibleChecksumError,
    HTTPError,
)
"""A body that broke off or arrived corrupt. Botocore repeats requests, but not once the body has begun."""

_SET_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where a role is attached"
_NO_CREDENTIALS: dict[type[Exception], str] = {
    boto.NoCredentialsError: f"no credentials were found: {_SET_CREDENTIALS}",
    boto.PartialCredentialsError: f"the credentials are incomplete: {_SET_CREDENTIALS}",
    boto.ProfileNotFound: "the AWS profile that is set does not exist: correct AWS_PROFILE or unset it",
    boto.ConfigParseError: "the AWS configuration file cannot be read: correct it",
    boto.ConfigNotFound: "the AWS configuration file was not found: correct AWS_CONFIG_FILE",
    boto.SSOError: "the AWS SSO session is missing or has ended: run `aws sso login`",
    boto.TokenRetrievalError: "the AWS SSO session is missing or has ended: run `aws sso login`",
    boto.NoAuthTokenError: "the AWS SSO session is missing or has ended: run `aws sso login`",
    boto.LoginError: "the AWS session is missing or has ended: run `aws login`",
    boto.CredentialRetrievalError: "the credentials could not be fetched from their provider: check the AWS profile",
    boto.MetadataRetrievalError: "the credentials could not be fetched from the machine's role: check the role",
    boto.UnknownCredentialError: "the AWS configuration names an unknown source of credentials: correct it",
    boto.InvalidConfigError: "the AWS configuration cannot be used: correct the profile",
    boto.RefreshWithMFAUnsupportedError: "the role asks for an MFA code: use temporary credentials instead",
}

_KEY_REFUSED = "the store does not know this access key: check AWS_ACCESS_KEY_ID (or the profile) and the endpoint"
_KEY_EXPIRED = "the temporary credentials have expired: fetch new ones"
_OTHER_REGION = "the bucket is in another region: set AWS_REGION to the bucket's"
_OVERLOADED = "the store is overloaded or failing: repeat later"
_BY_CODE: dict[str, tuple[type[VariationsError], str]] = {
    "NoSuchBucket": (BucketNotFound, "there is no such bucket here: check its name, the account and the endpoint"),
    "InvalidAccessKeyId": (CredentialsRefused, _KEY_REFUSED),
    "InvalidClientTokenId": (CredentialsRefused, _KEY_REFUSED),
    "UnrecognizedClientException": (CredentialsRefused, _KEY_REFUSED),
    "AuthFailure": (CredentialsRefused, _KEY_REFUSED),
    "InvalidSecurity": (CredentialsRefused, _KEY_REFUSED),
    "SignatureDoesNotMatch": (
        CredentialsRefused,
        "the secret key does not belong to the access key: check AWS_SECRET_ACCESS_KEY",
    ),
    "ExpiredToken": (CredentialsRefused, _KEY_EXPIRED),
    "ExpiredTokenException": (CredentialsRefused, _KEY_EXPIRED),
    "TokenRefreshRequired": (CredentialsRefused, _KEY_EXPIRED),
    "RequestExpired": (CredentialsRefused, _KEY_EXPIRED),
    "InvalidToken": (CredentialsRefused, "the session token is not valid: check AWS_SESSION_TOKEN, or unset it"),
    "RequestTimeTooSkewed": (
        CredentialsRefused,
        "the store refuses the signature because this machine's clock is wrong: set the clock",
    ),
    "PermanentRedirect": (StorageError, _OTHER_REGION),
    "TemporaryRedirect": (StorageError, _OTHER_REGION),
    "AuthorizationHeaderMalformed": (StorageError, _OTHER_REGION),
    "InvalidObjectState": (StorageError, "the object is archived: restore it first"),
    "InvalidBucketName": (BadInput, "the store does not take this as a bucket's name"),
    "KeyTooLongError": (BadInput, "the key is longer than the store takes"),
    "MetadataTooLarge": (BadInput, "the metadata is larger than the store takes"),
    "EntityTooLarge": (BadInput, "the object is larger than the store takes in one piece"),
    "RequestTimeout": (StorageUnavailable, _OVERLOADED),
    "Throttling": (StorageUnavailable, _OVERLOADED),
    "RequestLimitExceeded": (StorageUnavailable, _OVERLOADED),
}
_BY_STATUS: dict[int, tuple[type[VariationsError], str]] = {
    301: (StorageError, _OTHER_REGION),
    403: (AccessDenied, "access denied"),
    404: (ObjectNotFound, "there is no such object"),
    412: (PreconditionFailed, "it was replaced or removed by somebody else: read it again"),
    429: (StorageUnavailable, _OVERLOADED),
}
_PERMISSIONS = {
    "list": "s3:ListBucket",
    "read": "s3:GetObject",
    "write": "s3:PutObject",
    "delete": "s3:DeleteObject",
}


class EndpointNotAUrl(Exception):
    """The endpoint that is set is not one that a client can be made for."""


def translate(error: Exception, *, uri: str, doing: str, endpoint: str) -> VariationsError:
    """Return this package's error for one of botocore's.

    Args:
        error: what botocore raised.
        uri: what the request was about.
        doing: `list`, `read`, `write` or `delete`.
        endpoint: the store's address, for an answer that never came.
    """
    uri = printable(uri)
    if isinstance(error, boto.ClientError):
        return _of_answer(error, uri=uri, doing=doing)
    if isinstance(error, EndpointNotAUrl):
        return BadInput(f"{uri}: the endpoint that is set for the store is not a URL: write http://host:port")
    for kind, why in _NO_CREDENTIALS.items():
        if isinstance(error, kind):
            return CredentialsRefused(f"{uri}: {why}")
    if isinstance(error, boto.ParamValidationError | boto.InvalidRegionError):
        return BadInput(f"{uri}: the store's client refuses this bucket, key, metadata or region")
    return StorageUnavailable(f"{uri}: {_no_answer(error, endpoint=printable(endpoint))}")


def broke_off(uri: str, *, attempts: int) -> StorageUnavailable:
    """Return the error for a body that never arrived whole."""
    return StorageUnavailable(
        f"{printable(uri)}: the transfer broke off or arrived corrupt {attempts} times:"
        " check the connection, then repeat"
    )


def answer_code(error: boto.ClientError) -> str:
    """Return S3's word for what is wrong; for an answer without a body, its HTTP status as text."""
    return str(error.response.get("Error", {}).get("Code") or answer_status(error))


def answer_status(error: boto.ClientError) -> int:
    """Return the HTTP status of the answer, 0 if there is none."""
    metadata: dict[str, Any] = dict(error.response.get("ResponseMetadata", {}))
    return int(metadata.get("HTTPStatusCode", 0))


def _of_answer(error: boto.ClientError, *, uri: str, doing: str) -> VariationsError:
    code, status = answer_code(error), answer_status(error)
    if found := _BY_CODE.get(code) or _BY_STATUS.get(status):
        kind, why = found
        return kind(f"{uri}: {why}{_denied(doing) if kind is AccessDenied else ''}")
    if status >= 500:  # noqa: PLR2004
        return StorageUnavailable(f"{uri}: {_OVERLOADED} ({_word(code)})")
    return StorageError(f"{uri}: the store refuses this with {status} {_word(code)}")


def _denied(doing: str) -> str:
    permission = _PERMISSIONS[doing]
    if doing == "read":
        return f": allow {permission}; without s3:ListBucket the store answers so for a missing object, too"
    return f": allow {permission} to these credentials"


def _no_answer(error: Exception, *, endpoint: str) -> str:
    if isinstance(error, boto.SSLError):
        return f"{endpoint} has no certificate that is trusted here: check AWS_CA_BUNDLE and the endpoint"
    if isinstance(error, boto.ProxyConnectionError):
        return f"the proxy on the way to {endpoint} does not answer: check HTTPS_PROXY"
    if isinstance(error, boto.EndpointConnectionError):
        return f"{endpoint} cannot be reached: check the endpoint and the network"
    return f"{endpoint} did not answer ({type(error).__name__}): check the network, then repeat"


def _word(code: str) -> str:
    # A code is one word; what else an odd server sends in its place does not belong in a message.
    return code if code.isalnum() and len(code) <= 60 else "an unknown code"  # noqa: PLR2004

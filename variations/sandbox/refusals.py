"""An answer that is not a 200, as the service raises it and the routes send it."""

from typing import Any, Final

KEY_MISSING: Final = "No API key was sent. Put your key in the x-api-key header."
KEY_REFUSED: Final = "The API key was refused. Check that it is valid and active."


class Refused(Exception):
    """Stop a call with an HTTP status, a body and headers.

    Args:
        status: the HTTP status.
        text: what goes into the envelope `{"error": text}`.
        headers: further response headers.
    """

    def __init__(self, status: int, text: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": self.text}


class Unauthenticated(Refused):
    """401, in the envelope of the auth surface."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(401, text)
        self.code = code

    @property
    def body(self) -> dict[str, Any]:
        """Return the JSON body."""
        return {"error": self.code, "error_description": self.text, "status_code": self.status}

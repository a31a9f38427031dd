"""The wire: one method an endpoint. It neither sleeps nor repeats nor decides; it asks once and says what came of it.

URLs that an answer names (`status_url`, `response_url`) are not followed: they are built from the settings, so that
the key never goes to a host that an answer chose.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from variations import errors
from variations.api import answers
from variations.api.http import TRANSPORT_ERRORS, was_never_sent
from variations.models import Accepted, Credits, GeneratedImage, HistoryRecord, Status
from variations.parameters import MODEL

_GAVE_UP_WAITING = frozenset({408, 499})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the API is, and the key to it. The key shows in no `repr`."""

    api_key: str = field(repr=False)
    base_url: str = "https://api.segmind.com"
    history_url: str = "https://api.spotprod.segmind.com/inference-request/request-history"
    upload_url: str = "https://workflows-api.segmind.com/upload-asset"


class Client:
    """The Flux Redux Dev API.

    Every method raises the errors of `variations.errors`, with the request's id where there is one. A GET that got no
    answer is `ServiceUnavailable`, a POST that got none `SubmitUnknown`; either is `Unreachable` where it never left.

    Args:
        http: passed in and not closed; `variations.api.http.default_http_client()` is a good one.
        endpoint: hosts and key.
        model: the model's slug.
    """

    def __init__(self, http: httpx.AsyncClient, *, endpoint: Endpoint, model: str = MODEL) -> None:
        self._http = http
        self._endpoint = endpoint
        self._base_url = endpoint.base_url.rstrip("/")
        self._model = model
        self._headers = {"x-api-key": endpoint.api_key}
        self._heard: Callable[[str | None], None] = lambda _: None

    def __repr__(self) -> str:
        return f"Client({self._endpoint!r})"

    @property
    def endpoint(self) -> Endpoint:
        """Where the API is."""
        return self._endpoint

    @property
    def http(self) -> httpx.AsyncClient:
        """The HTTP client that was passed in."""
        return self._http

    def on_date(self, heard: Callable[[str | None], None]) -> None:
        """Call somebody with the `Date` of each answer of the API itself."""
        self._heard = heard

    async def submit(self, inputs: Mapping[str, Any]) -> Accepted:
        """Ask for images; from a normal return on they are paid for.

        Args:
            inputs: `redux_image` and the fields of `Parameters.as_sent()`.

        Raises:
            SubmitUnknown: the answer was lost, was 408, 499, 502 or 504, or names no request.
            Repeatable: it was not accepted, and may be sent again.
            InvalidRequest, RunError, RunPaused: it was not accepted.
        """
        answer = await self._post(f"{self._base_url}/v2/{self._model}", inputs)
        if answer.is_success:
            found = answers.accepted(answer.content)
            if found is None:
                raise errors.SubmitUnknown(f"accepted without a request id: {answers.error_text(answer.content)}")
            return found
        raise _refused_submit(answer)

    async def status(self, request_id: str) -> Status:
        """Ask how far a request is. A failed one is an answer too, though it comes as 422.

        Raises:
            RequestGone: unknown, or forgotten an hour after submission.
        """
        return await self._look_up(f"{self._base_url}/v2/requests/{quote(request_id, safe='')}/status", request_id)

    async def result(self, request_id: str) -> Status:
        """Ask for the final body: `Completed` with its outputs, or `Failed`; or the state, if it is not done.

        Raises:
            RequestGone: unknown, or forgotten an hour after submission.
        """
        return await self._look_up(f"{self._base_url}/v2/requests/{quote(request_id, safe='')}", request_id)

    async def poll(self, request_id: str) -> Status:
        """Ask the older poll endpoint (`poll_url`) for the same record."""
        return await self._look_up(f"{self._base_url}/v1/requests/{quote(request_id, safe='')}", request_id)

    async def generate(self, inputs: Mapping[str, Any], *, timeout_seconds: float = 600.0) -> GeneratedImage:
        """Make one image with the blocking v1 call; raises like `submit`."""
        answer = await self._post(f"{self._base_url}/v1/{self._model}", inputs, timeout_seconds=timeout_seconds)
        content_type = answer.headers.get("content-type")
        if not answer.is_success:
            raise _refused_submit(answer)
        if not (content_type or "").startswith("image/"):
            raise errors.SubmitUnknown(f"answered with no image: {answers.error_text(answer.content)}")
        seed = answers.number(answer.headers.get("x-seed-value"))
        return GeneratedImage(
            content=answer.content,
            content_type=content_type,
            request_id=answer.headers.get("x-request-id"),
            cost_usd=answers.number(answer.headers.get("x-cost")),
            remaining_credits=answers.number(answer.headers.get("x-remaining-credits")),
            generation_seconds=answers.number(answer.headers.get("x-generation-time")),
            seed=None if seed is None else int(seed),
        )

    async def credits(self) -> Credits:
        """Ask for the account's balance in USD."""
        answer = await self._get(f"{self._base_url}/v1/get-user-credits")
        if not answer.is_success:
            raise _refused(answer)
        return answers.account_credits(answer.content)

    async def upload_asset(self, files: Sequence[tuple[bytes, str]]) -> list[str]:
        """Hand over local files, as (content, content type), and return a persistent URL for each, in order."""
        data_urls = [f"data:{kind};base64,{base64.b64encode(content).decode()}" for content, kind in files]
        try:
            answer = await self._post(self._endpoint.upload_url, {"data_urls": data_urls})
        except errors.SubmitUnknown as error:
            # An upload is not billed: a lost answer may be asked for again.
            raise errors.ServiceUnavailable(f"the upload got no answer: {error.message}") from error
        if not answer.is_success:
            raise _refused(answer)
        return answers.file_urls(answer.content, expected=len(files))

    async def history(
        self,
        *,
        page: int = 1,
        per_page: int = 100,
        from_date: str | None = None,
        to_date: str | None = None,
        status: str | None = None,
        sort_order: str = "desc",
    ) -> list[HistoryRecord]:
        """Ask for a page of this model's requests, in flight and failed ones too, newest first.

        Dates are `YYYY-MM-DD`, and the window spans at most 31 days. A request whose rows straddle two pages shows on
        both: join by `request_id`. Fewer than `per_page` rows mean the last page; an empty list is beyond it.
        """
        wanted = {
            "page": page,
            "per_page": per_page,
            "from_date": from_date,
            "to_date": to_date,
            "model_name": self._model,
            "status": status,
            "sort_by": "model_created",
            "sort_order": sort_order,
        }
        answer = await self._get(
            self._endpoint.history_url, params={name: value for name, value in wanted.items() if value is not None}
        )
        if not answer.is_success:
            raise _refused(answer)
        rows_of: dict[str, list[dict[str, Any]]] = {}
        for row in answers.history_rows(answer.content):
            if isinstance(row.get("request_id"), str):
                rows_of.setdefault(row["request_id"], []).append(row)
        return [answers.history_record(rows, request_id=request_id) for request_id, rows in rows_of.items()]

    async def history_record(self, request_id: str) -> HistoryRecord:
        """Ask the history for one request, of any age.

        Raises:
            RequestGone: it has no record of it, or none yet: records land late.
        """
        answer = await self._get(f"{self._endpoint.history_url}/{quote(request_id, safe='')}", request_id=request_id)
        if not answer.is_success:
            raise _refused(answer, request_id=request_id)
        body = answers.body_of(answer.content)
        if isinstance(body, dict) and isinstance(body.get("data"), dict):
            body = body["data"]
        rows = [body] if isinstance(body, dict) and "request_id" in body else answers.history_rows(answer.content)
        # A server that does not know the path may answer with the page of all requests.
        rows = [row for row in rows if row.get("request_id") == request_id]
        if not rows:
            raise errors.RequestGone("the history has no record of it", request_id=request_id)
        return answers.history_record(rows, request_id=request_id)

    async def _look_up(self, url: str, request_id: str) -> Status:
        answer = await self._get(url, request_id=request_id)
        # A failed request is served as 422. Of any other refusal the code has the word: gateways too say "status".
        if answer.is_success or answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            found = answers.status(answer.content, request_id=request_id)
            if found is not None:
                return found
        if answer.is_success:
            raise errors.ServiceUnavailable("the API told no status", request_id=request_id)
        raise _refused(answer, request_id=request_id)

    async def _get(
        self, url: str, *, request_id: str | None = None, params: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        try:
            answer = await self._http.get(url, headers=self._headers, params=params, follow_redirects=False)
        except TRANSPORT_ERRORS as error:
            if was_never_sent(error):
                raise _unreachable(url, error, request_id=request_id) from error
            raise errors.ServiceUnavailable(f"no answer ({_name(error)})", request_id=request_id) from error
        if url.startswith(self._base_url):
            self._heard(answer.headers.get("date"))
        return answer

    async def _post(self, url: str, body: Mapping[str, Any], *, timeout_seconds: float | None = None) -> httpx.Response:
        timeout = httpx.USE_CLIENT_DEFAULT if timeout_seconds is None else httpx.Timeout(timeout_seconds)
        request = self._http.build_request("POST", url, headers=self._headers, json=body, timeout=timeout)
        try:
            return await self._http.send(request, follow_redirects=False)
        except Exception as error:
            if was_never_sent(error):
                raise _unreachable(url, error) from error
            # Whatever it was: the request is on its way, and may be accepted.
            raise errors.SubmitUnknown(f"the answer was lost ({_name(error)})") from error


def _refused(answer: httpx.Response, *, request_id: str | None = None) -> errors.VariationsError:
    """Return what a refusal means where asking again costs nothing: a GET, and an upload."""
    error = answers.error_of(answer.status_code, answer.content, answer.headers, request_id=request_id)
    # A gateway's odd word (408, 423, 425, 499, a redirect) must not end a run that has images to fetch.
    if isinstance(error, errors.UnexpectedAnswer) and answer.status_code != httpx.codes.METHOD_NOT_ALLOWED:
        return errors.ServiceUnavailable(error.message, request_id=request_id)
    return error


def _refused_submit(answer: httpx.Response) -> errors.VariationsError:
    # A plain 500 is the application's own word that it did not accept; 502 and 504 are a gateway's, which cannot know,
    # and so are 408 and 499, which say that one side gave up waiting.
    if answer.status_code > httpx.codes.INTERNAL_SERVER_ERROR or answer.status_code in _GAVE_UP_WAITING:
        text = answers.error_text(answer.content)
        return errors.SubmitUnknown(f"the API answered {answer.status_code}: {text}")
    return answers.error_of(answer.status_code, answer.content, answer.headers)


def _unreachable(url: str, error: BaseException, *, request_id: str | None = None) -> errors.Unreachable:
    host = urlsplit(url).netloc
    message = f"no connection to {host} ({_name(error)}); check the network, and SEGMIND_BASE_URL where it is set"
    return errors.Unreachable(message, request_id=request_id)


def _name(error: BaseException) -> str:
    cause = error.__cause__ or error
    return type(cause).__name__

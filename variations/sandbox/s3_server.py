"""An S3 server on this machine: moto's, which keeps everything in memory."""

import contextlib
import importlib.util
import io
import logging
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from variations.errors import SettingsError


@contextlib.contextmanager
def running_s3() -> Iterator[str]:
    """Run an S3 server in a background thread and yield its URL.

    Raises:
        SettingsError: moto is not installed.
    """
    if importlib.util.find_spec("moto") is None:
        raise SettingsError("the demo needs moto: pip install 'variations[demo]'")
    # Of the extra `demo`.
    from moto.moto_server.werkzeug_app import (  # noqa: PLC0415
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server  # noqa: PLC0415

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = _OneConditionalWriteAtATime(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, name="s3", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _OneConditionalWriteAtATime:
    """Make of moto's look at the condition and its write one step: of two that came in between, both would be first."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._writing = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "PUT" or not {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH"} & environ.keys():
            return self._app(environ, start_response)  # type: ignore[no-any-return]
        if length := environ.get("CONTENT_LENGTH"):
            # A client that is slow keeps no other from writing.
            environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(int(length)))
        with self._writing:
            return self._app(environ, start_response)  # type: ignore[no-any-return]

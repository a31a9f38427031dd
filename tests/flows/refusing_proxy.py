"""Prefect's API with a part of it that is refused, on a loopback port."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_NOT_ITS_OWN = {"transfer-encoding", "content-encoding", "content-length", "connection", "date", "server"}


@contextmanager
def refusing_proxy(upstream: str, part: str, refused: list[str]) -> Iterator[str]:
    """Yield the URL of an API that answers 403 below `part`, and for all else as the one upstream.

    It takes no websockets, so that no event arrives.

    Args:
        upstream: URL of the API.
        part: beginning of the paths that are refused.
        refused: the paths of requests that were.
    """
    root = upstream.removesuffix("/api")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.path.startswith(f"/api{part}") or "upgrade" in self.headers:
                refused.append(self.path)
                answer = httpx.Response(403, json={"detail": "not here"})
            else:
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                answer = http.request(self.command, f"{root}{self.path}", content=body, headers=headers)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name.lower() not in _NOT_ITS_OWN:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815 - the names it has

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    with httpx.Client(timeout=60) as http:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

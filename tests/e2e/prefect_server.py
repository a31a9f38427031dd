"""A Prefect server as a process of its own, and its API as the UI speaks it: HTTP and JSON, no code of Prefect's."""

import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx

from .processes import Running, running, until

# A first start makes the database; 40 s on two cores that do nothing else.
START_SECONDS: Final = 180.0
ANSWER_SECONDS: Final = 60.0
# With SQLite two that write at once may be refused (503), with nothing done; Prefect's own client asks again, too.
AGAIN_SECONDS: Final = (1.0, 2.0, 4.0, 8.0)


@contextmanager
def running_server(folder: Path, env: Mapping[str, str], *, database_url: str | None) -> Iterator["PrefectServer"]:
    """Run a Prefect server on a free port.

    Args:
        folder: where its log is.
        env: of the server; PREFECT_HOME is in it.
        database_url: its database; None for SQLite's file in PREFECT_HOME.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    settings = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # As the README starts it.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_UI_API_URL": f"{url}/api",
        **({"PREFECT_SERVER_DATABASE_CONNECTION_URL": database_url} if database_url else {}),
    }
    with (
        httpx.Client(base_url=f"{url}/api", timeout=ANSWER_SECONDS) as http,
        running("server", command, folder=folder, env={**env, **settings}) as process,
    ):
        server = PrefectServer(url, http, process)
        until("Prefect's server", server.is_up, seconds=START_SECONDS, processes=[process])
        yield server


class PrefectServer:
    """A Prefect server that runs.

    Attributes:
        url: its root, where the UI is.
        api_url: for PREFECT_API_URL.
        process: the server's.
    """

    def __init__(self, url: str, http: httpx.Client, process: Running) -> None:
        self.url = url
        self.api_url = f"{url}/api"
        self.process = process
        self._http = http

    def is_up(self) -> bool:
        """Return whether it answers."""
        try:
            return self._http.get("/health").is_success
        except httpx.TransportError:
            return False

    def get(self, path: str) -> Any:
        """Return what is there."""
        return self._ask("GET", path)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send a JSON body, and return the answer."""
        return self._ask("POST", path, json=body)

    def shorten_silence(self, *, seconds: float) -> None:
        """Have a silent run taken for dead after so many seconds, as its owner may on the page of the automation."""
        name = "variations: a silent run has crashed"
        (found,) = self.post("/automations/filter", {"automations": {"name": {"any_": [name]}}})
        kept = {key: found[key] for key in ("name", "description", "enabled", "trigger", "actions")}
        answer = self._http.put(
            f"/automations/{found['id']}", json={**kept, "trigger": {**kept["trigger"], "within": seconds}}
        )
        assert answer.is_success, answer.text

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self._http.request(method, path, **more)
        for seconds in AGAIN_SECONDS:
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(seconds)
            answer = self._http.request(method, path, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def deployment(self, flow: str) -> dict[str, Any]:
        """Return the deployment of a flow."""
        return dict(self.get(f"/deployments/name/{flow}/variations"))

    def start(self, flow: str, parameters: Mapping[str, Any]) -> str:
        """Start a flow run from its deployment as the UI's form does; returns its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED", "message": "Run from the Prefect UI"}}
        return str(self.post(f"/deployments/{self.deployment(flow)['id']}/create_flow_run", body)["id"])

    def cancel(self, flow_run_id: str) -> None:
        """Cancel a flow run as the UI's button does."""
        state = {"type": "CANCELLING", "name": "Cancelling", "message": "Cancelled from the Prefect UI"}
        answer = self.post(f"/flow_runs/{flow_run_id}/set_state", {"state": state})
        assert answer["status"] == "ACCEPT", answer

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """Return a flow run."""
        return dict(self.get(f"/flow_runs/{flow_run_id}"))

    def flow_runs(self, flow: str | None = None, *, parent: str | None = None) -> list[dict[str, Any]]:
        """Return the flow runs of a flow, or all, in the order of their start.

        Args:
            flow: its name.
            parent: id of the flow run that started them.
        """
        body: dict[str, Any] = {"sort": "START_TIME_ASC"}
        if flow is not None:
            body["flows"] = {"name": {"any_": [flow]}}
        if parent is not None:
            body["flow_runs"] = {"parent_flow_run_id": {"any_": [parent]}}
        return list(self.post("/flow_runs/filter", body))

    def artifacts(self, flow_run_id: str) -> dict[str, dict[str, Any]]:
        """Return the artifacts of a flow run, by their keys."""
        body = {"artifacts": {"flow_run_id": {"any_": [flow_run_id]}}}
        return {artifact["key"]: artifact for artifact in self.post("/artifacts/filter", body)}

    def slots(self) -> dict[str, int]:
        """Return how many slots are taken of each global concurrency limit; a deployment's is called by its id."""
        return {limit["name"]: limit["active_slots"] for limit in self.post("/v2/concurrency_limits/filter", {})}

    def logs(self, flow_run_id: str) -> list[str]:
        """Return what a flow run says."""
        body = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC"}
        return [f"{line['timestamp'][11:23]} {line['message']}" for line in self.post("/logs/filter", body)]

    def story(self) -> list[str]:
        """Return every flow run with its state and its log, for whoever has to find out what went wrong."""
        lines: list[str] = []
        for run in self.flow_runs():
            state = run["state"]
            lines += [f"{run['name']}: {state['name']} {state['message'] or ''}"]
            lines += [f"    {line}" for line in self.logs(run["id"])]
        return lines

"""Starting, stopping, and the command line."""

import gc
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc

import httpx
import pytest

from variations.sandbox import Sandbox, SandboxSettings, running_sandbox
from variations.sandbox.__main__ import main
from variations.sandbox.cache import ByteCache


def test_a_sandbox_leaves_no_thread_and_no_open_port_behind(photo: str) -> None:
    """Not even with a request in flight and a connection kept alive."""
    threads_before = set(threading.enumerate())
    with running_sandbox(SandboxSettings(workers=2), speed=2, faults=["slow:1:1"]) as sandbox:
        assert sandbox.settings.workers == 2
        assert sandbox.settings.speed == 2
        client = httpx.Client(base_url=sandbox.base_url, headers={"x-api-key": sandbox.api_key})
        assert client.post("/v2/flux-redux-dev", json={"redux_image": photo}).status_code == 200
    client.close()
    assert set(threading.enumerate()) <= threads_before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(sandbox.base_url.rpartition(":")[2])), timeout=1)


def test_a_blocking_call_is_let_go_when_the_sandbox_stops(photo: str) -> None:
    """Stopping does not wait for the latency of what is in flight."""
    answers: list[int] = []
    with running_sandbox() as sandbox:

        def call() -> None:
            url = f"{sandbox.base_url}/v1/flux-redux-dev"
            headers = {"x-api-key": sandbox.api_key}
            answers.append(httpx.post(url, json={"redux_image": photo}, headers=headers).status_code)

        thread = threading.Thread(target=call)
        thread.start()
        while not sandbox.bill().accepted:
            time.sleep(0.01)
        began = time.monotonic()
    thread.join()
    assert time.monotonic() - began < 5
    assert answers == [503]


def test_an_answer_is_not_held_back(api: httpx.Client, photo: str) -> None:
    """A small answer leaves at once: with Nagle's algorithm each one would take 40 ms."""
    took_seconds = []
    for _ in range(8):
        began = time.monotonic()
        api.post("/v2/flux-redux-dev", json={"redux_image": photo})
        took_seconds.append(time.monotonic() - began)
    assert min(took_seconds) < 0.03


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com"])  # noqa: S104 - it is refused
def test_only_a_loopback_address_is_bound(host: str) -> None:
    """The control endpoints need no key, so nobody else may reach them."""
    with pytest.raises(ValueError, match="loopback"), running_sandbox(host=host):
        pytest.fail("it was bound")
    with pytest.raises(SystemExit) as left:
        main(["--host", host])
    assert left.value.code == 2


def test_a_port_that_is_taken_is_an_error(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the context manager and of the command line."""
    port = int(sandbox.base_url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"), running_sandbox(port=port):
        pytest.fail("it was bound")
    assert main(["--port", str(port)]) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--fault", "nothing"], ["--speed", "0"], ["--latency-shape", "flat"]])
def test_a_wrong_argument_is_a_usage_error(arguments: list[str]) -> None:
    """Exit code 2, as of any command."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_prints_one_line_and_stops_on_a_signal(number: signal.Signals) -> None:
    """URL, key and bill; then exit code 0 and nothing on stderr."""
    command = [
        *(sys.executable, "-m", "variations.sandbox", "--speed", "1000", "--credits", "7"),
        *("--api-key", "SG_00112233445566aa", "--fault", "status_500:1:1", "--fault", "slow:0.5"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"at (http://127\.0\.0\.1:\d+) +key (\S+) +bill (\S+)", line)
        assert found is not None, line
        with httpx.Client(base_url=found[1], headers={"x-api-key": found[2]}) as client:
            assert client.get("/v1/get-user-credits").json()["credits"] == 7
            assert [fault["name"] for fault in client.get("/__sandbox/faults").json()["faults"]] == [
                "status_500",
                "slow",
            ]
            assert client.get(found[3]).status_code == 200
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_settled_request_keeps_about_a_kilobyte(sandbox: Sandbox, photo: str) -> None:
    """A hundred thousand requests are remembered without their images: nothing heavy stays with a record."""
    sandbox.configure(latency_seconds=0)
    sandbox.set_faults("failed")
    count = 200

    def run(seed: int) -> None:
        body = {"redux_image": f"{photo}?signature={seed}", "seed": seed, "num_outputs": 2, "output_format": "png"}
        assert client.post("/v2/flux-redux-dev", json=body).status_code == 200

    with httpx.Client(base_url=sandbox.base_url, headers={"x-api-key": sandbox.api_key}) as client:
        run(1)
        tracemalloc.start(1)
        try:
            for seed in range(2, 2 + count):
                run(seed)
            sandbox.advance_clock(0)
            gc.collect()
            # The caches of files and sources have budgets of their own; records are what grows.
            snapshot = tracemalloc.take_snapshot().filter_traces(
                [tracemalloc.Filter(inclusive=True, filename_pattern="*/sandbox/service.py")]
            )
        finally:
            tracemalloc.stop()
    held_bytes = sum(statistic.size for statistic in snapshot.statistics("filename"))
    assert {line.state for line in sandbox.bill().lines} == {"FAILED"}
    assert sandbox.bill().accepted == count + 1
    assert held_bytes / count < 2500


def test_a_cache_holds_its_budget_and_drops_what_was_not_used() -> None:
    """By bytes, the least recently used first; a single large entry is kept until the next comes."""
    cache: ByteCache[str] = ByteCache(10)
    cache.put("a", "A", size_bytes=4)
    cache.put("b", "B", size_bytes=4)
    assert cache.get("a") == "A"
    cache.put("c", "C", size_bytes=4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == ("A", None, "C")
    cache.put("c", "CC", size_bytes=5)
    assert (len(cache), cache.used_bytes) == (2, 9)
    cache.put("d", "D", size_bytes=99)
    assert (cache.get("d"), len(cache)) == ("D", 1)
    cache.clear()
    assert (len(cache), cache.used_bytes) == (0, 0)


def test_an_output_that_is_no_longer_held_is_made_again(photo: str) -> None:
    """With room for one file, the first of three is made again, and is the same."""
    settings = SandboxSettings(latency_seconds=0, output_cache_bytes=1)
    with running_sandbox(settings) as sandbox:
        headers = {"x-api-key": sandbox.api_key}
        with httpx.Client(base_url=sandbox.base_url, headers=headers) as client:
            body = {"redux_image": photo, "num_outputs": 3, "megapixels": "0.25"}
            job = client.post("/v2/flux-redux-dev", json=body).json()
            urls = client.get(job["response_url"]).json()["output"]
            first = [client.get(url).content for url in urls]
            assert [client.get(url).content for url in reversed(urls)] == first[::-1]
            assert len(set(first)) == 3

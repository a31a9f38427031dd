"""The stage: two servers that others find by a file, and that end with the command."""

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flows.commands.stage import stage
from variations.errors import BadInput


def variables(env: Path) -> dict[str, str]:
    """Return what a shell would take from the file."""
    words = shlex.split(env.read_text(encoding="utf-8"), comments=True)
    return dict(word.split("=", 1) for word in words if word != "export")


def test_others_find_the_servers_by_the_file_until_it_ends(tmp_path: Path) -> None:
    """The photos are there, the key is accepted, and nothing is left behind."""
    env = tmp_path / "stage.env"
    command = [sys.executable, "-m", "flows", "stage", "--speed", "1000", "--env", str(env)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{env}\n"
            found = variables(env)
            listed = httpx.get(f"{found['AWS_ENDPOINT_URL']}/demo", params={"list-type": "2"}).text
            assert "manifest.parquet" in listed
            assert "photos/" in listed
            plan = subprocess.run(
                [sys.executable, "-m", "flows", "plan", "s3://demo/manifest.parquet", "s3://demo/dataset"],
                env={**os.environ, **found},
                capture_output=True,
                text=True,
                timeout=120,
                check=True,
            )
            assert "images to pay for  10" in plan.stdout
        finally:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "bill: 0 requests" in said
    assert "Traceback" not in said
    assert not env.exists()


def test_a_file_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    """It may hold the real key."""
    env = tmp_path / ".env"
    env.write_text("SEGMIND_API_KEY=SG_0000000000000000\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no stage's"):
        stage(env=env)
    assert env.read_text(encoding="utf-8") == "SEGMIND_API_KEY=SG_0000000000000000\n"


def test_a_speed_that_is_none_is_refused(tmp_path: Path) -> None:
    """It divides."""
    with pytest.raises(BadInput, match="--speed"):
        stage(speed=0, env=tmp_path / "stage.env")

"""What holds for every test: a clean environment, and a folder of its own to work in."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

from variations.sandbox import Sandbox

# How long an example takes says how busy the machine is.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the machine reaches a test, and no test writes into the checkout."""
    for name in list(os.environ):
        if name.startswith(("SEGMIND_", "VARIATIONS_", "AWS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sandbox(shared_sandbox: Sandbox) -> Sandbox:
    """Give the sandbox of the tests around, which has forgotten everything: bill, faults, files and settings."""
    shared_sandbox.reset()
    return shared_sandbox

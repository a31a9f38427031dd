"""`compose.yaml`: it is one, it pins what it starts, and neither it nor what lies beside it holds a secret."""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from config import load_settings
from config.settings import Settings, variable_of
from deployments.container import BEHAVIOUR
from deployments.server_checks import ON_DISK
from flows.commands import app
from variations.sandbox import DEFAULT_API_KEY

ROOT: Final = Path(__file__).parents[2]
PATH: Final = ROOT / "deployments/compose.yaml"
TRIAL: Final = ROOT / "deployments/trial.env"
SERVICES: Final[dict[str, dict[str, Any]]] = yaml.safe_load(PATH.read_text(encoding="utf-8"))["services"]
OURS: Final = [name for name, service in SERVICES.items() if "build" in service]
VERSION: Final = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def checked(path: Path) -> "subprocess.CompletedProcess[str]":
    """Hold a file against the schema of the compose specification."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def test_it_is_a_compose_file(tmp_path: Path) -> None:
    """By the specification's own schema, which finds what is none."""
    found = checked(PATH)
    assert found.returncode == 0, found.stdout
    broken = tmp_path / "compose.yaml"
    broken.write_text(PATH.read_text(encoding="utf-8").replace("stop_grace_period", "stop_grace_seconds"))
    assert "'stop_grace_seconds' was unexpected" in checked(broken).stdout


def test_what_is_built_is_this_version() -> None:
    """One image, built here, under the number that the project has."""
    assert VERSION is not None
    for name in OURS:
        service = SERVICES[name]
        assert service["image"] == f"variations:{VERSION[1]}"
        assert (PATH.parent / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()
    assert set(SERVICES) - set(OURS) == {"database"}
    assert re.fullmatch(r"postgres:\d+-\w+", SERVICES["database"]["image"])


def test_no_secret_is_written_in_it() -> None:
    """Whatever is called like one comes from the environment, or is the sandbox's, which is none."""
    found = {
        (name, variable): value
        for name, service in SERVICES.items()
        for variable, value in service.get("environment", {}).items()
        if re.search(r"KEY|PASSWORD|TOKEN|SECRET|AUTH", variable)
    }
    assert len(found) == 6
    for value in found.values():
        assert value is None or re.fullmatch(r"\$\{[A-Z_]+:[?-].*\}", value), found
    # A password that is not given is asked for, and not made empty.
    passwords = {value for (_, variable), value in found.items() if variable.endswith("PASSWORD")}
    assert passwords == {"${DATABASE_PASSWORD:?set it to a password of your own}"}
    assert "secrets" not in yaml.safe_load(PATH.read_text(encoding="utf-8"))


def test_only_this_machine_reaches_it() -> None:
    """The server asks nobody who they are, and starts what costs money."""
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200"]


def test_what_lasts_is_healthy_before_others_lean_on_it() -> None:
    """What runs on has a check of its health, but for the sandbox; and what is waited for has one, or ends."""
    lasting = {name for name, service in SERVICES.items() if service["restart"] != "no"}
    assert {name for name, service in SERVICES.items() if "healthcheck" in service} == lasting - {"sandbox"}
    conditions = {
        (name, other): how["condition"]
        for name, service in SERVICES.items()
        if isinstance(service.get("depends_on"), dict)
        for other, how in service["depends_on"].items()
    }
    assert conditions == {
        ("server", "database"): "service_healthy",
        ("deploy", "server"): "service_healthy",
        ("worker", "server"): "service_healthy",
        ("worker", "deploy"): "service_completed_successfully",
    }


def test_a_flow_has_the_time_that_it_takes_to_stop() -> None:
    """The worker is killed long after the flow's grace period."""
    minutes = re.fullmatch(r"(\d+)m", SERVICES["worker"]["stop_grace_period"])
    assert minutes is not None
    assert int(minutes[1]) * 60 > 3 * Settings().grace_seconds
    # And goes on after that.
    assert SERVICES["worker"]["environment"][BEHAVIOUR] == "reschedule"


def test_nothing_of_ours_has_rights_that_it_does_not_need() -> None:
    """All capabilities are dropped, and none is to be had."""
    for name in OURS:
        assert SERVICES[name]["cap_drop"] == ["ALL"]
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
        assert not {"privileged", "user"} & SERVICES[name].keys()
        # No folder of the machine.
        assert SERVICES[name].get("volumes", []) == (["server:/tmp"] if name == "server" else [])


def test_the_leases_of_the_server_outlive_it() -> None:
    """They are on its disk, below the home folder of the image's user, which is a volume."""
    name, _, module = ON_DISK.partition("=")
    assert SERVICES["server"]["environment"][name] == module
    home = re.search(r"--home-dir (\S+)", (ROOT / "deployments/Dockerfile").read_text(encoding="utf-8"))
    assert home is not None
    assert SERVICES["server"]["volumes"] == [f"server:{home[1]}"]
    assert "PREFECT_HOME" not in SERVICES["server"]["environment"]


@pytest.mark.parametrize("name", [name for name in OURS if SERVICES[name]["command"][0] == "variations"])
def test_our_commands_are_understood(name: str) -> None:
    """The command line takes them as they stand there."""
    _, bound, *_ = app.parse_args(SERVICES[name]["command"][1:], exit_on_error=False)
    assert bound is not None


def test_the_sandbox_is_where_the_trial_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the worker's loopback, with the key that it accepts."""
    for line in TRIAL.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            monkeypatch.setenv(*shlex.split(line)[0].split("=", 1))
    endpoint = load_settings().endpoint()
    sandbox = SERVICES["sandbox"]
    port = sandbox["command"][sandbox["command"].index("--port") + 1]
    assert sandbox["network_mode"] == "service:worker"
    assert sandbox["profiles"] == ["trial"]
    assert endpoint.api_key == DEFAULT_API_KEY
    assert endpoint.base_url == f"http://127.0.0.1:{port}"
    passed_on = {name for name in SERVICES["worker"]["environment"] if name.startswith("SEGMIND_")}
    assert passed_on == {variable_of(name) for name in Settings.model_fields if name.endswith("_url")}

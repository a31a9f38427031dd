"""What is public is listed here once; a name that goes or comes is a decision."""

import importlib
import inspect

import pytest

PUBLIC = {
    "variations": ["InferenceFailed", "InferenceTimeout", "VariationsError", "open_image", "read_dataset"],
    "variations.manifest": ["Manifest", "fetch_manifest"],
    "variations.storage": ["Entry", "S3Options", "Storage", "close_clients", "open_storage", "split_uri"],
    "variations.sandbox": [
        "DEFAULT_API_KEY",
        "FAULTS",
        "Bill",
        "BillLine",
        "Fault",
        "Sandbox",
        "SandboxSettings",
        "running_sandbox",
        "sample_photos",
    ],
    "config": ["Settings", "load_settings"],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_of_a_package(package: str) -> None:
    """They are these, and they are there."""
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package])
    for name in module.__all__:
        assert hasattr(module, name), name


@pytest.mark.parametrize("package", PUBLIC)
def test_public_functions_and_classes_are_described(package: str) -> None:
    """Their help says something."""
    module = importlib.import_module(package)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert len(inspect.getdoc(thing) or "") > 20, name


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("variations.job", ["Job"]),
        ("variations.estimate", ["estimate"]),
        ("variations.run", ["Run", "open_run", "running"]),
        ("variations.planning.recipe", ["Recipe"]),
        ("variations.plan", ["Plan", "check_leaks"]),
        ("variations.receipt", ["Receipt", "RunStopped"]),
        ("variations.planning.planner", ["Counts", "Planner"]),
        ("variations.publish", ["part_keys", "publish", "read_known"]),
        ("variations.layout", ["OPEN_KEY", "RUNS_PREFIX", "journal_key", "part_key", "plan_key", "receipt_key"]),
        ("variations.parameters", ["ASPECT_RATIOS", "MODEL", "PARAMETER_NAMES", "Parameters"]),
        ("variations.dataset", ["METADATA_KEY", "SCHEMA", "SCHEMA_VERSION"]),
        ("variations.api.client", ["Client", "Endpoint"]),
        ("variations.engine.engine", ["Engine"]),
        ("variations.engine.limits", ["Limits"]),
    ],
)
def test_the_names_that_flows_and_scripts_use(module: str, names: list[str]) -> None:
    """They stay where they are."""
    found = importlib.import_module(module)
    assert [name for name in names if not hasattr(found, name)] == []


def test_a_notebook_needs_one_import() -> None:
    """And no Prefect comes with it."""
    import variations  # noqa: PLC0415 - that is what is tested

    assert variations.read_dataset.__module__ == "variations.reading"
    assert issubclass(variations.InferenceFailed, variations.VariationsError)

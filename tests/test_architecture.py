"""The picture in the design: who may import whom, read from the imports themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("variations", "config", "tasks", "flows", "deployments")
ENVIRONMENT = {"os.environ", "os.getenv", "os.environb", "os.putenv", "os.expandvars", "os.path.expandvars"}


def module_of(path: Path) -> str:
    """Return a file's name as it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_of(path): ast.parse(path.read_text(encoding="utf-8"))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports_of(module: str, *, at_once: bool = False) -> set[str]:
    """Return what a module imports, by whole names; `at_once` leaves out what functions and type checkers import."""
    tree = MODULES[module]
    late: set[int] = set()
    if at_once:
        for node in ast.walk(tree):
            is_typing = isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
            if is_typing or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                late |= {id(inner) for inner in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in late:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def is_within(name: str, *packages: str) -> bool:
    """Return whether a name is a package or something of it."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def within(*packages: str) -> Iterator[str]:
    """Yield the modules of packages."""
    return (module for module in MODULES if is_within(module, *packages))


def offenders(modules: Iterator[str], *forbidden: str) -> list[str]:
    """Return which modules import what they must not."""
    return sorted(
        f"{module} imports {name}" for module in modules for name in imports_of(module) if is_within(name, *forbidden)
    )


def test_there_is_something_to_read() -> None:
    """A folder that was renamed must not pass unread."""
    assert {module.partition(".")[0] for module in MODULES} == set(PACKAGES)
    assert len(MODULES) > 50
    assert "variations.errors.StorageError" in imports_of("variations.run")


def test_the_library_knows_no_prefect() -> None:
    """Nor what is built on it: it runs wherever Python does."""
    assert offenders(within("variations"), "prefect", "flows", "tasks", "config", "deployments") == []


def test_the_library_does_not_read_the_environment() -> None:
    """Settings are read once and passed down; boto3 reads its own."""
    found = [
        f"{module}:{node.lineno}"
        for module in within("variations")
        for node in ast.walk(MODULES[module])
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ENVIRONMENT
    ]
    assert found == []
    assert [module for module in within("variations") if ENVIRONMENT & imports_of(module)] == []


def test_only_the_storage_for_s3_imports_boto3() -> None:
    """It is the one seam to an object store."""
    others = (module for module in MODULES if not module.startswith("variations.storage.s3"))
    assert offenders(others, "boto3", "botocore", "s3transfer", "mypy_boto3_s3") == []


def test_only_commands_import_the_sandbox() -> None:
    """No real run has anything to do with it."""
    others = (module for module in MODULES if not is_within(module, "variations.sandbox", "flows.commands"))
    assert offenders(others, "variations.sandbox") == []


def test_tasks_import_the_library_alone() -> None:
    """And Prefect: they neither read settings nor know flows."""
    assert offenders(within("tasks"), "flows", "config", "deployments") == []


def test_settings_import_the_library_alone() -> None:
    """Prefect reads its own settings; ours that its blocks hold are read by one module, which no other needs."""
    assert offenders(within("config"), "flows", "tasks", "deployments") == []
    others = (module for module in within("config") if module != "config.blocks")
    assert offenders(others, "prefect", "config.blocks") == []


def test_nothing_imports_the_deployments_but_the_command_line() -> None:
    """Arrows point from them to the flows; the commands that set up and examine a server start them, as the sandbox's
    does the sandbox, and none needs them before it runs.
    """
    others = (module for module in MODULES if not is_within(module, "deployments", "flows.commands"))
    assert offenders(others, "deployments") == []
    at_once = [
        module
        for module in within("flows")
        if any(is_within(name, "deployments") for name in imports_of(module, at_once=True))
    ]
    assert at_once == []


def test_nothing_imports_a_flow_but_the_command_line() -> None:
    """Arrows point from flows to tasks to the library."""
    others = (module for module in MODULES if not is_within(module, "flows"))
    assert offenders(others, "flows") == []


def flow_files() -> list[str]:
    """Return the modules of `flows/` that Prefect loads: all but the command line."""
    return [module for module in within("flows") if module.count(".") == 1 and module != "flows.__main__"]


def test_flow_files_define_flows_and_nothing_else() -> None:
    """Loaded by its path, a flow file is a second module: what it defines exists twice."""
    assert "flows.augment" in flow_files()
    for module in flow_files():
        for node in MODULES[module].body:
            assert not isinstance(node, ast.ClassDef), f"{module} defines the class {node.name}"
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                decorators = {ast.unparse(decorator).partition("(")[0] for decorator in node.decorator_list}
                assert "flow" in decorators, f"{module} defines {node.name}, which is no flow"


def test_no_file_among_the_flows_is_called_like_a_package() -> None:
    """`flows/` itself goes to the head of `sys.path` when Prefect loads a flow by its path."""
    names = {path.stem for path in (ROOT / "flows").iterdir()}
    assert not names & {*PACKAGES, "prefect", "pydantic", "httpx", "boto3", "pandas", "pyarrow"}


def graph_of(*, by_package: bool) -> dict[str, set[str]]:
    """Return which module (or package) needs which other before it can be imported."""

    def node(name: str) -> str | None:
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if not name or not by_package:
            return name or None
        parts = name.split(".")
        # A package's folder; of the library's own files, each is one.
        return ".".join(parts[:2]) if parts[0] == "variations" else parts[0]

    edges: dict[str, set[str]] = {}
    for module in MODULES:
        one = node(module)
        assert one is not None
        needed = {other for name in imports_of(module, at_once=True) if (other := node(name))}
        edges.setdefault(one, set()).update(needed - {one, "variations"})
    return edges


def cycle_in(edges: dict[str, set[str]]) -> list[str]:
    """Return a circle of imports, if there is one."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges.get(name, ())):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    for name in sorted(edges):
        if found := visit(name, []):
            return found
    return []


@pytest.mark.parametrize("by_package", [False, True], ids=["modules", "packages"])
def test_no_imports_go_in_circles(by_package: bool) -> None:
    """Each part can be read, and tested, without those above it."""
    edges = graph_of(by_package=by_package)
    assert "variations.storage" in set().union(*edges.values())
    assert cycle_in(edges) == []


def test_a_circle_is_found() -> None:
    """The search itself works."""
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_every_package_is_installed() -> None:
    """What `pyproject.toml` does not list is missing from a wheel."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    folders = {module_of(path) for package in PACKAGES for path in (ROOT / package).rglob("__init__.py")}
    listed = text.partition("[tool.setuptools]")[2].partition("]")[0]
    assert {name.strip().strip('",') for name in listed.partition("[")[2].split("\n") if name.strip()} == folders

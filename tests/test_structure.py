"""Who may import whom: DESIGN's rules, read off the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {"protocol", "actors", "learner", "deploy"}
MAY_IMPORT = {
    "protocol": {"protocol"},
    "actors": {"actors", "protocol"},
    "learner": {"learner", "protocol"},
    "deploy": OURS,
}
MATHEMATICS = {"maze", "states", "policy", "credit", "inner", "families", "rollout", "outer", "evaluation"}
SOCKETS_AND_METRICS = {"zmq", "socket", "asyncio", "threading", "prometheus_client"}
WIRE = {"messages", "frames", "links", "keys"}
SOURCES = sorted(  # `python -m learner` and `python -m actors` hand over to `clew`, which is in deploy
    path for package in OURS for path in (ROOT / package).rglob("*.py") if path.name != "__main__.py"
)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, with whatever it takes from it: "a.b" for `from a import b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_package_imports_only_those_it_may(path: Path) -> None:
    assert roots(path) & OURS <= MAY_IMPORT[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stem in MATHEMATICS], ids=name_of)
def test_the_mathematics_touches_no_socket_and_no_metric(path: Path) -> None:
    assert not roots(path) & SOCKETS_AND_METRICS


@pytest.mark.parametrize("path", [path for path in SOURCES if path.stem in WIRE], ids=name_of)
def test_the_wire_never_imports_torch(path: Path) -> None:
    assert "torch" not in {name.partition(".")[0] for name in reachable(name_of(path))}


def test_nothing_is_unpickled() -> None:
    assert not any({"pickle", "marshal", "shelve", "dill"} & roots(path) for path in SOURCES)


def test_no_module_imports_itself_in_a_circle() -> None:
    assert not [name_of(path) for path in SOURCES if name_of(path) in reachable(name_of(path))]


def reachable(module: str) -> set[str]:
    """Everything that importing `module` imports, through modules of ours."""
    modules = {name_of(path): imports(path) for path in SOURCES}
    found: set[str] = set()
    todo = [module]
    while todo:
        new = modules.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_holds_one_idea_and_says_which(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    assert path.stem == "__init__" or ast.get_docstring(ast.parse(text))

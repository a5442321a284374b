"""Who may import whom, and how files, classes and docstrings look: rules of DESIGN and STYLE, read off the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from protocol.config import Config
from tests import ROOT

OURS = {"protocol", "actors", "learner", "deploy", "clew"}
MAY_IMPORT = {
    "protocol": {"protocol"},
    "actors": {"actors", "protocol"},
    "learner": {"learner", "protocol"},
    "deploy": OURS - {"clew"},
    "clew": OURS,  # and nothing imports it
}
FRONT = {"deploy", "clew"}  # what starts processes and shows people what they do
MAY_SEE = {
    "protocol.world": {"protocol.world", "protocol.compiled"},
    "protocol.learning": {"protocol.world", "protocol.learning", "protocol.compiled"},
}
UPSTAIRS = {  # what a room of deploy does not import
    "deploy.process": ("deploy.study", "deploy.compare", "deploy.page", "deploy.command", "deploy.cli", "deploy.ray"),
    "deploy.study": ("deploy.compare", "deploy.page", "deploy.command", "deploy.cli", "deploy.ray"),
    "deploy.compare": ("deploy.page", "deploy.command", "deploy.cli", "deploy.ray"),
    "deploy.page": ("deploy.compare", "deploy.command", "deploy.cli", "deploy.ray"),
}
OUTSIDE = {"zmq", "msgpack", "socket", "asyncio", "threading", "time", "signal", "subprocess", "prometheus_client"}
IMPURE = {  # what may know of sockets, clocks, threads and metrics: all the rest of the three packages is mathematics
    *("protocol.wire.frames", "protocol.wire.sockets", "protocol.wire.learner_links", "protocol.wire.actor_links"),
    *("protocol.wire.binding", "protocol.wire.descriptors", "protocol.wire.door", "protocol.wire.keys"),
    "protocol.wire.reach",
    *("actors.actor", "actors.metrics", "actors.rollout"),  # the last: how long each part of its work took
    *("learner.clerk", "learner.roster", "learner.answers", "learner.reception", "learner.audit"),
    *("learner.learner", "learner.metrics", "learner.parallel", "learner.traces"),
}
# The words with which no docstring may begin, since what follows needs the name above it.
LEANING = {
    *("Also", "And", "As", "At", "But", "By", "For", "From", "How", "In", "It", "Its", "Of", "On", "Or", "So", "That"),
    *("Their", "There", "These", "They", "This", "Those", "To", "What", "When", "Where", "Whether", "Which", "Who"),
    *("Whose", "Why", "With"),
}
LETTERS: dict[str, str | tuple[str, ...]] = {  # what a letter of a shape means, in every file
    "A": "moves",
    "B": "cells seen around one",
    "C": "cells of all mazes",
    "D": "kinds of dream",
    "E": "attempts at",
    "F": "features of",
    "G": "gains of a dream",
    "H": "hidden units",
    "I": "cells of one maze",
    "J": "facts that hindsight knows of a step",
    "K": "inner steps",
    "L": "looks",
    "M": "mazes",
    "N": "steps of all attempts",
    "O": "places for observations",
    "P": "parameters",
    "Q": "features of the baseline and the return",
    "R": "rooms of one maze",
    "S": "situations",
    "T": "steps of an attempt",
    "U": "distinct observations",
    "V": "versions of theta",
    "W": ("walkers", "attempts"),  # each walker makes one attempt
    "X": ("cells of all mazes that meet a condition", "rooms of all mazes that meet a condition"),
    "Y": ("cells of all walkers", "cells of all attempts"),
    "Z": "gates",
}
OF_STUDIES: dict[str, str | tuple[str, ...]] = {  # what it may mean in deploy/study and deploy/compare instead
    "D": "resamples",
    "G": "groups",
    "N": ("members of a group", "robots of a portion"),
    "Q": "robots in all",
    "S": "stages",
    "Z": "robots in each",
}
LONG = {  # the functions of more than 80 lines, and why they are not cut
    "protocol.compiled.walk.walk_on": "numba makes several functions of it slower, as its docstring says",
}
UNSET = {  # the settings that no config of deploy/configs sets, and why they are settings
    "maze.exits": "how many exits a maze has is part of the task",
    "maze.braid": "how many loops a maze has is part of the task",
    "maze.path": "family 'file' needs it, and clew ships no file of mazes",
    "policy.memory": "rivals of clew compare set it: RL² and policy gradient have no memory but their own",
    "inner.credit": "it names a function of the user's own, as the README says",
    "inner.credit_features": "it names functions of the user's own, as the README says",
    "inner.discount": "policy gradient, a rival of clew compare, sets it",
    "run.seed": "clew train --seed sets it",
    "run.discount": "what is to be maximised is part of the task; the exact oracle of the tests sets it to 1",
    "run.checkpoint_every": "it follows from the machines of a run, and an alert names it as the remedy",
    "run.audit": "how far actors are trusted is the operator's to say, as the README says",
}
SOURCES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, with whatever it takes from it: "a.b" for `from a import b`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def roots(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(path: Path) -> str:
    """The package that a file is in: protocol.world, for one."""
    return ".".join(path.relative_to(ROOT).parent.parts)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_package_imports_only_those_it_may(path: Path) -> None:
    assert roots(path) & OURS <= MAY_IMPORT[path.relative_to(ROOT).parts[0]]


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path).split(".")[0] not in FRONT], ids=name_of)
def test_the_mathematics_touches_no_socket_no_clock_and_no_metric(path: Path) -> None:
    assert bool(roots(path) & OUTSIDE) == (name_of(path) in IMPURE)


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) in MAY_SEE], ids=name_of)
def test_a_room_of_protocol_sees_only_those_below_it(path: Path) -> None:
    seen = {".".join(name.split(".")[:2]) for name in imports(path) if name.startswith("protocol.")}
    assert seen - {"protocol.config", "protocol.own"} <= MAY_SEE[room_of(path)]


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) in UPSTAIRS], ids=name_of)
def test_a_room_of_deploy_sees_only_those_below_it(path: Path) -> None:
    assert not [name for name in imports(path) if name.startswith(UPSTAIRS[room_of(path)])]


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.relative_to(ROOT).parts[0] == "protocol"], ids=name_of
)
def test_only_the_wire_speaks_of_zmq_and_msgpack(path: Path) -> None:
    assert room_of(path) == "protocol.wire" or not roots(path) & {"zmq", "msgpack"}


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.relative_to(ROOT).parts[0] in ("protocol", "actors")], ids=name_of
)
def test_what_an_actor_needs_never_imports_torch(path: Path) -> None:
    assert "torch" not in {name.partition(".")[0] for name in reachable(name_of(path))}


def test_an_actor_that_is_started_has_loaded_neither_torch_nor_matplotlib() -> None:
    program = (
        "import sys, deploy.cli, deploy.process.child, actors.actor; print(*{'torch', 'matplotlib'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


def test_who_imports_clew_has_loaded_nothing_of_its_extras() -> None:
    extras = {"torch", "matplotlib", "numba", "gymnasium", "tensorboardX", "pyarrow", "opentelemetry"}
    program = f"import sys, clew; print(*{extras} & set(sys.modules))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


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
        new = modules.get(todo.pop(), frozenset()) - found
        found |= new
        todo += new
    return found


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_file_holds_one_idea_and_says_which(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 300
    assert path.stem == "__init__" or ast.get_docstring(ast.parse(text))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_function_is_short_or_is_known_to_be_long(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert (lines > 80) == (f"{name_of(path)}.{node.name}" in LONG), f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_class_has_few_methods_or_says_why_it_has_many(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ClassDef):
            methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
            assert len(methods) <= 15 or "methods" in (ast.get_docstring(node) or ""), node.name


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_docstring_is_a_sentence_that_stands_alone(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            first = text.partition("\n\n")[0]
            assert first[0].isupper() or first[0] == "`", first
            assert first.endswith("."), first
            assert first.split()[0].strip(",.:") not in LEANING, first
            assert not first.startswith("The same"), first


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_letter_of_a_shape_means_the_same_in_every_file(path: Path) -> None:
    legend = legend_of(path)
    of_studies = OF_STUDIES if room_of(path) in ("deploy.study", "deploy.compare") else {}
    for letter, meaning in legend:
        meant = any(map(meaning.startswith, (LETTERS[letter], of_studies.get(letter, ()))))
        assert meant, f"{letter} {meaning}"
    letters = [letter for letter, _ in legend]
    assert len(letters) == len(set(letters))
    assert letters_in_names(path) <= set(letters)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_legend_explains_only_letters_that_its_file_uses(path: Path) -> None:
    top, _, rest = path.read_text().partition("from __future__")
    used = letters_in_names(path) | set(re.findall(r"\b\d?([A-Z])\d?\b", rest))
    used |= set("".join(re.findall(r" = ([A-Z*]+)", top)))  # M and E of "W = M*E attempts"
    assert {letter for letter, _ in legend_of(path)} <= used


def test_every_setting_is_set_by_a_config_that_ships_or_says_why_not() -> None:
    known = {f"{section}.{key}" for section, values in Config().model_dump().items() for key in values}
    trees = [tomllib.loads(path.read_text()) for path in (ROOT / "deploy/configs").glob("*.toml")]
    used = {f"{section}.{key}" for tree in trees for section, values in tree.items() for key in values}
    assert used.isdisjoint(UNSET)
    assert used | UNSET.keys() == known


def legend_of(path: Path) -> list[tuple[str, str]]:
    """The letters of shapes that the comment at the top of a file explains, and what each means."""
    top = path.read_text().partition("from __future__")[0]
    comments = " ".join(line.removeprefix("# ") for line in top.splitlines() if line.startswith("# "))
    return re.findall(r"(?:^|, )([A-Z])(?: = [\w*]+)? ([a-z][a-z ]+)", comments)


def letters_in_names(path: Path) -> set[str]:
    """The letters of shapes in the names of a file's variables: M and A of `logits_MA`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        for name in (getattr(node, field, "") for field in ("id", "arg", "attr")):
            if isinstance(name, str) and (shape := re.fullmatch(r"_*[a-z]+(?:_[a-z]+)*_([A-Z][A-Z0-9]*)", name)):
                found |= set(re.sub(r"\d", "", shape[1])) if name not in ("do_GET", "do_HEAD") else set()
    return found

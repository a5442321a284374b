"""Makes one Config of a TOML file, CLEW_… variables and the command line, each over the former.

What cannot be used is an error of one line that says where it came from and how to mend it.
"""

from __future__ import annotations

import difflib
import os
import re
import reprlib
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from protocol.config import ClewError, Config, is_of_first_design

PREFIX = "CLEW_"
MODULES = "CLEW_MODULES"  # no setting: what `clew actor --module` says where no command line is at hand
COMMAND_LINE = "--set"
SECTIONS = Config.model_fields
Tree = dict[str, Any]

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
shortened = _short.repr  # of a value: not all of one that is very long or very deep


@dataclass(frozen=True)
class Settings:
    """A config, and where each setting that is no default comes from."""

    config: Config
    origins: Mapping[str, str]  # by setting, as "maze.side": a file, a CLEW_… variable, --set, or the resumed run


def load(file: Path | None, assignments: Sequence[str] = (), base: Config | None = None) -> Config:
    """Merges `base`, `file`, the environment and `assignments` such as "maze.side=13", each over the former."""
    return gather(file, assignments, base).config


def gather(file: Path | None, assignments: Sequence[str] = (), base: Config | None = None) -> Settings:
    """Does what `load` does, and returns the origin of every setting as well."""
    tree, origins = _merged(
        (base.model_dump() if base else {}, lambda _: "the run's own config"),
        (from_file(file) if file else {}, lambda _: str(file)),
        (from_environment(), variable),
        (from_command_line(assignments), lambda _: COMMAND_LINE),
    )
    return Settings(validated(tree, origins), origins)


def validated(tree: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> Config:
    """Returns the config of a tree of settings; ClewError, in one line, where the tree is not valid."""
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ClewError("; ".join(explain(detail, origins) for detail in error.errors())) from None
    for section, values in tree.items():
        for key, given in values.items() if isinstance(values, Mapping) else ():
            if isinstance(given, bool) and not isinstance(getattr(getattr(config, section), key), bool):
                wrong = ErrorDetails(type="number", loc=(section, key), msg="Input should be a number", input=given)
                raise ClewError(explain(wrong, origins))  # pydantic takes it for 0 or 1
    return config


def from_file(path: Path) -> Tree:
    """Reads a TOML file."""
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # some editors write a byte-order mark
    except OSError as error:
        raise ClewError(f"cannot read config {path}: {error.strerror}; give --config another file") from None
    except ValueError as error:  # no TOML, or no text at all
        raise ClewError(f"config {path} is no valid TOML: {error}; mend the file") from None
    except RecursionError:
        raise ClewError(f"config {path} nests brackets too deeply; mend the file") from None
    if is_of_first_design(tree):
        raise ClewError(
            f"config {path} is of clew's first design, for it sets run.horizon; "
            "set run.horizon_per_cell in its place, or take a config of deploy/configs, and train anew"
        )
    return tree


def from_environment() -> Tree:
    """Reads the CLEW_… variables. An unknown one is an error: a setting misspelt must not pass unseen."""
    tree: Tree = {}
    known = {variable(f"{section}.{key}"): (section, key) for section in SECTIONS for key in keys_of(section)}
    for name, value in os.environ.items():
        if name in known:
            section, key = known[name]
            tree.setdefault(section, {})[key] = value
        elif name.startswith(PREFIX) and name != MODULES:
            close = closest(name.removeprefix(PREFIX).upper(), (one.removeprefix(PREFIX) for one in known))
            hint = f"did you mean {PREFIX}{close}?" if close else f"unset it, or use {PREFIX}SECTION__KEY=VALUE"
            raise ClewError(f"unknown setting in the environment: {name}; {hint}")
    return tree


def variable(name: str) -> str:
    """Returns the variable of a setting: CLEW_MAZE__SIDE for "maze.side"."""
    return PREFIX + name.replace(".", "__", 1).upper()


def from_command_line(assignments: Sequence[str]) -> Tree:
    """Returns the tree of some assignments: {"maze": {"side": "13"}} for "maze.side=13"."""
    tree: Tree = {}
    for assignment in assignments:
        path, _, value = assignment.partition("=")
        section, _, key = path.strip().partition(".")
        if not (section and key and value):
            raise ClewError(f"--set wants SECTION.KEY=VALUE, such as maze.side=13, got {shortened(assignment)}")
        tree.setdefault(section, {})[key] = value.strip()
    return tree


def _merged(*layers: tuple[Tree, Callable[[str], str]]) -> tuple[Tree, dict[str, str]]:
    """Merges layers key by key, of which a later one wins; returns also the origin of each setting."""
    tree: Tree = {}
    origins: dict[str, str] = {}
    for layer, origin in layers:
        for section, values in layer.items():
            former = tree.get(section)
            both = isinstance(former, dict) and isinstance(values, dict)
            tree[section] = former | values if both else values
            for key in values if isinstance(values, dict) else ():
                origins[f"{section}.{key}"] = origin(f"{section}.{key}")
    return tree, origins


def explain(detail: ErrorDetails, origins: Mapping[str, str] | None = None) -> str:
    """Says what came, what was wanted, how to mend it, and in which file or variable, of one validation error."""
    sentence = _sentence(detail)
    for name, origin in (origins or {}).items():
        ends = [found.end() for found in re.finditer(rf"\b{re.escape(name)}\b", sentence)]
        if ends and origin != COMMAND_LINE:  # that one is before everybody's eyes
            sentence = f"{sentence[: ends[-1]]} ({origin}){sentence[ends[-1] :]}"
    return sentence


def _sentence(detail: ErrorDetails) -> str:
    """Says what came, what was wanted, and how to mend it."""
    path = [str(part) for part in detail["loc"]]
    name, parents = ".".join(path), path[:-1]
    if detail["type"] == "value_error":  # ours: a whole sentence already
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = keys_of(parents[0]) if parents else list(SECTIONS)
        close = closest(path[-1], known)
        hint = f"did you mean {'.'.join([*parents, close])}?" if close else f"choose from {', '.join(known)}"
        return f"unknown setting {name}; {hint}"
    if detail["type"] == "model_type":
        tree = f"a section of settings, [{name}]" if name else "a tree of settings, such as {'maze': {'side': 9}}"
        return f"{name or 'a config'} must be {tree}, got {shortened(detail['input'])}; change it"
    wanted = detail["msg"].removeprefix("Input ").removeprefix("should be ")
    setting = ".".join(path[:2])  # without the place in a list
    return f"{setting} must be {wanted[0].lower()}{wanted[1:]}, got {shortened(detail['input'])}; change {setting}"


def keys_of(section: str) -> list[str]:
    """Returns the keys of a section of the config."""
    return list(getattr(SECTIONS[section].annotation, "model_fields", {}))


def closest(name: str, known: Iterable[str]) -> str:
    """Returns the known name that is most like `name`, or "" where none is like it."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), "")

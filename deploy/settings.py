"""One Config from TOML file < CLEW_… environment < command line; what cannot be used is said in one line."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from protocol.config import ClewError, Config, is_of_first_design

PREFIX = "CLEW_"
SECTIONS = Config.model_fields
Tree = dict[str, Any]


class Environment(BaseSettings, Config):
    """The same tree, read from variables such as CLEW_MAZE__SIDE=13."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__")


def load(file: Path | None, assignments: Sequence[str] = (), base: Config | None = None) -> Config:
    """`base`, the config of `file`, the environment, `assignments` ("maze.side=13"), each over the former."""
    tree = base.model_dump() if base else {}
    layers = (from_file(file) if file else {}, from_environment(), from_command_line(assignments))
    return validated(_merged(tree, *layers))


def validated(tree: Tree) -> Config:
    """The config that `tree` holds, or one line that says what is wrong with it."""
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise ClewError("; ".join(explain(detail) for detail in error.errors())) from None


def from_file(path: Path) -> Tree:
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ClewError(f"cannot read config {path}: {error.strerror}; give --config another file") from None
    except ValueError as error:  # no TOML, or no text at all
        raise ClewError(f"config {path} is no valid TOML: {error}; mend the file") from None
    if is_of_first_design(tree):
        raise ClewError(
            f"config {path} is of clew's first design, for it sets run.horizon; "
            "set run.horizon_per_cell in its place, or take a config of deploy/configs, and train anew"
        )
    return tree


def from_environment() -> Tree:
    """What CLEW_… variables say. An unknown one is an error: a setting misspelt must not pass unseen."""
    known = {f"{section}__{key}" for section in SECTIONS for key in keys_of(section)}
    for variable in os.environ:
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name not in known | set(SECTIONS):
            close = closest(name, known)
            hint = f"did you mean {PREFIX}{close.upper()}?" if close else "unset it"
            raise ClewError(f"unknown setting in the environment: {variable}; {hint}")
    try:
        return EnvSettingsSource(Environment)()
    except SettingsError as error:
        raise ClewError(f"{error}: {error.__cause__}; use {PREFIX}SECTION__KEY=VALUE instead") from None


def from_command_line(assignments: Sequence[str]) -> Tree:
    """{"maze": {"side": "13"}} of "maze.side=13"."""
    tree: Tree = {}
    for assignment in assignments:
        path, _, value = assignment.partition("=")
        section, _, key = path.strip().partition(".")
        if not (section and key and value):
            raise ClewError(f"--set wants SECTION.KEY=VALUE, such as maze.side=13, got {assignment!r}")
        tree.setdefault(section, {})[key] = value.strip()
    return tree


def _merged(*layers: Tree) -> Tree:
    """All layers, key by key; a later one wins."""
    tree: Tree = {}
    for layer in layers:
        for section, values in layer.items():
            former = tree.get(section)
            both = isinstance(former, dict) and isinstance(values, dict)
            tree[section] = former | values if both else values
    return tree


def explain(detail: ErrorDetails) -> str:
    """What came, what was wanted, how to mend it, of one validation error."""
    path = [str(part) for part in detail["loc"]]
    name, parents = ".".join(path), path[:-1]
    if detail["type"] == "value_error":  # ours: a whole sentence already
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = keys_of(parents[0]) if parents else list(SECTIONS)
        close = closest(path[-1], known)
        hint = f"did you mean {'.'.join([*parents, close])}?" if close else f"choose from {', '.join(known)}"
        return f"unknown setting {name}; {hint}"
    wanted = detail["msg"].removeprefix("Input ").removeprefix("should be ")
    return f"{name} must be {wanted[0].lower()}{wanted[1:]}, got {detail['input']!r}; change {name}"


def keys_of(section: str) -> list[str]:
    """The keys of one section of the tree."""
    return list(getattr(SECTIONS[section].annotation, "model_fields", {}))


def closest(name: str, known: Iterable[str]) -> str:
    """What was probably meant by `name`, or nothing."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), "")

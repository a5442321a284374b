"""One Config from TOML file < CLEW_… environment < command line; what cannot be used is said in one sentence."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from protocol.config import ClewError, Config

PREFIX = "CLEW_"
SECTIONS: dict[str, FieldInfo] = Config.model_fields


def load(file: Path | None, assignments: Sequence[str] = ()) -> Config:
    """The config that `file`, the environment and `assignments` ("maze.side=13"), each over the one before, give."""
    command_line = _tree(assignments)

    class Settings(BaseSettings, Config):
        model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid")

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources = (InitSettingsSource(settings_cls, command_line), EnvSettingsSource(settings_cls))
            return (*sources, TomlConfigSettingsSource(settings_cls, file)) if file else sources

    _refuse_unknown_variables()
    with readable(file):
        return Config.model_validate(Settings().model_dump())


def _tree(assignments: Sequence[str]) -> dict[str, Any]:
    """{"maze": {"side": "13"}} of "maze.side=13"."""
    tree: dict[str, Any] = {}
    for assignment in assignments:
        path, equals, value = assignment.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and section and key):
            raise ClewError(f"--set wants SECTION.KEY=VALUE, such as maze.side=13, got {assignment!r}")
        tree.setdefault(section, {})[key] = value.strip()
    return tree


def _refuse_unknown_variables() -> None:
    """pydantic-settings ignores variables of no section; a setting misspelt would pass unseen."""
    known = {f"{section}__{key}" for section in SECTIONS for key in keys_of(section)} | set(SECTIONS)
    for variable in os.environ:
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name not in known:
            close = close_to(name, known)
            hint = f"; did you mean {PREFIX}{close.upper()}?" if close else ""
            raise ClewError(f"unknown setting in the environment, {variable}{hint or '; unset it'}")


@contextmanager
def readable(file: Path | None) -> Iterator[None]:
    """Turns whatever goes wrong while reading settings into a ClewError of one line."""
    try:
        yield
    except ValidationError as error:
        raise ClewError("; ".join(explain(detail) for detail in error.errors())) from None
    except SettingsError as error:
        raise ClewError(f"{error}: {error.__cause__}; use {PREFIX}SECTION__KEY=VALUE instead") from None
    except OSError as error:
        raise ClewError(f"cannot read config {file}: {error.strerror}; give --config another file") from None
    except ValueError as error:  # invalid TOML, or a file that is no text
        raise ClewError(f"config {file} is no valid TOML: {error}; mend the file") from None


def explain(detail: ErrorDetails) -> str:
    """What came, what was wanted, how to mend it, of one validation error."""
    *parents, key = [str(part) for part in detail["loc"]] or [""]
    name = ".".join([*parents, key])
    if detail["type"] == "value_error":  # ours: a whole sentence already
        return detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = keys_of(parents[0]) if parents else list(SECTIONS)
        close = close_to(key, known)
        best = f"did you mean {'.'.join([*parents, close])}?" if close else f"known: {', '.join(known)}"
        return f"unknown setting {name}; {best}"
    wanted = detail["msg"].removeprefix("Input ").removeprefix("should be ")
    return f"{name} should be {wanted[0].lower()}{wanted[1:]}, got {detail['input']!r}; set {name} accordingly"


def keys_of(section: str) -> list[str]:
    """The keys of one section of the tree."""
    model = SECTIONS[section].annotation
    return list(getattr(model, "model_fields", {}))


def close_to(name: str, known: Sequence[str] | set[str]) -> str:
    """What was probably meant by `name`, or nothing."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), "")

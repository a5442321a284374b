"""`clew config`: prints every setting, and where its value comes from."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from deploy.command.options import ConfigFile, Set
from deploy.process.logs import printable
from deploy.process.output import Json
from deploy.process.settings import Settings, gather
from deploy.process.versions import context
from protocol.config import Config


def show_config(
    config: ConfigFile = None,
    assignments: Set = None,
    as_json: Json = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a config, for editors and other tools.")
    ] = False,
) -> None:
    """Print every setting as a TOML file, and behind each where it comes from: a file, the environment or --set."""
    if schema:
        print(json.dumps(Config.model_json_schema(), indent=2))
        return
    settings = gather(config, assignments or [])
    if as_json:
        tree = settings.config.model_dump(mode="json")
        print(json.dumps({**context(), "config": tree, "origins": dict(settings.origins)}))
    else:
        print(as_toml(settings))


def as_toml(settings: Settings) -> str:
    """Writes every setting, and behind it where its value comes from; the text can serve as a config file."""
    lines: list[str] = []
    for section, values in settings.config.model_dump(mode="json").items():
        lines.append(f"[{section}]")
        for key, value in values.items():
            origin = settings.origins.get(f"{section}.{key}", "default")
            lines.append(f"{f'{key} = {json.dumps(value, ensure_ascii=False)}':40}  # {printable(origin)}")
        lines.append("")
    return "\n".join(lines[:-1])

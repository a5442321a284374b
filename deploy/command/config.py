"""`clew config`: prints every setting, and where its value comes from."""

from __future__ import annotations

import json

from deploy.command.options import ConfigFile, Set
from deploy.process.logs import printable
from deploy.process.output import Json
from deploy.process.settings import Settings, gather
from deploy.process.versions import context


def show_config(config: ConfigFile = None, assignments: Set = None, as_json: Json = False) -> None:
    """Print every setting as a TOML file, and behind each where it comes from: a file, the environment or --set."""
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

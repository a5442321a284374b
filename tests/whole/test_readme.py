"""The README's Docker commands, as they stand there, in a checkout of their own."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests import ROOT
from tests.parts.engine import STEP_S, Composed, Images, bridge, new_project, run, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2_700)]

SECTIONS = ("On one machine", "On many")


def commands() -> list[str]:
    """Lines for a shell, without their comments."""
    text = (ROOT / "README.md").read_text()
    found = [re.search(rf"^### {title}\n(.*?)^##", text, re.DOTALL | re.MULTILINE) for title in SECTIONS]
    blocks = [block for section in found if section for block in re.findall(r"```sh\n(.*?)```", section[1], re.DOTALL)]
    lines = [line.partition(" #")[0].rstrip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if re.match(r"docker compose|export", line)]


def adapted(line: str, system: Composed) -> str:
    """Fewer actors, this machine's own address, nothing that goes on for ever, no image that cannot be had."""
    gateway = bridge()
    line = line.replace("actor=8", "actor=3").replace("logs -f", "logs")
    line = line.replace("192.0.2.7:7777", f"{gateway}:{system.environment['LEARNER_PORT']}")
    if "compose.actors.yaml" in line:
        return f"COMPOSE_PROJECT_NAME={system.project}-more {line}"
    return f"{line} --wait {' '.join(system.services)}" if " up " in line else line


def test_the_commands_of_the_readme_do_what_it_says(images: Images, torch_index: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    shutil.copy(ROOT / "compose.yaml", tmp_path)
    system = new_project(images, torch_index)
    environment = {**system.environment, "COMPOSE_PROJECT_NAME": system.project, "IMAGE": images.actor}
    lines = [adapted(line, system) for line in commands()]
    assert len(lines) >= 8
    down = [line for line in lines if line.endswith(" down")]
    try:
        script = "\n".join(line for line in lines if line not in down)
        result = run("bash", "-euc", script, env=environment, timeout_s=4 * STEP_S, folder=tmp_path)
        assert result.returncode == 0, result.stderr
        assert "listening on" in result.stdout  # as the learner's log says
        until(lambda: system.actors == 6)
        system.trains()
        result = run("bash", "-euc", "\n".join(down), env=environment, folder=tmp_path)
        assert result.returncode == 0, result.stderr
        assert system.containers("learner") == []
    finally:
        nowhere = {"LEARNER": "nobody", "KEYS": "/nothing"}
        Composed(f"{system.project}-more", nowhere, (), ("deploy/compose.actors.yaml",)).down("--volumes")
        system.down("--volumes")

"""What surrounds the code: pinned versions, the workflow, and what is installed for which tests."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from protocol.config import Config
from tests import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([^#=\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}


def required(*extras: str) -> list[Requirement]:
    lines = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return [one for one in map(Requirement, [*PROJECT["dependencies"], *lines]) if one.name != "clew"]


def test_every_requirement_is_pinned_to_a_version_that_it_allows() -> None:
    for one in required(*PROJECT["optional-dependencies"]):
        assert one.specifier.contains(PINS[canonicalize_name(one.name)]), one


def test_make_and_the_images_install_the_pinned_versions() -> None:
    made = subprocess.run(["make", "-n", "-B", "test-deploy"], cwd=ROOT, capture_output=True, text=True, check=True)
    installs = [line for line in made.stdout.splitlines() if "pip install" in line]
    assert len(installs) == 3
    assert all("--constraint constraints.txt" in line for line in installs)
    dockerfile = (ROOT / "deploy/Dockerfile").read_text().replace("\\\n", " ")
    installs = re.findall(r"pip --python /opt/clew install[^\n\"]*", dockerfile)
    assert len(installs) == 3
    assert all("-c /opt/clew/constraints.txt" in line for line in installs)


@pytest.mark.parametrize(("python", "folder"), [("python3", ".venv"), ("/usr/bin/python3.13", ".venv-python3.13")])
def test_every_python_has_an_environment_of_its_own(python: str, folder: str) -> None:
    command = ["make", "-n", "-B", "test", f"PYTHON={python}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"{python} -m venv {folder}\n" in made
    assert f"\n{folder}/bin/pytest" in made
    assert set(re.findall(r"\.venv[\w.-]*", made)) == {folder}


def test_the_sdks_of_dashboards_and_operators_are_for_the_tests_of_deployments_alone() -> None:
    names = {one.name for one in required("test")}
    sdks = {one.name for one in required("test-deploy")} - {one.name for one in required()}
    assert not names & sdks
    assert {"kubernetes-validate", "grafana-foundation-sdk"} <= sdks


def test_the_workflow_calls_make_on_every_python_that_clew_names() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
    runs = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert [run.partition(" PYTHON=")[0] for run in runs] == ["make test", "make test-deploy"]
    pythons = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert f">={pythons[0]}" == PROJECT["requires-python"]
    assert f"on Python {', '.join(pythons[:-1])} and {pythons[-1]}" in Path(ROOT / "constraints.txt").read_text()


def test_what_changes_is_written_down_for_the_version_that_comes() -> None:
    headings = re.findall(r"^## \[(.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", PROJECT["version"]]


def test_every_setting_can_come_from_the_shell() -> None:
    lines = (ROOT / "deploy/settings.env").read_text().splitlines()
    listed = [line for line in lines if not line.startswith("#")]
    known = [
        f"CLEW_{section}__{key}".upper()
        for section, field in Config.model_fields.items()
        for key in getattr(field.annotation, "model_fields", {})
    ]
    assert listed == known

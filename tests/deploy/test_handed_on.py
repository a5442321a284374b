"""Modules of the user's own and the collector of traces reach learner and actors, however these are deployed."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from deploy.process.settings import MODULES, from_environment, load
from deploy.process.traces import ENDPOINTS
from protocol.config import Config
from tests import ROOT
from tests.parts.manifests import PODS, evaluation, pod

ENDPOINT = ENDPOINTS[0]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
PLACE = "/modules"


def services(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / name).read_text())["services"])


def handed_on(service: dict[str, Any]) -> set[str]:
    """The variables that a service takes from the shell, under the same name, and that are empty if it has none."""
    return {name for name, value in service["environment"].items() if value == f"${{{name}:-}}"}


@pytest.mark.parametrize("name", ["compose.yaml", "compose.actors.yaml", "swarm.yaml"])
def test_of_the_shells_variables_an_actor_gets_these_two_and_a_learner_the_collector(name: str) -> None:
    given = services(name)
    assert handed_on(given["actor"]) == given["actor"]["environment"].keys() == {MODULES, ENDPOINT}
    if "learner" in given:
        assert handed_on(given["learner"]) == {ENDPOINT}


@pytest.mark.parametrize(
    ("name", "who"), [("compose.yaml", {"learner", "actor", "page"}), ("compose.actors.yaml", {"actor"})]
)
def test_compose_mounts_modules_where_the_images_look_for_them_and_nothing_can_be_written(
    name: str, who: set[str]
) -> None:
    mount = f"${{MODULES:-modules}}:{PLACE}:ro"
    assert {service for service, about in services(name).items() if mount in about.get("volumes", [])} == who
    assert "modules" in yaml.safe_load((ROOT / "deploy" / name).read_text())["volumes"]


def test_kubernetes_takes_both_from_the_settings_and_the_files_from_a_configmap_that_need_not_be_there() -> None:
    for workload in (*PODS.values(), evaluation()):
        spec = pod(workload)
        (container,) = spec["containers"]
        assert {"name": "modules", "configMap": {"name": "modules", "optional": True}} in spec["volumes"]
        assert {"name": "modules", "mountPath": PLACE, "readOnly": True} in container["volumeMounts"]
    (actor,), (learner,) = (pod(PODS[name])["containers"] for name in ("actor", "learner"))
    assert {"configMapRef": {"name": "settings"}} in learner["envFrom"]
    assert "envFrom" not in actor  # settings are the learner's
    for name in (MODULES, ENDPOINT):
        source = {"configMapKeyRef": {"name": "settings", "key": name, "optional": True}}
        assert {"name": name, "valueFrom": source} in actor["env"]


def test_images_look_for_modules_in_their_place_last_and_can_send_traces() -> None:
    (path,) = re.findall(r"PYTHONPATH=(\S+)", DOCKERFILE)
    assert path.split(":") == ["/app", PLACE]
    (actor,) = re.findall(r"print\((.*)file=open\('actor.txt'", DOCKERFILE)
    assert "*extras['otel']" in actor


def test_modules_are_no_setting_and_keep_no_learner_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MODULES, "mazes more")
    assert from_environment() == {}
    assert load(None) == Config()

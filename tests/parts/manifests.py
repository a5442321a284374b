"""The manifests of deploy/kubernetes, put together as `kubectl kustomize` does, as far as that is needed here."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
README = (FOLDER / "README.md").read_text()
Manifest = dict[str, Any]


def assembled(folder: Path) -> list[Manifest]:
    """Makes of a folder what `kubectl kustomize` does, except for the hash in a generated name."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    manifests: list[Manifest] = []
    for name in [*kustomization.get("resources", []), *kustomization.get("components", [])]:
        path = folder / name
        manifests += assembled(path) if path.is_dir() else yaml.safe_load_all(path.read_text())
    for generated in kustomization.get("configMapGenerator", []):
        data = dict(literal.split("=", 1) for literal in generated["literals"])
        metadata = {"name": generated["name"]}
        manifests.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    if namespace := kustomization.get("namespace"):
        for manifest in manifests:
            if manifest["kind"] not in ("Namespace", "PriorityClass"):
                manifest["metadata"]["namespace"] = namespace
    return manifests


def patched(manifest: Manifest, operations: list[dict[str, Any]]) -> Manifest:
    """A JSON patch that only adds."""
    for operation in operations:
        assert operation["op"] == "add"
        *path, last = [part.replace("~1", "/") for part in operation["path"].split("/")[1:]]
        place: Any = manifest
        for part in path:
            place = place[int(part) if isinstance(place, list) else part]
        if last == "-":
            place.append(operation["value"])
        else:
            place[last] = operation["value"]
    return manifest


@cache
def everything() -> list[Manifest]:
    return assembled(FOLDER)


def on_a_gpu() -> Manifest:
    (patch,) = yaml.safe_load((FOLDER / "gpu" / "kustomization.yaml").read_text())["patches"]
    assert patch["target"] == {"kind": "StatefulSet", "name": "learner"}
    return patched(deepcopy(one("StatefulSet", "learner")), yaml.safe_load(patch["patch"]))


def evaluation() -> Manifest:
    return dict(yaml.safe_load((FOLDER / "evaluate.yaml").read_text()))


def one(kind: str, name: str) -> Manifest:
    (found,) = (each for each in everything() if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def named(manifest: Manifest) -> str:
    return f"{manifest['kind']}-{manifest['metadata']['name']}"


ALL = [*everything(), on_a_gpu(), evaluation()]
WORKLOADS = [manifest for manifest in ALL if "template" in manifest.get("spec", {})]
PODS = {"learner": one("StatefulSet", "learner"), "actor": one("Deployment", "actor")}


def pod(workload: Manifest) -> Any:
    return workload["spec"]["template"]["spec"]


def labels(workload: Manifest) -> dict[str, str]:
    return dict(workload["spec"]["template"]["metadata"]["labels"])


def ports(workload: Manifest) -> dict[str, int]:
    (container,) = pod(workload)["containers"]
    return {each["name"]: each["containerPort"] for each in container["ports"]}


def made_by_hand(folder: Path) -> dict[str, dict[str, bytes]]:
    """The Secrets and ConfigMaps of the README's first commands, by name: files and what is in them."""
    made = {}
    commands = README.split("```sh\n")[1].split("```")[0]
    for name, where in re.findall(r"create (?:secret generic|configmap) (\S+) --from-file=(\S+)", commands):
        path = folder / where
        files = path.iterdir() if path.is_dir() else [path]
        made[name] = {file.name: file.read_bytes() for file in files}
    return made

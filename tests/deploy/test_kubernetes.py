"""The manifests: fit for Kubernetes, for each other and for clew."""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess
from collections import deque
from importlib import import_module
from itertools import product
from pathlib import Path

import pytest
import typer
import yaml

from deploy.cli import app
from deploy.command import keys as keyring
from deploy.process.settings import load
from tests import ROOT
from tests.parts.manifests import (
    ALL,
    FOLDER,
    PODS,
    README,
    WORKLOADS,
    Manifest,
    evaluation,
    everything,
    labels,
    made_by_hand,
    named,
    one,
    pod,
    ports,
)

VERSIONS = ("1.27", "1.37")  # of Kubernetes: the oldest that the README names, and a new one
CRDS = {  # models that are generated from the operators' own definitions
    "ScaledObject": "cloudcoil.models.keda.v1alpha1",
    "PodMonitor": "cloudcoil.models.prometheus_operator.v1",
    "PrometheusRule": "cloudcoil.models.prometheus_operator.v1",
}


# Kustomize


def kubectl() -> str:
    """One that knows components; a reason where there is none."""
    command = shutil.which("kubectl")
    if not command:
        pytest.skip("there is no kubectl here")
    version = [command, "version", "--client", "-o", "json"]
    if "kustomizeVersion" not in json.loads(subprocess.check_output(version, timeout=60)):
        pytest.skip("this kubectl is too old to know kustomize's components")
    return command


def kustomized(folder: Path) -> list[Manifest]:
    text = subprocess.check_output([kubectl(), "kustomize", folder], timeout=60)
    return list(yaml.safe_load_all(re.sub(rb"\bsettings-\w{10}\b", b"settings", text)))


def test_kustomize_makes_of_them_what_is_tested_here() -> None:
    ours, theirs = ({named(each): each for each in made} for made in (everything(), kustomized(FOLDER)))
    assert ours == theirs
    assert len(ours) == len(everything()) == 14


def test_the_kustomization_of_the_readme_sets_images_settings_and_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "clew").symlink_to(ROOT)
    (text,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "kustomization.yaml").write_text(text)
    made = {named(each): each for each in kustomized(tmp_path)}
    assert made["ConfigMap-settings"]["data"]["CLEW_MAZE__SIDE"] == "13"
    learner = pod(made["StatefulSet-learner"])
    assert "--device=cuda" in learner["containers"][0]["args"]
    images = {each["image"] for each in (*learner["initContainers"], *learner["containers"])}
    assert images == {"registry.example/clew-learner:1"}


# Fit for Kubernetes


@pytest.mark.sdk
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", [each for each in ALL if each["kind"] not in CRDS], ids=named)
def test_every_manifest_is_what_kubernetes_defines(manifest: Manifest, version: str) -> None:
    import_module("kubernetes_validate").validate(manifest, version, strict=True)


@pytest.mark.sdk
@pytest.mark.parametrize("manifest", [each for each in ALL if each["kind"] in CRDS], ids=named)
def test_what_operators_read_is_what_they_define(manifest: Manifest) -> None:
    model = getattr(import_module(CRDS[manifest["kind"]]), manifest["kind"])
    known = model.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True)
    assert known == manifest  # what the definition does not know is lost, and what it converts is another


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_a_pod_may_do_nothing_that_clew_does_not_need(workload: Manifest) -> None:
    spec = pod(workload)
    security = spec["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] == security["fsGroup"] == 10001
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


# Fit for each other


def test_every_selector_finds_the_pods_that_it_is_for() -> None:
    learner, actor = labels(PODS["learner"]), labels(PODS["actor"])
    assert learner != actor
    for name, workload in PODS.items():
        assert workload["spec"]["selector"] == {"matchLabels": labels(workload)}
        assert workload["metadata"]["name"] == name
    service = one("Service", "learner")
    assert service["spec"]["selector"] == learner
    assert PODS["learner"]["spec"]["serviceName"] == service["metadata"]["name"]
    assert one("PodDisruptionBudget", "actor")["spec"]["selector"] == {"matchLabels": actor}
    monitor = one("PodMonitor", "clew")["spec"]
    assert all(selects(monitor["selector"], each) for each in (learner, actor))
    target = one("ScaledObject", "actor")["spec"]["scaleTargetRef"]
    assert target == {key: PODS["actor"][key] for key in ("apiVersion", "kind")} | {"name": "actor"}
    assert evaluation()["metadata"]["namespace"] == PODS["learner"]["metadata"]["namespace"]
    (claim,) = PODS["learner"]["spec"]["volumeClaimTemplates"]
    (volume,) = (each for each in pod(evaluation())["volumes"] if each["name"] == "runs")
    assert volume["persistentVolumeClaim"]["claimName"] == f"{claim['metadata']['name']}-learner-0"


def selects(selector: Manifest, these: dict[str, str]) -> bool:
    """Says whether a selector takes these labels, by those operators alone that are used."""
    exact = selector.get("matchLabels", {}).items() <= these.items()
    several = selector.get("matchExpressions", [])
    return exact and all(each["operator"] == "In" and these.get(each["key"]) in each["values"] for each in several)


def test_every_port_is_one_that_clew_serves() -> None:
    assert ports(PODS["learner"]) == {"work": 7777, "theta": 7778, "metrics": 9100}
    assert ports(PODS["actor"]) == {"metrics": 9100}
    for port in one("Service", "learner")["spec"]["ports"]:
        assert ports(PODS["learner"])[port["targetPort"]] == port["port"]  # as the learner says them in Welcome
    for endpoint in one("PodMonitor", "clew")["spec"]["podMetricsEndpoints"]:
        assert endpoint["port"] == "metrics"
    for workload in PODS.values():
        (container,) = pod(workload)["containers"]
        probes = [value for key, value in container.items() if key.endswith("Probe")]
        assert len(probes) >= 2
        assert all(probe["httpGet"]["port"] in ports(workload) for probe in probes)


MONITORING = "monitoring"
PEERS = {  # namespace, labels
    "learner": ("clew", labels(PODS["learner"])),
    "actor": ("clew", labels(PODS["actor"])),
    "stranger": ("clew", {"app.kubernetes.io/name": "stranger"}),
    "prometheus": (MONITORING, {"app.kubernetes.io/name": "prometheus"}),
    "grafana": (MONITORING, {"app.kubernetes.io/name": "grafana"}),
    "impostor": ("elsewhere", {**labels(PODS["actor"]), "app.kubernetes.io/name": "prometheus"}),
    "collector": (MONITORING, {"app.kubernetes.io/name": "opentelemetry-collector"}),
    "dns": ("kube-system", {"k8s-app": "kube-dns"}),
}


def may(caller: str, called: str, port: int) -> bool:
    """Says whether the NetworkPolicies let one speak to another.

    Both must agree, and who no policy selects agrees to everything.
    """
    return agrees(called, caller, port, "Ingress", "from") and agrees(caller, called, port, "Egress", "to")


def agrees(mine: str, other: str, port: int, direction: str, key: str) -> bool:
    namespace, these = PEERS[mine]
    policies = [
        policy["spec"]
        for policy in everything()
        if policy["kind"] == "NetworkPolicy" and policy["metadata"]["namespace"] == namespace
        if direction in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], these)
    ]
    rules = [rule for policy in policies for rule in policy.get(direction.lower(), [])]
    numbers = ports(PODS["learner"])
    return not policies or any(
        port in {numbers.get(each["port"], each["port"]) for each in rule["ports"]}
        and any(peer_is(peer, other, namespace) for peer in rule[key])
        for rule in rules
    )


def peer_is(peer: Manifest, other: str, home: str) -> bool:
    namespace, these = PEERS[other]
    if "ipBlock" in peer:
        return False
    there = {"kubernetes.io/metadata.name": namespace}
    in_place = selects(peer["namespaceSelector"], there) if "namespaceSelector" in peer else namespace == home
    return in_place and selects(peer["podSelector"], these)


def test_actors_reach_the_learner_prometheus_reads_metrics_and_else_only_traces_get_out() -> None:
    ways = {
        way for way in product(PEERS, PEERS, (53, 4318, 7777, 7778, 9100)) if "clew" in [PEERS[p][0] for p in way[:2]]
    }
    assert {way for way in ways if may(*way)} == {
        ("actor", "learner", 7777),
        ("actor", "learner", 7778),
        ("prometheus", "learner", 9100),
        ("prometheus", "actor", 9100),
        ("actor", "collector", 4318),
        ("actor", "dns", 53),
        ("learner", "collector", 4318),
        ("learner", "dns", 53),
    }


def test_actors_for_which_there_is_no_room_stand_in_the_way_of_nobody() -> None:
    """As a scheduler has it: whose priority is higher takes the place of others, and a new actor waits for room."""
    (lowest,) = (each for each in everything() if each["kind"] == "PriorityClass")
    assert pod(PODS["actor"])["priorityClassName"] == lowest["metadata"]["name"]
    assert all("priorityClassName" not in pod(each) for each in (PODS["learner"], evaluation()))
    assert -10 <= lowest["value"] < 0  # below, cluster-autoscaler adds no node for them
    assert lowest["preemptionPolicy"] == "Never"
    assert PODS["actor"]["spec"]["strategy"] == {"type": "Recreate"}


def references(workload: Manifest) -> set[str]:
    """Secrets and ConfigMaps that a pod cannot start without."""
    spec = pod(workload)
    kept = [each.get("secret") or each.get("configMap") or {} for each in spec["volumes"]]
    volumes = [each.get("secretName") or each.get("name") for each in kept if not each.get("optional")]
    sources = [each["configMapRef"]["name"] for each in spec["containers"][0].get("envFrom", [])]
    return {name for name in (*volumes, *sources) if name}


def test_what_pods_refer_to_is_made_and_no_actor_sees_the_learners_secret(tmp_path: Path) -> None:
    keyring.new(tmp_path / "keys")
    by_hand = made_by_hand(tmp_path)
    assert references(PODS["learner"]) == {"learner-keys", "allowed", "settings"}
    assert references(PODS["actor"]) == {"actor-keys"}
    assert by_hand.keys() | {"settings"} == references(PODS["learner"]) | references(PODS["actor"])
    secret = (tmp_path / "keys" / "learner" / "learner.key_secret").read_bytes()
    assert [name for name, files in by_hand.items() if secret in files.values()] == ["learner-keys"]
    assert by_hand["actor-keys"].keys() == {"actor.key_secret", "learner.key"}


# Fit for clew


@pytest.mark.parametrize("workload", WORKLOADS, ids=named)
def test_clew_takes_the_arguments_of_every_container(workload: Manifest) -> None:
    (container,) = pod(workload)["containers"]
    name, *arguments = container["args"]
    group = typer.main.get_command(app)
    group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]


def test_clew_takes_the_commands_of_the_readme() -> None:
    commands = re.findall(r"^clew (.*)$", README, re.MULTILINE)
    assert len(commands) == 2
    group = typer.main.get_command(app).commands["keys"]  # type: ignore[attr-defined]
    for command in commands:
        keys, name, *arguments = shlex.split(command)
        assert keys == "keys"
        group.commands[name].make_context(name, arguments)


def test_the_settings_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = one("ConfigMap", "settings")["data"]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert load(None).run.updates == int(settings["CLEW_RUN__UPDATES"])


@pytest.mark.sdk
def test_the_alerts_become_a_rule_of_the_operator() -> None:
    (script,) = [block for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) if "PrometheusRule" in block]
    printed = script.replace("kubectl apply -f -", "cat")
    rule = yaml.safe_load(subprocess.check_output(["bash", "-euc", printed], cwd=ROOT))
    test_what_operators_read_is_what_they_define(rule)
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())


def test_jobs_are_named_as_in_the_prometheus_of_compose() -> None:
    (endpoint,) = one("PodMonitor", "clew")["spec"]["podMetricsEndpoints"]
    (relabelling,) = endpoint["relabelings"]
    (source,) = relabelling["sourceLabels"]
    assert relabelling["targetLabel"] == "job"
    of_pods = {
        "__meta_kubernetes_pod_label_" + re.sub(r"\W", "_", key): value for key, value in labels(PODS["actor"]).items()
    }
    assert relabelling["replacement"].replace("$1", of_pods[source]) == "clew-actor"


# Autoscaling


def wanted(scaler: Manifest, actors: float, waiting: float) -> int:
    """Replicas: what the query says of so many actors, and a learner that waits for that share of its time."""
    (trigger,) = scaler["spec"]["triggers"]
    assert trigger["metricType"] == "AverageValue"
    query = trigger["metadata"]["query"]
    for pattern, value in (("avg_over_time", actors), ("rate", waiting)):
        query, count = re.subn(rf"max\({pattern}\([^()]*\[2m\]\)\)", str(value), query)
        assert count == 1
    total = float(eval(query, {"clamp_min": max}))
    share = math.ceil(total / float(trigger["metadata"]["threshold"]))
    return int(min(max(share, scaler["spec"]["minReplicaCount"]), scaler["spec"]["maxReplicaCount"]))


@pytest.mark.parametrize("enough", [3, 10, 40])
@pytest.mark.parametrize("first", [1, 8, 64])
def test_the_autoscaler_finds_as_many_actors_as_the_learner_has_use_for_and_stays(enough: int, first: int) -> None:
    """A learner that `enough` actors keep busy, looked at every 15 s through averages over two minutes."""
    scaler = one("ScaledObject", "actor")
    actors, seen = first, deque([first], maxlen=8)
    course = []
    for _ in range(400):
        mean = sum(seen) / len(seen)
        waiting = sum(max(0.0, 1 - count / enough) for count in seen) / len(seen)
        next_ = wanted(scaler, mean, waiting)
        actors = next_ if abs(next_ - actors) > 0.1 * actors else actors  # the tolerance of every autoscaler
        seen.append(actors)
        course.append(actors)
    assert max(course) <= max(first, enough)
    assert len(set(course[-100:])) == 1
    assert 0.7 * enough <= actors <= max(0.9 * enough, 4)


def test_the_arithmetic_of_the_comment_is_right() -> None:
    scaler = one("ScaledObject", "actor")
    text = (FOLDER / "autoscaling" / "scaledobject.yaml").read_text()
    lines = re.findall(r"(\d+) actors, (?:waits (\d+)%|never waits):.*= (\d+)", text)
    assert len(lines) == 3
    for actors, percent, replicas in lines:
        assert wanted(scaler, float(actors), float(percent or 0) / 100) == int(replicas)


def test_the_autoscaler_asks_the_prometheus_that_may_read_the_metrics_and_of_these_pods_alone() -> None:
    (trigger,) = one("ScaledObject", "actor")["spec"]["triggers"]
    assert f".{MONITORING}.svc:" in trigger["metadata"]["serverAddress"]
    namespaces = re.findall(r'namespace="(\w+)"', trigger["metadata"]["query"])
    assert namespaces == 2 * [PODS["learner"]["metadata"]["namespace"]]
    assert trigger["metadata"]["ignoreNullValues"] == "false"

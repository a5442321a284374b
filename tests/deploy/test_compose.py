"""`docker compose up` on a real engine: it trains, and goes on whatever happens to its containers."""

from __future__ import annotations

import json
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from protocol.wire.actor_links import ActorLinks
from protocol.wire.keys import ActorKeys
from tests import ROOT
from tests.parts.engine import CHECKPOINT_EVERY, Composed, Images, bridge, docker, inspect, run, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2_700)]

REFUSED = 'clew_learner_refusals_total{reason="key"}'


def handed_out(system: Composed, name: str, folder: Path) -> Path:
    """The directory of a key, as somebody copies it for another machine."""
    system.compose("cp", f"learner:/keys/{name}", folder)
    return folder / name


@contextmanager
def elsewhere(
    system: Composed, images: Images, keys: Path, learner: str, network: str, actors: int = 1
) -> Iterator[Composed]:
    """A project of compose.actors.yaml."""
    environment = {
        "IMAGE": images.actor,
        "LEARNER": learner,
        "KEYS": str(keys),
        "ACTOR_NETWORK": network,
        "ACTORS": str(actors),
    }
    project = Composed(f"{system.project}-more", environment, (), ("deploy/compose.actors.yaml",))
    try:
        project.compose("up", "-d")
        yield project
    finally:
        project.down("--volumes")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Another one, for an .env of its own."""
    for name in ("compose.yaml", "deploy/compose.yaml", "deploy/settings.env"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


# What it says


def test_the_shell_comes_before_env(engine: None, checkout: Path) -> None:
    (checkout / ".env").write_text("CLEW_MAZE__SIDE=11\nCLEW_RUN__SEED=3\n")
    command = ("docker", "compose", "config", "--format", "json")
    config = run(*command, env={"CLEW_MAZE__SIDE": "7"}, folder=checkout).stdout
    environment = json.loads(config)["services"]["learner"]["environment"]
    set_there = {name: value for name, value in environment.items() if value}
    assert set_there == {"CLEW_MAZE__SIDE": "7", "CLEW_RUN__SEED": "3"}


def test_the_gpu_changes_nothing_but_device_image_and_torch(engine: None) -> None:
    plain, gpu = (
        json.loads(Composed("clew", {}, (), files).compose("config", "--format", "json"))["services"]
        for files in (("compose.yaml",), ("compose.yaml", "deploy/compose.gpu.yaml"))
    )
    one, other = plain.pop("learner"), gpu.pop("learner")
    assert gpu == plain
    assert [word.replace("=cuda", "=cpu") for word in other.pop("command")] == one.pop("command")
    assert other.pop("deploy")["resources"]["reservations"]["devices"][0]["capabilities"] == ["gpu"]
    assert "/cu" in other.pop("build")["args"]["TORCH_INDEX"]
    assert "/cpu" in one.pop("build")["args"]["TORCH_INDEX"]
    assert (one.pop("image"), other.pop("image")) == ("clew-learner", "clew-learner:cuda")
    assert other == one


def test_what_watches_is_published_on_loopback_alone(engine: None) -> None:
    services = json.loads(Composed("clew", {}, ()).compose("config", "--format", "json"))["services"]
    for service in ("prometheus", "grafana", "page"):
        assert [port["host_ip"] for port in services[service]["ports"]] == ["127.0.0.1"]


# What it does


def test_up_trains_and_all_is_healthy(composed: Composed) -> None:
    composed.trains()
    states = composed.compose("ps", "--format", "{{.Service}} {{.Health}}").splitlines()
    assert sorted(states).count("actor healthy") == 2
    assert {"learner healthy", "prometheus healthy", "page healthy"} <= set(states)


def test_the_page_shows_the_run_that_the_learner_makes(composed: Composed) -> None:
    def about() -> dict[str, Any]:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{composed.environment['PAGE_PORT']}/about", timeout=10
        ) as answer:
            told: dict[str, Any] = json.load(answer)
            return told

    until(lambda: about()["is_own"])
    before = about()["update"]
    until(lambda: about()["update"] > before)
    (page,) = composed.containers("page")
    assert run("docker", "exec", page, "touch", "/runs/mine").returncode != 0


def test_no_container_can_write_or_do_more_than_it_must(composed: Composed) -> None:
    for container in composed.compose("ps", "-aq").split():
        found = inspect(container)
        settings = found["HostConfig"]
        assert settings["ReadonlyRootfs"], found["Name"]
        assert settings["CapDrop"] == ["ALL"], found["Name"]
        assert "no-new-privileges:true" in settings["SecurityOpt"], found["Name"]
        assert found["Config"]["User"] not in ("", "root", "0"), found["Name"]


def test_an_actor_never_sees_the_learners_secret(composed: Composed) -> None:
    actor, *_ = composed.containers("actor")
    assert docker("exec", actor, "ls", "/keys").split() == ["actor.key_secret", "learner.key"]
    assert {mount["Destination"] for mount in inspect(actor)["Mounts"]} == {"/keys", "/modules"}


def test_prometheus_sees_the_learner_and_every_actor(composed: Composed) -> None:
    until(lambda: composed.scraped == ["clew-actor", "clew-actor", "clew-learner"])
    until(lambda: len(composed.query("clew_actor_leases_total > 0")) == 2)


def test_actors_are_scaled_up_and_down_while_it_trains(composed: Composed) -> None:
    learner = composed.containers("learner")
    for count in (1, 4, 2):
        composed.up(actors=count)
        until(lambda count=count: composed.actors == count)  # type: ignore[misc]
        composed.trains()
    assert composed.containers("learner") == learner


def test_an_actor_that_crashes_is_started_again(composed: Composed) -> None:
    one, _ = composed.containers("actor")
    before = inspect(one)["State"]["StartedAt"]
    composed.crash(one)
    until(lambda: inspect(one)["State"]["StartedAt"] != before)
    until(lambda: composed.actors == 2)
    composed.trains()


def test_without_an_actor_that_was_killed_it_goes_on_and_up_brings_it_back(composed: Composed) -> None:
    one, _ = composed.containers("actor")
    docker("kill", one)
    until(lambda: composed.actors == 1)
    composed.trains()
    composed.up()
    until(lambda: composed.actors == 2)


@pytest.mark.parametrize("way", ["crash", "kill"])
def test_a_learner_that_dies_goes_on_from_its_checkpoint(composed: Composed, way: str) -> None:
    until(lambda: composed.update > 2 * CHECKPOINT_EVERY)
    (one,) = composed.containers("learner")
    started, before = inspect(one)["State"]["StartedAt"], composed.update
    if way == "crash":
        composed.crash(one)
        until(lambda: inspect(one)["State"]["StartedAt"] != started)
    else:
        docker("kill", one)
        assert composed.containers("learner") == []  # Docker takes it for the user's wish
    composed.up()
    metrics = composed.learner_metrics()
    assert metrics["clew_learner_update"] - metrics["clew_learner_updates_total"] > before - CHECKPOINT_EVERY
    composed.trains()
    until(lambda: composed.actors == 2)


def test_down_and_up_goes_on_where_it_was(composed: Composed) -> None:
    composed.trains()
    before, run_id = composed.update, identity(composed)
    composed.down()
    composed.up()
    assert composed.update >= before
    assert identity(composed) == run_id
    composed.trains()


def identity(system: Composed) -> str:
    """Returns the run's id, as the learner's log names it."""
    return str(re.findall(r"run=(\w+)", "\n".join(system.logs("learner")))[-1])


def test_a_setting_misspelt_in_env_is_said_in_one_line(composed: Composed, checkout: Path) -> None:
    (checkout / ".env").write_text("CLEW_MAZE__SIED=7\n")
    clean = {name: value for name, value in composed.environment.items() if not name.startswith("CLEW_")}
    command = ("docker", "compose", "-p", composed.project, "run", "--rm", "--no-deps", "learner")
    result = run(*command, env=clean, folder=checkout)
    assert result.returncode == 2
    said = [line for line in (result.stdout + result.stderr).splitlines() if "clew:" in line]
    assert said == ["clew: unknown setting in the environment: CLEW_MAZE__SIED; did you mean CLEW_MAZE__SIDE?"]


# Others


def test_an_actor_with_an_unknown_key_gets_nowhere(composed: Composed, images: Images, tmp_path: Path) -> None:
    """It knows the learner's key, and sits in the learner's own network."""
    stranger = handed_out(composed, "actor", tmp_path)
    docker_keys = ("run", "--rm", "--tmpfs", "/new:mode=777", "--entrypoint", "sh", images.actor)
    secret = docker(*docker_keys, "-c", "clew keys new /new/k >/dev/null; cat /new/k/actor/actor.key_secret")
    (stranger / "actor.key_secret").write_text(secret + "\n")
    refused = composed.learner_metrics()[REFUSED]
    learner = f"learner:{composed.environment['LEARNER_PORT']}"
    with elsewhere(composed, images, stranger, learner, f"{composed.project}_default") as other:
        until(lambda: composed.learner_metrics()[REFUSED] > refused)
        until(lambda: other.logs("actor"))
        composed.trains()
        assert composed.actors == 2
        (warning,) = [line for line in other.logs("actor") if "INFO" not in line]
        assert "the learner refused this actor's key" in warning


@pytest.mark.parametrize("network", ["bridge", "host"])
def test_with_a_key_actors_of_another_project_join_through_the_published_port(
    composed: Composed, images: Images, tmp_path: Path, network: str
) -> None:
    def well(actor: str) -> bool:
        return bool(inspect(actor)["State"]["Health"]["Status"] == "healthy")

    composed.compose("run", "--rm", "keys", "add", "workshop")
    try:
        keys = handed_out(composed, "workshop", tmp_path)
        gateway = bridge()
        learner = f"{gateway}:{composed.environment['LEARNER_PORT']}"
        with elsewhere(composed, images, keys, learner, network, actors=2) as other:
            until(lambda: composed.actors == 4)
            until(lambda: all(map(well, other.containers("actor"))))
            if network == "host":
                until(lambda: composed.scraped.count("clew-actor") == 4)
    finally:
        composed.compose("run", "--rm", "keys", "revoke", "workshop")
    until(lambda: composed.actors == 2)


def test_a_key_added_is_accepted_within_five_seconds(composed: Composed, tmp_path: Path) -> None:
    composed.compose("run", "--rm", "keys", "add", "visitor")
    added = time.monotonic()
    try:
        keys = ActorKeys.of(handed_out(composed, "visitor", tmp_path))
        address = f"tcp://127.0.0.1:{composed.environment['LEARNER_PORT']}"
        with closing(ActorLinks(address, keys)) as links:
            while not links.connection:
                links.receive(0.1)
                assert time.monotonic() - added < 5.0, links.trouble
    finally:
        composed.compose("run", "--rm", "keys", "revoke", "visitor")

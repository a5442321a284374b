"""What the images hold, and what they do not; how little a change to the code builds anew."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import pytest

from tests import ROOT
from tests.parts.engine import Images, build, docker, inspect, run, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(2_700)]

CONTEXT = ("pyproject.toml", "constraints.txt", ".dockerignore", "protocol", "actors", "learner", "deploy")
READ_ONLY = (
    "run",
    "--rm",
    "--init",
    "--read-only",
    "--cap-drop",
    "ALL",
    "--security-opt",
    "no-new-privileges:true",
)


def inside(image: str, script: str) -> str:
    """What a shell script prints in a container as it is run for good."""
    return docker(*READ_ONLY, "--tmpfs", "/tmp", "--entrypoint", "sh", image, "-euc", script)


def megabytes(image: str) -> float:
    """Returns what an image adds to Python's own, unpacked."""
    lines = inside(image, "du -sbc /opt/clew /app").splitlines()
    return int(lines[-1].split()[0]) / 1e6


@pytest.fixture(params=["actor", "learner", "page"])
def image(request: pytest.FixtureRequest, images: Images) -> str:
    return str(getattr(images, request.param))


@pytest.mark.parametrize("command", ["learner", "actor", "keys", "doctor", "page"])
def test_every_command_of_a_machine_without_a_screen_is_there(image: str, command: str) -> None:
    assert f"clew {command}" in docker(*READ_ONLY, image, command, "--help")


@pytest.mark.parametrize(("target", "found"), [("actor", "can run actors, and no learner"), ("learner", "device cpu")])
def test_the_doctor_finds_nothing_wrong(images: Images, target: str, found: str) -> None:
    report = docker(*READ_ONLY, "--tmpfs", "/tmp", getattr(images, target), "doctor")
    assert "FAIL" not in report
    assert found in report


def test_the_actors_image_says_that_it_is_not_the_learners(images: Images) -> None:
    result = run("docker", *READ_ONLY, images.actor, "learner")
    assert result.returncode == 2
    assert re.fullmatch("clew: torch and safetensors not found.*\n", result.stderr)


def test_nobody_is_root_and_nothing_can_be_written(image: str) -> None:
    assert inside(image, "id -u; id -g").split() == ["10001", "10001"]
    assert inspect(image)["Config"]["User"] == "10001:10001"
    assert inside(image, "find /app /opt/* ! -type l -a \\( -user 10001 -o -perm -o+w \\)") == ""


def test_no_tool_that_builds_is_left(image: str) -> None:
    """The base brings pip for its own Python; ours has none."""
    assert inside(image, "ls /opt/clew/bin | grep -c pip || true") == "0"
    assert run("docker", "run", "--rm", "--entrypoint", "python", image, "-m", "pip").returncode == 1
    assert inside(image, "command -v gcc g++ cc make || true") == ""
    assert inside(image, "find / -xdev -path '*/.cache/pip' -o -path /root/.cache 2>/dev/null || true") == ""


def test_all_of_the_code_gets_in_and_no_key_no_run_and_no_test(image: str) -> None:
    assert inside(image, "cd /app; ls -A").split() == ["actors", "deploy", "learner", "protocol"]
    sources = {str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0] in CONTEXT}
    assert set(inside(image, "cd /app; find * -name '*.py'").split()) == sources
    found = inside(image, "cd /app; find . -type f -not -name '*.py' -not -name '*.pyc'").split()
    assert {Path(name).parent.as_posix() for name in found} == {"deploy/configs", "deploy/page"}


def test_an_actor_needs_no_torch(images: Images) -> None:
    assert inside(images.actor, "find /opt/clew /usr -iname '*torch*' -o -name '*safetensors*'") == ""


def test_a_page_needs_no_torch_and_shows_what_ships(images: Images) -> None:
    assert inside(images.page, "find /opt/clew /usr -type d -name 'torch*'") == ""
    shown = "from deploy.page.shipped import load; print(load().update)"
    assert inside(images.page, f'python -c "{shown}"') == "1000"


@pytest.mark.parametrize(("target", "most"), [("actor", 110), ("learner", 810), ("page", 120)])
def test_an_image_adds_little_to_pythons(images: Images, target: str, most: int) -> None:
    size = megabytes(getattr(images, target))
    print(f"{target}: {size:.1f} MB")
    assert size < most


@pytest.mark.parametrize(
    ("target", "extras"), [("actor", ("otel",)), ("learner", ("otel", "learner")), ("page", ("otel", "page"))]
)
def test_nothing_is_installed_but_what_clew_asks_for(images: Images, target: str, extras: tuple[str, ...]) -> None:
    def asked_for(name: str) -> set[str]:
        return {plain(line) for line in declared[name] if "extra ==" not in line} & set(declared)

    def plain(name: str) -> str:
        return re.split("[^a-z0-9-]", name.lower().replace("_", "-"))[0]

    script = "{d.name: d.requires or [] for d in distributions(path=glob('/opt/clew/lib/*/site-packages'))}"
    imports = "import json; from glob import glob; from importlib.metadata import distributions"
    image = getattr(images, target)
    found = json.loads(inside(image, f'python -c "{imports}; print(json.dumps({script}))"'))
    declared = {plain(name): lines for name, lines in found.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [line for name in extras for line in project["optional-dependencies"][name]]
    todo, closure = {plain(line) for line in lines} - {"matplotlib"}, set[str]()
    while todo:
        closure |= todo
        todo = set().union(*map(asked_for, todo)) - closure
    assert closure == set(declared)


def test_a_change_to_the_code_builds_nothing_anew_but_the_code(
    images: Images, torch_index: str, tmp_path: Path
) -> None:
    def layers() -> list[str]:
        build("actor", "clew-actor:changed", torch_index, tmp_path)
        found: list[str] = inspect("clew-actor:changed")["RootFS"]["Layers"]
        return found

    for name in CONTEXT:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    try:
        before = layers()
        with (tmp_path / "actors" / "actor.py").open("a") as file:
            file.write(f"\n# {tmp_path}\n")
        with (tmp_path / "pyproject.toml").open("a") as file:
            file.write("\n[tool.another]\n")
        after = layers()
    finally:
        docker("rmi", "clew-actor:changed")
    assert after[:-1] == before[:-1]
    assert after[-1] != before[-1]


def test_health_is_what_healthz_says(images: Images) -> None:
    """Without a learner an actor is well enough to wait, and not to work; its port is any free one."""
    name = f"clew-health-{id(images)}"
    actor = ("actor", "--connect", "tcp://127.0.0.1:9", "--metrics-port", "0")
    docker("run", "-d", "--name", name, "--init", "--tmpfs", "/tmp", images.actor, *actor)
    check = ("docker", "exec", name, "python", "-S", "-m", "deploy.process.health")
    try:
        until(lambda: "metrics are served on" in run("docker", "logs", name).stderr)
        assert run(*check).returncode == 1
    finally:
        docker("rm", "-f", name)

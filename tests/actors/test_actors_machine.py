"""A machine for actors alone: torch, safetensors and matplotlib are not installed, and one thread computes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.test_cli import CLEW, ENVIRONMENT, assert_refused, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.parties import Party, Place, place

__all__ = ["place"]  # a fixture

LEARNERS_OWN = ("torch", "safetensors", "matplotlib")


def clew_without(*absent: str) -> list[str]:
    """`clew` where these packages cannot be imported."""
    script = f"import sys; sys.modules.update(dict.fromkeys({absent})); from deploy.cli import main; main()"
    return [sys.executable, "-c", script]


def run(*command: object, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )


@pytest.mark.parametrize("command", ["learner", "train", "bench"])
def test_what_only_a_learners_machine_can_do_names_the_remedy_in_one_line(command: str, tmp_path: Path) -> None:
    result = run(*clew_without(*LEARNERS_OWN), *command.split(), folder=tmp_path)
    assert_refused(result, r"torch and safetensors not found.*; run pip install 'clew\[learner\]'")
    assert not list(tmp_path.iterdir())


def test_evaluating_needs_what_reads_checkpoints_and_no_torch(tmp_path: Path) -> None:
    result = run(*clew_without(*LEARNERS_OWN), "evaluate", "run", folder=tmp_path)
    assert_refused(result, r"safetensors not found.*; run pip install 'clew\[learner\]'")
    result = run(*clew_without("torch", "matplotlib"), "evaluate", "run", folder=tmp_path)
    assert_refused(result, "run holds no checkpoint to evaluate")


def test_pictures_need_matplotlib(tmp_path: Path) -> None:
    result = run(*clew_without("matplotlib"), "evaluate", "run", "--pictures", folder=tmp_path)
    assert_refused(result, r"matplotlib not found.*; run pip install 'clew\[learner\]'")


def test_keys_are_made(tmp_path: Path) -> None:
    result = run(*clew_without(*LEARNERS_OWN), "keys", "new", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "keys" / "learner").is_dir()


def test_the_doctor_finds_it_fit_for_actors(tmp_path: Path) -> None:
    result = run(*clew_without(*LEARNERS_OWN), "doctor", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "can run actors, and no learner" in result.stdout
    assert "FAIL" not in result.stdout


def test_an_actor_does_its_part_of_a_run(place: Place) -> None:
    learner = place.learner()
    actor = run(*clew_without(*LEARNERS_OWN), "actor", "--connect", place.address, folder=place.folder)
    assert actor.returncode == 0, actor.stderr
    learner.ends()


@pytest.mark.skipif(os.cpu_count() == 1, reason="one core has one thread anyway")
def test_one_thread_computes_whatever_the_environment_asks_for(tmp_path: Path) -> None:
    """numpy starts its threads when it is imported, in every process of clew after `deploy`."""

    def threads(*imported: str) -> int:
        script = f"import os, {', '.join(imported)}; print(len(os.listdir('/proc/self/task')))"
        many = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")
        return int(run(sys.executable, "-c", script, folder=tmp_path, **many).stdout)

    assert threads("numpy") == 2
    assert threads("deploy.cli", "numpy") == 1
    assert threads("deploy.process.child", "numpy") == 1


def test_an_actor_takes_little_memory(place: Place) -> None:
    """With the default config, without machine code and with it: numba takes 110 MB, torch would take 150 more.

    How much an actor has used depends on which leases it has had: 92 to 99 MB and 200 to 220 MB were seen.
    """
    address = f"ipc://{place.folder}/learner"
    place.start("learner", "--updates", 1_000_000, "--run-dir", "run", "--bind", address)
    actors = {}
    for disabled, most_mb in (("1", 150), ("0", 300)):
        log = place.folder / f"actor-{disabled}.log"
        with log.open("w") as errors:
            command = [*CLEW, "actor", "--connect", address, "--metrics-port", "0"]
            environment = ENVIRONMENT | {"NUMBA_DISABLE_JIT": disabled}
            process = place.undo.enter_context(subprocess.Popen(command, env=environment, stderr=errors))
        place.undo.callback(process.kill)
        actors[most_mb] = Party(process, log)
    for most_mb, actor in actors.items():
        wait_until(lambda actor=actor: actor.metric("clew_actor_leases_total") > 2)  # type: ignore[misc]
        most_kb = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{actor.process.pid}/status").read_text())
        assert most_kb
        assert 50_000 < int(most_kb[1]) < most_mb * 1000

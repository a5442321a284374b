"""The array job: its shell is sound, and the script really runs, as sbatch would start it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.command import keys as keyring
from tests import ROOT
from tests.deploy.test_cli import ENDLESS, ENVIRONMENT, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.parties import Party, Place, place
from tests.whole.test_network import HERE

__all__ = ["place"]  # a fixture

SCRIPT = ROOT / "deploy" / "slurm" / "actors.sbatch"
TEXT = SCRIPT.read_text()
OPTIONS = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", TEXT, re.MULTILINE))
Submit = Callable[..., Party]


@pytest.fixture
def submit(place: Place) -> Submit:
    """One element of the array, as `sbatch --export=ALL,NAME=VALUE...` starts it on a node."""
    commands = place.folder / "bin"
    commands.mkdir()
    (commands / "clew").write_text(f'#!/bin/sh\nexec {sys.executable} -m deploy.cli "$@"\n')
    (commands / "clew").chmod(0o755)

    def start(task: int, **exported: object) -> Party:
        spooled = place.folder / f"slurm_script_{task}"  # sbatch runs a copy, from the directory of the submission
        shutil.copy(SCRIPT, spooled)
        environment = {
            **ENVIRONMENT,
            "PATH": f"{commands}:{ENVIRONMENT['PATH']}",
            **{name: str(value) for name, value in exported.items()},
            "SLURM_JOB_ID": str(4711 + task),
            "SLURM_ARRAY_JOB_ID": "4711",
            "SLURM_ARRAY_TASK_ID": str(task),
        }
        log = place.folder / f"clew-actor-4711_{task}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                ["bash", spooled], cwd=place.folder, env=environment, stdout=output, stderr=output
            )
        place.undo.enter_context(process)
        place.undo.callback(process.kill)
        return Party(process, log)

    return start


def test_shellcheck_has_nothing_to_say() -> None:
    shellcheck = shutil.which(
        "shellcheck", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    assert shellcheck
    result = subprocess.run([shellcheck, "--shell=bash", SCRIPT], capture_output=True, text=True, timeout=DEADLINE_S)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_an_element_takes_one_core_may_be_requeued_and_is_asked_to_stop_before_it_is_killed() -> None:
    assert (OPTIONS["ntasks"], OPTIONS["cpus-per-task"]) == ("1", "1")
    assert "requeue" in OPTIONS
    assert re.fullmatch(r"B:TERM@\d+", OPTIONS["signal"])  # B: to the script, which is clew by then
    assert OPTIONS["output"].endswith("%A_%a.log")


def test_every_option_comes_before_the_first_command() -> None:
    """Slurm reads no further."""
    before, _, after = TEXT.partition("\nset -")
    assert before.count("\n#SBATCH ") == len(OPTIONS) >= 8
    assert "#SBATCH" not in after


@pytest.mark.slow
def test_elements_join_with_their_key_work_and_end_well_when_slurm_asks(place: Place, submit: Submit) -> None:
    keys = place.folder / "keys"
    keyring.new(keys)
    learner = place.start(
        *("learner", *ENDLESS, "--run-dir", "run", "--bind", place.address, "--keys", keys / "learner"),
        *("--metrics-port", 0),
    )
    exported = {"LEARNER": place.address, "KEYS": keys / "actor", "CLEW_OLD": "a setting that is none"}
    team = [submit(task, **exported) for task in (1, 2)]
    wait_until(lambda: learner.metric("clew_learner_actors") == 2)
    wait_until(lambda: learner.metric("clew_learner_update") >= 3)
    wait_until(lambda: all(actor.metric("clew_actor_leases_total") >= 1 for actor in team))
    for task, actor in enumerate(team, start=1):
        words = Path(f"/proc/{actor.process.pid}/cmdline").read_text().split("\0")
        assert words[words.index("--name") + 1] == f"actor-4711_{task}"
    assert learner.page("/actors")[1].count(f"{HERE}:") == 2

    first, second = team
    first.process.send_signal(signal.SIGTERM)  # to the script's own process
    first.ends()
    wait_until(lambda: learner.metric("clew_learner_actors") == 1)
    update = learner.metric("clew_learner_update")
    wait_until(lambda: learner.metric("clew_learner_update") > update)

    requeued = submit(1, **exported)
    wait_until(lambda: learner.metric("clew_learner_actors") == 2)
    for actor in (requeued, second):
        actor.process.send_signal(signal.SIGTERM)
        actor.ends()


@pytest.mark.parametrize("missing", ["LEARNER", "KEYS"])
def test_a_variable_that_is_not_given_is_said(missing: str, submit: Submit) -> None:
    given = {"LEARNER": "tcp://nobody:7777", "KEYS": "keys/actor"}
    del given[missing]
    element = submit(1, **given)
    element.ends(1)
    assert re.search(rf"{missing}: is not set; submit with --export=ALL", element.log.read_text())

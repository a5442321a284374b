"""The `clew` command, in real processes."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import typer
from safetensors.numpy import save as save_arrays

from deploy.cli import app
from deploy.process.fleet import LEARNER_GRACE_S
from deploy.process.settings import load
from learner.checkpoint import load as load_checkpoint
from protocol.config import ClewError, Config
from tests import ROOT
from tests.parts import forked
from tests.parts.deadline import DEADLINE_S
from tests.parts.forked import Process

CLEW = [sys.executable, "-m", "deploy.cli"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
TINY = [
    *("--set", "maze.family=perfect", "--set", "maze.side=5", "--set", "maze.min_distance=2"),
    *("--set", "inner.steps=1", "--set", "outer.attempts=2"),
    *("--set", "run.horizon_per_cell=1", "--set", "run.mazes=4", "--set", "run.mazes_per_lease=2"),
]
ENDLESS = [*TINY, "--updates", "1000000"]


def clew(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return forked.run([*map(str, arguments)], folder, ENVIRONMENT, DEADLINE_S)


@contextmanager
def running(*arguments: object, folder: Path) -> Iterator[Process]:
    """A command that goes on until it is told to stop."""
    with Process([*map(str, arguments)], folder, ENVIRONMENT) as process:
        try:
            yield process
        finally:
            process.kill()


def first_line(stream: object, pattern: str) -> re.Match[str]:
    """Reads on until a line matches; pytest's timeout is the deadline."""
    for line in stream:  # type: ignore[attr-defined]
        if match := re.search(pattern, line):
            return match
    raise AssertionError(f"ended without a line like {pattern!r}")


def children(parent: int) -> dict[str, int]:
    """The process ids of what `clew train` started, by role."""
    found = {}
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"tests.parts.forked" in command:
            found[Path(f"/proc/{pid}/comm").read_text().strip()] = int(pid)
        elif b"deploy.process.child" in command:
            found[command[-2].decode()] = int(pid)
    return found


def wait_until(holds: Callable[[], bool], within_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline
        select.select([], [], [], 0.02)


@contextmanager
def ending(processes: list[int]) -> Iterator[None]:
    """Checks that what happens inside ends all of `processes`."""
    descriptors = list(map(os.pidfd_open, processes))
    yield
    deadline = time.monotonic() + DEADLINE_S
    for descriptor in descriptors:
        ended, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        os.close(descriptor)
        assert ended


def assert_refused(result: subprocess.CompletedProcess[str], pattern: str) -> None:
    """One line that says what is wrong, exit code 2, nothing else."""
    assert result.returncode == 2, result.stdout
    assert re.fullmatch(f"clew: .*{pattern}.*\n", result.stderr)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten updates."""
    folder = tmp_path_factory.mktemp("trained")
    result = clew("train", *TINY, "--updates", 10, "--actors", 1, "--run-dir", "run", folder=folder)
    assert result.returncode == 0, result.stderr
    assert "done after 10 updates" in result.stdout
    return folder / "run"


def begun(run_dir: Path, updates: int = 1) -> None:
    """Waits until so many updates are in the journal. A line on standard output comes seconds later."""
    journal = run_dir / "updates.jsonl"
    wait_until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= updates)


def records(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "updates.jsonl").read_text().splitlines()]


# Settings


def test_the_command_line_beats_the_environment_which_beats_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[maze]\nside = 7\n[run]\nseed = 3\nlag = 0\n")
    monkeypatch.setenv("CLEW_MAZE__SIDE", "11")
    monkeypatch.setenv("CLEW_RUN__SEED", "4")
    config = load(file, ["maze.side=13"])
    assert (config.maze.side, config.run.seed, config.run.lag) == (13, 4, 0)
    assert type(config) is Config


@pytest.mark.parametrize(
    ("assignment", "pattern"),
    [
        ("maze.sied=9", r"unknown setting maze\.sied; did you mean maze\.side\?"),
        ("mzae.side=9", r"unknown setting mzae; did you mean maze\?"),
        ("maze.side=8", r"odd .* got 8; set maze\.side"),
        ("maze.side=3", r"maze\.side must be greater than or equal to 5, got '3'; change maze\.side"),
        ("maze.side=nine", r"maze\.side must be a valid integer.* got 'nine'"),
        ("maze.side=[9, 3]", r"maze\.side.* must be greater than or equal to 5, got '3'"),
        ("maze.side=9,9", r"maze\.side lists 9 twice; name each value once"),
        ("maze.side=[]", r"maze\.side is an empty list"),
        ("policy.memory=none", r"nothing to dream of; set policy\.dreams to false"),
        ("maze.family=perfct", r"maze\.family must be 'perfect', .* got 'perfct'"),
        ("outer.learning_rate=nan", r"outer\.learning_rate must be a finite number, got 'nan'"),
        ("run.mazes=7", r"set run\.mazes_per_lease to a divisor of run\.mazes"),
        ("maze.side", r"SECTION\.KEY=VALUE.* got 'maze\.side'"),
        ("side=9", r"SECTION\.KEY=VALUE.* got 'side=9'"),
    ],
)
def test_a_bad_assignment_is_explained_in_one_line(assignment: str, pattern: str) -> None:
    with pytest.raises(ClewError, match=pattern) as refusal:
        load(None, [assignment])
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("variable", "value", "pattern"),
    [
        ("CLEW_MAZE__SIED", "9", r"CLEW_MAZE__SIED; did you mean CLEW_MAZE__SIDE\?"),
        ("CLEW_MZAE__SIDE", "9", r"CLEW_MZAE__SIDE; did you mean CLEW_MAZE__SIDE\?"),
        ("CLEW_SEED", "9", r"CLEW_SEED; did you mean CLEW_RUN__SEED\?"),
        ("CLEW_MAZE__SIDE", "", r"maze\.side must be a valid integer.*; change maze\.side \(CLEW_MAZE__SIDE\)$"),
        ("CLEW_MAZE__SIDE", "8", r"maze side must be odd.*; set maze\.side \(CLEW_MAZE__SIDE\)$"),
        ("CLEW_MAZE__FAMILY", "file", r"maze\.family \(CLEW_MAZE__FAMILY\) 'file' needs a maze file"),
        ("CLEW_RUN__MAZES", "7", r"to a divisor of run\.mazes \(CLEW_RUN__MAZES\)$"),
        ("CLEW_MAZE__SIDE", "[" * 20_000, r"maze\.side must be a valid integer.*\(CLEW_MAZE__SIDE\)$"),
        ("CLEW_MAZE", "[" * 20_000, r"use CLEW_SECTION__KEY=VALUE"),
    ],
)
def test_a_bad_variable_is_explained_in_one_line(
    variable: str, value: str, pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ClewError, match=pattern) as refusal:
        load(None)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b"[maze\nside = 9", r"config\.toml is no valid TOML: .*line 1"),
        (b"\xff\xfe", r"config\.toml is no valid TOML"),
        (b"[maze]\nsied = 9", r"did you mean maze\.side\?"),
        (b"maze = 9", r"maze must be a section of settings, \[maze\], got 9; change it$"),
        (b"[run]\naudit = true", r"run\.audit must be a number, got True; change run\.audit \(.*config\.toml\)$"),
        (b"[maze]\nside = 3", r"maze\.side must be .* 5, got 3; change maze\.side \(.*config\.toml\)$"),
        (b"\xef\xbb\xbf[maze]\nside = 8", r"odd .* got 8; set maze\.side \(.*config\.toml\)$"),
        (b"maze = " + b"[" * 20_000, r"config\.toml nests brackets too deeply; mend the file"),
        (b"maze = " + b"[" * 60 + b"]" * 60, r"maze must be .*, got \[\[\[\[\[\[\[.*; change it"),
        (b"[colour]\nwall = 1", r"unknown setting colour; choose from maze, policy, inner, outer, run"),
        (None, r"cannot read config .*config\.toml: No such file"),
    ],
)
def test_a_bad_file_is_explained_in_one_line(content: bytes | None, pattern: str, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ClewError, match=pattern) as refusal:
        load(file)
    assert "\n" not in str(refusal.value)


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbf[maze]\nside = 13\n")
    assert load(tmp_path / "config.toml").maze.side == 13


def test_the_config_command_says_every_setting_and_where_it_comes_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[maze]\nside = 7\npath = 'a \"b\" \\\\ é.txt'\n[run]\nseed = 3\n")
    monkeypatch.setenv("CLEW_RUN__SEED", "4")
    monkeypatch.setitem(ENVIRONMENT, "CLEW_RUN__SEED", "4")
    arguments = ("config", "--config", "mine.toml", "--set", "run.lag=2")
    said = clew(*arguments, folder=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    origins = dict(re.findall(r"^(\w+) = .*  # (.*)$", said.stdout, re.MULTILINE))
    assert (origins["side"], origins["seed"], origins["lag"]) == ("mine.toml", "CLEW_RUN__SEED", "--set")
    assert origins["braid"] == "default"
    (tmp_path / "again.toml").write_text(said.stdout)
    wanted = load(file, ["run.lag=2"])
    assert (wanted.maze.side, wanted.run.seed, wanted.run.lag) == (7, 4, 2)
    monkeypatch.delenv("CLEW_RUN__SEED")
    assert load(tmp_path / "again.toml") == wanted
    figures = json.loads(clew(*arguments, "--json", folder=tmp_path).stdout)
    assert figures["config"] == wanted.model_dump(mode="json")
    assert figures["origins"]["run.seed"] == "CLEW_RUN__SEED"


def test_the_schema_describes_every_setting(tmp_path: Path) -> None:
    said = clew("config", "--schema", folder=tmp_path)
    assert (said.returncode, said.stderr) == (0, "")
    schema = json.loads(said.stdout)
    for section, settings in Config().model_dump(mode="json").items():
        described = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]
        assert not described["additionalProperties"]
        assert {name: about["default"] for name, about in described["properties"].items()} == settings


def test_the_configs_that_ship_are_valid() -> None:
    configs = {path.name: load(path) for path in (ROOT / "deploy" / "configs").glob("*.toml")}
    assert {"default.toml", "perfect.toml", "meta-sgd.toml"} <= set(configs)


def test_a_config_of_the_first_design_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "old.toml").write_text("[maze]\nside = 13\n[run]\nhorizon = 200\nupdates = 2500\n")
    result = clew("train", "--config", "old.toml", folder=tmp_path)
    assert_refused(result, r"old\.toml is of clew's first design.*set run\.horizon_per_cell .*train anew")
    with pytest.raises(ClewError, match=r"unknown setting run\.horizon; did you mean run\.horizon_per_cell\?"):
        load(None, ["run.horizon=200"])
    assert [path.name for path in tmp_path.iterdir()] == ["old.toml"]


@pytest.mark.parametrize("command", [["train", "--resume", "--run-dir"], ["evaluate"]], ids=" ".join)
def test_a_run_of_the_first_design_is_refused_in_one_line_and_stays_as_it_is(
    tmp_path: Path, command: list[str]
) -> None:
    """Its checkpoint, as the first design wrote it: whole, by both of its checksums."""
    arrays = save_arrays({name: np.zeros(3, np.float32) for name in ("theta.2", "adam.mean", "adam.square")})
    about = {
        "update": 2,
        "run": "old",
        "versions": [2],
        "steps": 2,
        "arrays_sha256": hashlib.sha256(arrays).hexdigest(),
        "config": {"maze": {"side": 9}, "inner": {"step_size": 0.02}, "run": {"horizon": 100, "updates": 2}},
    }
    sealed = {"about": about, "sha256": hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()}
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/00000002.safetensors").write_bytes(arrays)
    (tmp_path / "run/checkpoints/00000002.json").write_text(json.dumps(sealed, indent=1))
    (tmp_path / "run/updates.jsonl").write_text('{"update": 1}\n{"update": 2}\n')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = clew(*command, "run", folder=tmp_path)
    assert_refused(result, r"00000002\.json is of clew's first design.*train anew.* in another run directory")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


# The command line


@pytest.mark.parametrize(
    ("command", "pattern"),
    [
        ("evaluate run --horizon 0", r"--horizon must be .* 1, got '0'; change --horizon"),
        ("evaluate run --attempts 11x", r"--attempts must be a valid integer.* got '11x'; change --attempts"),
        ("evaluate run --attempts 1000000000", r"--attempts must be .* 100000, got '1000000000'; change --attempts"),
        ("evaluate run --robots 99999999999999999999", r"--robots must be .*; change --robots"),
        ("train --actors 0", r"--actors must be .* 1, got '0'; change --actors"),
        ("train --metrics-port 70000", r"--metrics-port must be .* 65535, got '70000'; change --metrics-port"),
        ("learner --log-format xml", r"'--log-format': 'xml' is not one of 'text', 'json'; see `clew learner --help`"),
        ("train --sed 3", r"no such option: --sed.*; see `clew train --help`"),
        ("evaluate", r"missing argument .*; see `clew evaluate --help`"),
        ("trian", r"no such command 'trian'.*; see `clew --help`"),
        ("train --set maze.family=file --set maze.path=none.txt", r"cannot read maze file none\.txt: No such file"),
        ("train --updates 0", r"run\.updates must be .* 1, got '0'; change run\.updates"),
        ("train --set inner.cell_step_size=1e308", r"inner\.cell_step_size must be .* 1000000, got '1e308'; change"),
        ("bench --rule nice", r"inner\.rule must be 'sgd', .* got 'nice'; change inner\.rule"),
        (
            "actor --connect tcp://h:1 --metrics-address nonsense",
            r"--metrics-address wants HOST:PORT .* got 'nonsense'",
        ),
        ("actor --connect tcp://h:1 --name " + "a" * 300, r"--name has 300 characters, and 200 are the most"),
        ("actor --connect tcp://h:1 --metrics-port 0 --metrics-host " + "a" * 70, r"cannot serve metrics on a+:0: no "),
        ("learner --bind tcp://::1:7777", r"is no address; use .*tcp://\[IPV6\]:PORT"),
    ],
)
def test_a_command_line_that_cannot_be_used_is_refused_in_one_sentence(
    command: str, pattern: str, tmp_path: Path
) -> None:
    result = clew(*command.split(), folder=tmp_path)
    assert result.returncode == 2, result.stdout
    assert re.search(f"^clew: .*{pattern}.*\n\\Z", result.stderr, re.MULTILINE), result.stderr
    assert "Traceback" not in result.stderr


def test_it_says_its_version_and_completes_commands_and_options(tmp_path: Path) -> None:
    assert re.fullmatch(r"clew \S+, contract [0-9a-f]{12}\n", clew("--version", folder=tmp_path).stdout)
    for typed, wanted in (("clew tr", ["train"]), ("clew evaluate --hor", ["--horizon"])):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_CLEW_COMPLETE": "complete_bash"}
        result = subprocess.run(
            CLEW, cwd=tmp_path, env=ENVIRONMENT | words, capture_output=True, text=True, timeout=DEADLINE_S
        )
        assert result.stdout.split() == wanted, result.stderr


# Training


def test_a_refusal_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    result = clew("train", "--set", "maze.sied=9", folder=tmp_path)
    assert_refused(result, r"unknown setting maze\.sied")
    assert list(tmp_path.iterdir()) == []


def test_training_records_every_update(trained: Path) -> None:
    assert [record["update"] for record in records(trained)] == list(range(1, 11))


def test_a_run_is_never_overwritten(trained: Path) -> None:
    before = (trained / "updates.jsonl").read_bytes()
    assert_refused(clew("train", *TINY, "--run-dir", trained, folder=trained), "--resume")
    assert (trained / "updates.jsonl").read_bytes() == before


def test_resuming_a_finished_run_changes_nothing(trained: Path) -> None:
    before = (trained / "updates.jsonl").read_bytes()
    result = clew("train", "--resume", "--run-dir", trained, folder=trained)
    assert (result.returncode, result.stderr) == (0, "")
    assert "done after 10 updates" in result.stdout
    assert (trained / "updates.jsonl").read_bytes() == before


def test_a_run_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = clew("train", *TINY, "--run-dir", "file/run", folder=tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "file/run" in result.stderr


def test_resume_wants_to_know_which_run(tmp_path: Path) -> None:
    assert_refused(clew("train", "--resume", folder=tmp_path), "--run-dir")


@pytest.mark.parametrize("role", ["train", "learner"])
def test_a_run_directory_that_is_mistyped_is_said_and_begins_no_run(role: str, tmp_path: Path) -> None:
    for folder in ("mistyped", "."):
        result = clew(role, *TINY, "--resume", "--run-dir", folder, folder=tmp_path)
        assert_refused(result, f"{folder} holds no run to resume; change --run-dir, or begin one without --resume")
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_before_any_other_checkpoint_is_resumed_as_itself(tmp_path: Path) -> None:
    given = [*ENDLESS, "--seed", "7", "--set", "run.checkpoint_every=1000000"]
    with running("train", *given, "--actors", 1, "--run-dir", "run", folder=tmp_path) as process:
        begun(tmp_path / "run")
        os.kill(children(process.pid)["learner"], signal.SIGKILL)
        _, errors = process.communicate()
        assert process.returncode == 1
    assert errors == "clew: the learner died (signal 9); go on from its last checkpoint with --resume\n"
    before = [record["theta_sha256"] for record in records(tmp_path / "run")]
    with running("train", "--resume", "--actors", 1, "--run-dir", "run", folder=tmp_path) as process:
        begun(tmp_path / "run", len(before) + 1)  # by then the records from before are gone
        process.send_signal(signal.SIGINT)
        process.communicate()
    again = [record["theta_sha256"] for record in records(tmp_path / "run")]
    assert again[: len(before)] == before


def test_whoever_starts_a_learner_again_and_again_says_so_once_and_for_all(tmp_path: Path) -> None:
    arguments = (*TINY, "--begin-or-resume", "--run-dir", "run", "--bind", "tcp://127.0.0.1:0")
    for said in ("begins a run in run", "resumes the run after update 0 in run"):
        with running("learner", *arguments, folder=tmp_path) as learner:
            first_line(learner.stderr, said)
            learner.terminate()
            learner.communicate()
        assert learner.returncode == 0
    assert_refused(clew("learner", "--begin-or-resume", folder=tmp_path), "add --run-dir")


def test_resuming_a_run_of_another_config_is_refused(trained: Path) -> None:
    arguments = ("--resume", "--run-dir", trained, "--set", "maze.side=7")
    assert_refused(clew("train", *arguments, folder=trained), r"maze\.side")


def test_a_run_survives_a_dead_actor_and_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    with running("train", *ENDLESS, "--run-dir", "run", folder=tmp_path) as process:
        begun(tmp_path / "run")
        victim = children(process.pid)["actor-0"]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: children(process.pid).get("actor-0", victim) != victim)
        with ending([process.pid, *children(process.pid).values()]):
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
        assert process.returncode == 0
    assert re.fullmatch(r"actor-0 died \(signal 9: .*\); another takes its place\n", errors)
    stopped = int(first_line(output.splitlines(), r"stopped after (\d+) updates")[1])

    with running("train", "--resume", "--run-dir", "run", folder=tmp_path) as process:  # with the run's own config
        begun(tmp_path / "run", stopped + 1)
        with ending([process.pid, *children(process.pid).values()]):
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
    again = int(first_line(output.splitlines(), r"stopped after (\d+) updates")[1])
    assert [record["update"] for record in records(tmp_path / "run")] == list(range(1, again + 1))


SLOW_END = """
import atexit, sys, time
if "deploy.process.child" in sys.orig_argv:
    atexit.register(time.sleep, 600)
"""


def test_ctrl_c_says_what_is_on_the_disk_however_long_python_takes_to_end(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_END)
    slow = ENVIRONMENT | {"PYTHONPATH": os.pathsep.join([str(tmp_path), ENVIRONMENT["PYTHONPATH"]])}
    command = [*CLEW, "train", *ENDLESS, "--actors", "1", "--run-dir", "run"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, env=slow, stdout=pipe, stderr=pipe, text=True) as process:
        begun(tmp_path / "run")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, "")
    kept = load_checkpoint(tmp_path / "run")
    assert kept
    assert output.splitlines()[-1] == f"stopped after {kept.update} updates, kept in run"
    assert len(records(tmp_path / "run")) == kept.update > 0


def test_a_second_ctrl_c_waits_for_nothing(tmp_path: Path) -> None:
    with running("train", *ENDLESS, "--actors", 1, "--run-dir", "run", folder=tmp_path) as process:
        begun(tmp_path / "run")
        everyone = children(process.pid)
        os.kill(everyone.pop("learner"), signal.SIGSTOP)
        began = time.monotonic()
        with ending(list(everyone.values())):  # so the first has been heard
            process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=began + LEARNER_GRACE_S - time.monotonic())
    assert process.returncode == 1
    assert (
        errors
        == "clew: the learner took too long to end and was killed; go on from its last checkpoint with --resume\n"
    )


def test_runs_that_start_in_one_second_get_directories_of_their_own(tmp_path: Path) -> None:
    with ExitStack() as both:
        processes = [
            both.enter_context(running("train", *TINY, "--updates", 3, "--actors", 1, folder=tmp_path)) for _ in "ab"
        ]
        said = [process.communicate(timeout=DEADLINE_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_a_long_path_for_temporary_files_is_refused_with_a_remedy_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / "/".join(["long"] * 30)
    long.mkdir(parents=True)
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(long))
    command = ("train", *TINY, "--updates", 3, "--actors", 1, "--run-dir", "run")
    result = clew(*command, folder=tmp_path)
    assert_refused(result, r"too long a path for sockets in it; set TMPDIR to one of \d+ bytes at most, such as /tmp")
    most = int(re.findall(r"one of (\d+) bytes", result.stderr)[0])
    with TemporaryDirectory(dir="/tmp", prefix="clew-test-") as short:
        place = Path(short) / ("x" * (most - len(short) - 1))
        place.mkdir()
        monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(place))
        result = clew(*command, folder=tmp_path)
    assert result.returncode == 0, result.stderr


def test_local_actors_give_way_to_the_learner_and_nobody_outlives_a_killed_parent(tmp_path: Path) -> None:
    def actors_give_way() -> bool:
        nice = {name: os.getpriority(os.PRIO_PROCESS, pid) for name, pid in children(process.pid).items()}
        everyone_is_there = nice.keys() == {"learner", "actor-0", "actor-1"}
        return everyone_is_there and nice["learner"] < nice["actor-0"] == nice["actor-1"]

    with running("train", *ENDLESS, "--run-dir", "run", folder=tmp_path) as process:
        begun(tmp_path / "run")
        wait_until(actors_give_way)
        with ending(list(children(process.pid).values())):
            process.kill()


def test_a_terminal_gets_a_live_bar(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [*CLEW, "train", *TINY, "--updates", "10", "--actors", "1"]
    environment = ENVIRONMENT | {"TERM": "xterm-256color", "COLUMNS": "100"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: read_terminal(ours), b"")).decode()
    assert process.returncode == 0, shown
    assert "steps/s" in shown
    assert "10/10" in shown
    assert "\x1b[" in shown


def read_terminal(descriptor: int) -> bytes:
    """Reads what comes next; nothing once the other side has hung up."""
    try:
        return os.read(descriptor, 65_536)
    except OSError:
        os.close(descriptor)
        return b""


# By hand


def test_a_learner_and_an_actor_started_by_hand_finish_a_run(tmp_path: Path) -> None:
    arguments = (*TINY, "--updates", 5, "--run-dir", "run", "--bind", "tcp://127.0.0.1:0")
    with running("learner", *arguments, folder=tmp_path) as learner:
        address = first_line(learner.stderr, r"listening on (\S+)")[1]
        actor = clew("actor", "--connect", address, folder=tmp_path)
        learner.communicate(timeout=DEADLINE_S)
    assert (learner.returncode, actor.returncode) == (0, 0)
    assert len(records(tmp_path / "run")) == 5


@pytest.mark.parametrize(
    ("address", "reason"),
    [("tcp://learner.invalid:7777", "not known|resolution|No address"), ("ipc:///nobody", "No such file")],
)
def test_an_actor_that_finds_no_learner_says_where_it_looks_and_why_in_vain(
    address: str, reason: str, tmp_path: Path
) -> None:
    with running("actor", "--connect", address, folder=tmp_path) as actor:
        first_line(actor.stderr, f"looks for the learner at {address}")
        first_line(actor.stderr, f"{address} cannot be reached: .*({reason}).*; is the learner running")
        actor.send_signal(signal.SIGINT)
        assert actor.wait(DEADLINE_S) == 0


def test_an_occupied_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        address = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        result = clew("learner", *TINY, "--run-dir", "run", "--bind", address, folder=tmp_path)
    assert result.returncode == 2
    assert re.search(rf"^clew: .*{address} is in use", result.stderr, re.MULTILINE)
    assert not (tmp_path / "run").exists()


# Evaluation


def test_evaluation_prints_one_json_object(trained: Path) -> None:
    result = clew("evaluate", trained, "--count", 3, "--attempts", 4, "--json", folder=trained)
    assert result.returncode == 0, result.stderr
    figures = json.loads(result.stdout)
    assert (figures["count"], figures["attempts"], len(figures["mazes"])) == (3, 4, 3)
    for curve in (figures["mean"], figures["mazes"][0]["curve"]):
        assert [point["attempts"] for point in curve] == [0, 1, 2, 3]


def test_evaluation_of_drawn_mazes_shows_tables_and_pictures(trained: Path) -> None:
    (trained / "mine.txt").write_text("S.#\n.#.\n..E\n\nS.....E\n")
    result = clew("evaluate", trained, "--mazes", "mine.txt", "--attempts", 3, "--pictures", folder=trained)
    assert result.returncode == 0, result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines() if re.match(r" +\d+  ", line)] == ["1", "2", "3"]
    assert re.search(r"explorer, first .*\n *explorer, then .*\n *shortest way +5.0", result.stdout)
    assert re.search(r"mine:1 +4\.0 .*\n *mine:2 +6\.0 ", result.stdout)
    for picture in ("learning_curve.png", "adaptation.png", "curve.png"):
        assert (trained / picture).read_bytes().startswith(b"\x89PNG")


def test_mazes_of_several_files_and_sizes_are_evaluated_together(trained: Path) -> None:
    (trained / "one.txt").write_text("S.E\n")
    (trained / "two.txt").write_text("SE\n\n" + "S" + "." * 50 + "E\n")
    result = clew("evaluate", trained, "--mazes", "one.txt", "two.txt", "--json", folder=trained)
    assert result.returncode == 0, result.stderr
    assert [maze["name"] for maze in json.loads(result.stdout)["mazes"]] == ["one", "two:1", "two:2"]
    assert_refused(clew("evaluate", trained, "one.txt", folder=trained), "--mazes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--mazes large.txt", "large.txt.*127 by 127 at most"),
        ("--mazes none.txt", "none.txt"),
        ("--mazes one.txt --side 9", "--side is for mazes that are drawn"),
        ("--family cave", "--family must be 'perfect'.*got 'cave'"),
        ("--family=", "--family must be 'perfect'.*got ''"),
        ("--side 10", "odd sides, got 10"),
        ("--side 0", "--side must be .* 5, got '0'; change --side"),
        ("--side 128", "--side must be .* 127, got '128'; change --side"),
        ("--horizon 2", "--horizon 2 is too short: .* perfect 5x5:.*; give --horizon"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(arguments: str, message: str, trained: Path) -> None:
    (trained / "one.txt").write_text("S.E\n")
    (trained / "large.txt").write_text("S" + "." * 126 + "E\n")
    assert_refused(clew("evaluate", trained, *arguments.split(), folder=trained), message)


def test_a_folder_without_a_run_cannot_be_evaluated(tmp_path: Path) -> None:
    assert_refused(clew("evaluate", tmp_path, folder=tmp_path), "clew train --run-dir")


def test_pictures_of_a_run_without_a_history_leave_out_the_learning_curve(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "checkpoints", tmp_path / "checkpoints")
    result = clew("evaluate", tmp_path, "--count", 2, "--pictures", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert {path.name for path in tmp_path.glob("*.png")} == {"adaptation.png", "curve.png"}


# The README


def commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line.startswith("clew ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_of_the_readme_is_one(command: str) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    group = typer.main.get_command(app)
    parsed = group.commands[name].make_context(name, arguments)  # type: ignore[attr-defined]
    config = parsed.params.get("config")
    assert config is None or (ROOT / config).is_file()


def test_the_torch_that_is_installed_by_hand_is_the_one_that_clew_asks_for() -> None:
    learner = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["learner"]
    by_hand = re.findall(r"pip install '(torch\S+)' --index-url \S+/whl/cpu", (ROOT / "README.md").read_text())
    assert [requirement.split(",")[-1] for requirement in learner if requirement.startswith("torch")] == [
        one.removeprefix("torch") for one in by_hand
    ]


@pytest.mark.parametrize("gpu", [True, False])
def test_make_takes_the_small_build_of_torch_where_there_is_no_gpu(gpu: bool, tmp_path: Path) -> None:
    """As `make -n` says it would; `nvidia-smi` is there where the driver is."""
    for name in ("make", "sh", "echo", "date", "sed", *(["nvidia-smi"] if gpu else [])):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/true")
    made = subprocess.run(
        ["make", "-n", "-B", ".venv/installed"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert made.returncode == 0, made.stderr
    assert ("--extra-index-url https://download.pytorch.org/whl/cpu 'torch>=" in made.stdout) != gpu

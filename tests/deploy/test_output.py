"""What commands print, on real processes: on full disks, without a reader, on old consoles, and when interrupted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.deploy.test_cli import CLEW, ENDLESS, ENVIRONMENT, TINY, clew, first_line, records, trained
from tests.parts import forked
from tests.parts.deadline import DEADLINE_S

__all__ = ["trained"]  # a fixture

NO_ROOM = "clew: cannot write to standard output: No space left on device; make room, or send it somewhere else"
COMMANDS = ["--help", "--version", "config", "doctor", "keys new keys", "evaluate RUN --count 2"]


def environment(buffered: bool) -> dict[str, str]:
    """Python writes at once, or when it must: errors come at other moments."""
    return {name: value for name, value in ENVIRONMENT.items() if name != "PYTHONUNBUFFERED"} | (
        {} if buffered else {"PYTHONUNBUFFERED": "1"}
    )


def start(
    arguments: list[str], folder: Path, out: int, variables: dict[str, str], real: bool
) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself, with its standard output elsewhere; `real`: to Python's very end."""
    if real:
        return subprocess.run(
            [*CLEW, *arguments],
            cwd=folder,
            env=variables,
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_S,
        )
    with forked.Process(arguments, folder, variables, stdout=out) as process:
        _, errors = process.communicate(DEADLINE_S)
    return subprocess.CompletedProcess(arguments, process.wait(), None, errors)


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_on_a_full_disk_says_so_in_one_sentence(
    command: str, buffered: bool, trained: Path, tmp_path: Path
) -> None:
    arguments = command.replace("RUN", str(trained)).split()
    with open("/dev/full", "w") as full:
        result = start(arguments, tmp_path, full.fileno(), environment(buffered), real=command == "config")
    assert (result.returncode, result.stderr) == (2, f"{NO_ROOM}\n")


def test_training_goes_on_where_standard_output_is_full(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        arguments = ["train", *TINY, "--updates", "20", "--actors", "1", "--run-dir", "run"]
        result = start(arguments, tmp_path, full.fileno(), environment(buffered=True), real=False)
    assert result.returncode == 0, result.stderr
    first, second, *_, last = result.stderr.splitlines()
    assert (first, second) == (f"{NO_ROOM}; it goes to standard error now", "run run")
    assert last == "done after 20 updates, kept in run"
    assert len(records(tmp_path / "run")) == 20


@pytest.mark.parametrize("command", ["config", "doctor", "evaluate RUN --count 2"])
def test_a_reader_that_leaves_ends_a_command_without_a_word(command: str, trained: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    arguments = command.replace("RUN", str(trained)).split()
    result = start(arguments, trained, writer, environment(buffered=False), real=command == "config")
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, "")


def test_closed_streams_are_as_good_as_none(trained: Path) -> None:
    for command in ("config >&-", "config 2>&-", f"evaluate {trained} --count 2 --attempts 1 >&- 2>&-"):
        script = f"exec {' '.join(CLEW)} {command}"
        result = subprocess.run(["sh", "-c", script], env=ENVIRONMENT, capture_output=True, timeout=DEADLINE_S)
        assert (result.returncode, result.stderr) == (0, b"")


def test_a_reader_that_leaves_stops_training_and_all_is_saved(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    command = ["train", *ENDLESS, "--actors", "1", "--run-dir", "run"]
    with forked.Process(command, tmp_path, ENVIRONMENT, stdout=writer) as process:
        os.close(writer)
        with open(reader) as lines:
            assert lines.readline() == "run run\n"
        _, errors = process.communicate(DEADLINE_S)
    assert process.returncode == 0, errors
    assert "clew: cannot write to standard output: nobody reads it any more" in errors
    stopped = int(first_line(errors.splitlines(), r"^stopped after (\d+) updates, kept in run$")[1])
    assert stopped <= len(records(tmp_path / "run"))
    assert list((tmp_path / "run" / "checkpoints").glob("*.json"))


def test_a_console_that_is_not_utf_8_shows_a_question_mark_for_what_it_lacks(trained: Path) -> None:
    (trained / "naïve.txt").write_text("S.E\n")
    for encoding in ("ascii", "latin-1"):
        with (trained / "shown.txt").open("wb") as file:
            arguments = ["evaluate", str(trained), "--mazes", "naïve.txt", "--attempts", "2"]
            variables = ENVIRONMENT | {"PYTHONIOENCODING": encoding}
            result = start(arguments, trained, file.fileno(), variables, real=False)
        assert result.returncode == 0, result.stderr
        shown = (trained / "shown.txt").read_text(encoding)
        assert re.search(r"steps [÷?] shortest", shown)
        assert re.search(r"maze na[ï?]ve, 100 robots", shown)


def test_what_names_hold_is_shown_in_one_plain_line(tmp_path: Path) -> None:
    name = "a\nb\x1b[2J\u202eno such file\udcff.toml"
    result = clew("train", "--config", name, folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        "clew: cannot read config a\\nb\\x1b[2J\\u202eno such file\\udcff.toml: No such file or directory; "
        "give --config another file\n"
    )


def test_a_warning_of_any_command_is_one_plain_line(tmp_path: Path) -> None:
    folder = tmp_path / "a\nb\x1b[2J"
    result = clew(
        "train",
        *TINY,
        "--set",
        "run.checkpoint_every=2",
        "--updates",
        4,
        "--actors",
        1,
        "--run-dir",
        folder,
        folder=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    begin, *updates, end = result.stdout.splitlines()
    assert (begin[:4], end[:5]) == ("run ", "done ")
    assert all(line.startswith("update ") for line in updates)
    (folder / "checkpoints/00000006.json").write_text("cut short")
    commands = (
        ("evaluate", folder, "--count", 2, "--attempts", 1, "--json"),
        ("train", "--resume", "--run-dir", folder),
        ("learner", "--resume", "--run-dir", folder, "--bind", f"ipc://{tmp_path}/learner"),
    )
    for command in commands:
        result = clew(*command, folder=tmp_path)
        assert result.returncode == 0, result.stderr
        (warning,) = [line for line in result.stderr.splitlines() if "WARNING" in line]
        assert re.search(r" WARNING (clew|learner) \| .*/a\\nb\\x1b\[2J/checkpoints/00000006\.json is damaged", warning)


TELLING = """
import sys
from deploy.__main__ import main
class Finder:
    def find_spec(name, path, target=None):
        if name == "deploy.cli":
            print("imports", flush=True)
sys.meta_path.insert(0, Finder)
main()
"""


@pytest.mark.parametrize(
    ("command", "moments"),
    [
        (("evaluate", "RUN", "--count", "300"), (0.27, 1.27)),
        (("learner", *TINY, "--bind", "ipc://learner"), (0.02, 0.27, 0.52, 0.77, 1.02, 1.27)),
        (("bench",), (1.02, 1.27)),
    ],
)
def test_ctrl_c_leaves_no_traceback_however_early(
    command: tuple[str, ...], moments: tuple[float, ...], trained: Path, tmp_path: Path
) -> None:
    """Also while modules are being imported, which takes a second."""
    arguments = [str(trained) if part == "RUN" else part for part in command]
    for moment_s in moments:
        with subprocess.Popen(
            [sys.executable, "-c", TELLING, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            process.stdout.readline()
            time.sleep(moment_s)  # the moments themselves are what is tried
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=DEADLINE_S)
        assert "Traceback" not in errors
        assert "Exception" not in errors
        assert process.returncode in (0, 130, -signal.SIGINT), errors

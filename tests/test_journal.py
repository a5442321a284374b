"""Every record of a run is in its journal once, whole and in order, whatever the disk does."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from learner.checkpoint import load
from learner.journal import MOST_WAITING, Journal
from protocol.config import ClewError, Config
from tests.test_checkpoint import room_for
from tests.test_processes import CONFIG, UPDATES, Learner, learn, new_house, processes, quiet, send_signal

__all__ = ["quiet"]  # a fixture


def test_a_journal_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for update in range(1, 6):
        journal.append({"update": update})
    journal.close()
    path = tmp_path / "updates.jsonl"
    with path.open("a") as file:
        file.write('{"update": 6, "cut sh')
    journal = Journal(tmp_path, 3)
    journal.append({"update": 4, "again": True})
    journal.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"update": 1},
        {"update": 2},
        {"update": 3},
        {"update": 4, "again": True},
    ]


def test_a_run_directory_belongs_to_one_learner(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    with pytest.raises(ClewError, match="another learner works in"):
        Journal(tmp_path, 0)
    journal.close()
    Journal(tmp_path, 0).close()


def updates(run_dir: Path) -> list[int]:
    """Of the records in the journal, all of whose lines are whole."""
    content = (run_dir / "updates.jsonl").read_text()
    assert content.endswith("\n") or not content
    return [json.loads(line)["update"] for line in content.splitlines()]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path, 0)
    yield one
    one.close()


LINE_BYTES = len('{"update": 1}\n')


@pytest.mark.parametrize("spare_bytes", range(LINE_BYTES))
def test_what_a_full_disk_refuses_is_written_whole_and_in_order_once_there_is_room(
    tmp_path: Path, journal: Journal, spare_bytes: int
) -> None:
    assert journal.append({"update": 1}) is None
    with room_for(LINE_BYTES + spare_bytes):
        for update in (2, 3):
            refusal = journal.append({"update": update})
            assert refusal
            assert refusal.errno == errno.EFBIG
            assert updates(tmp_path) == [1]
    with room_for(3 * LINE_BYTES + spare_bytes):
        assert journal.append({"update": 4})
        assert updates(tmp_path) == [1, 2, 3]
    assert journal.append({"update": 5}) is None
    assert updates(tmp_path) == [1, 2, 3, 4, 5]


def test_no_checkpoint_is_made_of_updates_whose_records_are_not_on_the_disk(tmp_path: Path, journal: Journal) -> None:
    with room_for(5):
        journal.append({"update": 1})
        with pytest.raises(OSError, match="File too large"):
            journal.sync()
    journal.sync()
    assert updates(tmp_path) == [1]


def test_the_end_is_one_more_chance_and_never_an_error(tmp_path: Path) -> None:
    for room, written in ((5, []), (LINE_BYTES, [1])):
        journal = Journal(tmp_path, 0)
        with room_for(5):
            journal.append({"update": 1})
        with room_for(room):
            journal.close()
        assert updates(tmp_path) == written


def test_a_disk_that_stays_full_takes_no_more_memory_than_the_newest_records_need(
    tmp_path: Path, journal: Journal
) -> None:
    with room_for(0):
        for update in range(1, MOST_WAITING + 3):
            assert journal.append({"update": update})
    journal.sync()
    assert updates(tmp_path) == list(range(3, MOST_WAITING + 3))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system, where it is allowed at all")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def learn_and_say(stderr: Path, config: Config, run_dir: Path, bind: str, out: Connection) -> None:
    """A learner whose complaints are kept in a file."""
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    learn(config, run_dir, bind, False, out)


def fill(ballast: Path) -> None:
    """Until not a byte more fits."""
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def test_training_goes_on_while_the_disk_is_full_and_nothing_is_missing_in_the_end(
    tmp_path: Path, small_disk: Path, quiet: list[str]
) -> None:
    with new_house(tmp_path) as lodging:
        house = replace(lodging, run_dir=small_disk / "run")
        records, out = processes.Pipe(duplex=False)
        said = tmp_path / "stderr"
        process = processes.Process(target=learn_and_say, args=(said, CONFIG, house.run_dir, house.address, out))
        process.start()
        house.lodgers.append(process)
        learner, actor = Learner(process, records), house.actor()

        learner.until(4)
        fill(small_disk / "ballast")
        record = learner.until(16)
        send_signal(actor, signal.SIGSTOP)  # the run must not be over before there is room again
        durable = load(house.run_dir)
        assert durable
        assert durable.update < 16
        assert len(house.journal()) < 16
        assert record["refusals"]["checkpoint"] >= 2

        (small_disk / "ballast").unlink()
        send_signal(actor, signal.SIGCONT)
        learner.ends()
        assert house.hashes() == quiet
        durable = load(house.run_dir)
        assert durable
        assert durable.update == UPDATES
        complaints = sum("cannot write" in line for line in said.read_text().splitlines())
        assert 1 <= complaints <= house.journal()[-1]["refusals"]["checkpoint"]

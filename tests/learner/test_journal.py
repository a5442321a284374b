"""Every record of a run is in its journal once, whole and in order, whatever the disk does."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from learner.checkpoint import load
from learner.journal import MOST_WAITING, Journal
from learner.lock import Lock
from learner.record import Record, finite
from protocol.config import ClewError, Config
from protocol.wire.messages import CONTRACT, Lease
from tests.learner.test_checkpoint import room_for
from tests.parts.records import record_of
from tests.whole.test_processes import (
    CONFIG,
    UPDATES,
    House,
    Impostor,
    Learner,
    house,
    impostor,
    learn,
    new_house,
    processes,
    quiet,
    send_signal,
    with_run,
)

__all__ = ["house", "impostor", "quiet"]  # fixtures


def test_a_journal_is_cut_back_to_the_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path, 0)
    for update in range(1, 6):
        journal.append(record_of(update))
    journal.close()
    path = tmp_path / "updates.jsonl"
    with path.open("a") as file:
        file.write('{"update": 6, "cut sh')
    journal = Journal(tmp_path, 3)
    journal.append(record_of(4, "again"))
    journal.close()
    written = [Record.of(line) for line in path.read_bytes().splitlines()]
    assert written == [record_of(1), record_of(2), record_of(3), record_of(4, "again")]


def lines(*updates: int) -> list[bytes]:
    return [b'{"update": %d, "loss": 0.5}\n' % update for update in updates]


@pytest.mark.parametrize(
    ("damage", "kept"),
    [
        (lambda whole: whole.replace(b'"update": 3,', b'"upd\x00te": 3,'), [1, 2, 4, 5, 6]),
        (lambda whole: whole.replace(b'"update": 3,', b'"update": 6,'), [1, 2, 4, 5, 6]),
        (lambda whole: whole.replace(b'{"update": 3,', b"[" * 100_000), [1, 2, 4, 5, 6]),
        (lambda whole: whole.replace(b"}\n", b"", 3), [5, 6]),  # the first four are one line
        (lambda whole: whole[: len(whole) // 2], [1, 2, 3]),
        (lambda whole: whole.replace(b'"update": 2,', b'"update": 2.0,').replace(b": 4,", b": true,"), [1, 3, 5, 6]),
        (lambda whole: b"".join(reversed(whole.splitlines(keepends=True))), [1, 2, 3, 4, 5, 6]),
        (lambda whole: b"\n# mine\n" + whole, [1, 2, 3, 4, 5, 6]),
        (lambda whole: whole.removesuffix(b"\n"), [1, 2, 3, 4, 5, 6]),
        (lambda whole: b"", []),
    ],
)
def test_a_damaged_journal_loses_no_whole_record_and_is_kept_beside_as_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes], kept: list[int]
) -> None:
    path = tmp_path / "updates.jsonl"
    damaged = damage(b"".join(lines(*range(1, 7))))
    path.write_bytes(damaged)
    journal = Journal(tmp_path, 6)
    journal.append(record_of(7))
    journal.close()
    assert path.read_bytes() == b"".join(lines(*kept)) + record_of(7).line
    beside = [other.read_bytes() for other in tmp_path.glob("updates.damaged-*.jsonl")]
    if len(kept) < 6:
        [warning] = caplog.messages
        assert f"the records of {6 - len(kept)} of 6 updates are damaged or missing" in warning
    if sum(map(len, lines(*kept))) < len(damaged):
        assert beside == [damaged]
        assert "the file as it was is kept as" in caplog.text


def test_each_damage_is_kept_in_a_file_of_its_own_and_a_gap_alone_in_none(tmp_path: Path) -> None:
    path = tmp_path / "updates.jsonl"
    for content in (b"mine\n", b"yours\n"):
        path.write_bytes(content)
        Journal(tmp_path, 2).close()
    path.write_bytes(b"".join(lines(2)))
    Journal(tmp_path, 2).close()
    kept = {other.name: other.read_bytes() for other in tmp_path.glob("updates.damaged-*")}
    assert kept == {"updates.damaged-1.jsonl": b"mine\n", "updates.damaged-2.jsonl": b"yours\n"}
    assert updates(tmp_path) == [2]


def test_a_cut_back_to_the_checkpoint_needs_no_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "updates.jsonl").write_bytes(b"".join(lines(*range(1, 7))) + b'{"update": 7, "cut sh')
    Journal(tmp_path, 4).close()
    assert updates(tmp_path) == [1, 2, 3, 4]
    assert [path.name for path in tmp_path.iterdir()] == ["updates.jsonl"]
    assert not caplog.messages


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_a_journal_that_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "updates.jsonl")
    with pytest.raises(ClewError, match=r"updates\.jsonl is not a file; move it away"):
        Journal(tmp_path, 0)


def test_what_json_cannot_hold_is_never_written(tmp_path: Path, journal: Journal) -> None:
    figures = {"a": math.nan, "b": 1.0, "c": -math.inf}
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append(replace(record_of(1), actor_s=figures))
    journal.append(replace(record_of(1), actor_s=finite(figures)))
    content = (tmp_path / "updates.jsonl").read_text()
    assert json.loads(content)["actor_s"] == {"a": None, "b": 1.0, "c": None}


def test_an_actor_that_has_worked_for_an_eternity_leaves_no_infinity(
    house: House, impostor: Callable[..., Impostor]
) -> None:
    learner = house.learner(with_run(updates=1))
    ancient = impostor(CONTRACT, CONFIG.run.leases)
    for lease in ancient.hears(Lease, CONFIG.run.leases):
        ancient.say(replace(ancient.works(lease, CONFIG), seconds={"rollouts": sys.float_info.max}))
    assert learner.until(1).actor_s == {"rollouts": None}
    learner.ends()
    [record] = (house.run_dir / "updates.jsonl").read_text().splitlines()
    assert "Infinity" not in record


def test_a_run_directory_belongs_to_one_learner_whatever_becomes_of_its_files(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    lock = Lock(run_dir)
    Journal(run_dir, 0).close()
    for path in run_dir.iterdir():
        path.unlink()
    with pytest.raises(ClewError, match="another learner works in"):
        Lock(run_dir)
    lock.close()
    Lock(run_dir).close()


def test_a_directory_on_another_machine_belongs_to_the_learner_that_holds_its_lock_file(tmp_path: Path) -> None:
    """Between machines the lock of the directory itself is not seen."""
    with (tmp_path / "lock").open("w") as elsewhere:
        fcntl.flock(elsewhere, fcntl.LOCK_EX)
        with pytest.raises(ClewError, match="another learner works in"):
            Lock(tmp_path)
    Lock(tmp_path).close()


def updates(run_dir: Path) -> list[int]:
    """Lists the updates of the records in the journal, all of whose lines are whole."""
    content = (run_dir / "updates.jsonl").read_text()
    assert content.endswith("\n") or not content
    return [json.loads(line)["update"] for line in content.splitlines()]


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    one = Journal(tmp_path, 0)
    yield one
    one.close()


LINE_BYTES = len(record_of(1).line)


@pytest.mark.parametrize("spare_bytes", [0, 1, LINE_BYTES // 2, LINE_BYTES - 1])
def test_what_a_full_disk_refuses_is_written_whole_and_in_order_once_there_is_room(
    tmp_path: Path, journal: Journal, spare_bytes: int
) -> None:
    assert journal.append(record_of(1)) is None
    with room_for(LINE_BYTES + spare_bytes):
        for update in (2, 3):
            refusal = journal.append(record_of(update))
            assert refusal
            assert refusal.errno == errno.EFBIG
            assert updates(tmp_path) == [1]
    with room_for(3 * LINE_BYTES + spare_bytes):
        assert journal.append(record_of(4))
        assert updates(tmp_path) == [1, 2, 3]
    assert journal.append(record_of(5)) is None
    assert updates(tmp_path) == [1, 2, 3, 4, 5]


def test_no_checkpoint_is_made_of_updates_whose_records_are_not_on_the_disk(tmp_path: Path, journal: Journal) -> None:
    with room_for(5):
        journal.append(record_of(1))
        with pytest.raises(OSError, match="File too large"):
            journal.sync()
    journal.sync()
    assert updates(tmp_path) == [1]


def test_the_end_is_one_more_chance_and_never_an_error(tmp_path: Path) -> None:
    for room, written in ((5, []), (LINE_BYTES, [1])):
        journal = Journal(tmp_path, 0)
        with room_for(5):
            journal.append(record_of(1))
        with room_for(room):
            journal.close()
        assert updates(tmp_path) == written


def test_a_disk_that_stays_full_takes_no_more_memory_than_the_newest_records_need(
    tmp_path: Path, journal: Journal
) -> None:
    with room_for(0):
        for update in range(1, MOST_WAITING + 3):
            assert journal.append(record_of(update))
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
        assert record.refusals["checkpoint"] >= 2

        (small_disk / "ballast").unlink()
        send_signal(actor, signal.SIGCONT)
        learner.ends()
        assert house.hashes() == quiet
        durable = load(house.run_dir)
        assert durable
        assert durable.update == UPDATES
        complaints = sum("cannot write" in line for line in said.read_text().splitlines())
        assert 1 <= complaints <= house.journal()[-1]["refusals"]["checkpoint"]

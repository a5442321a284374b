"""`clew export`: every figure of every record, in each form, also while a run goes on or is resumed."""

from __future__ import annotations

import csv
import json
import signal
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from tensorboardX.proto.event_pb2 import Event

from deploy.process.versions import require
from deploy.study.export import export
from deploy.study.records import COLUMNS, Reader, row_of
from learner import checkpoint
from learner.checkpoint import Checkpoint
from learner.record import Record
from protocol.config import ClewError, Config
from tests.deploy.test_cli import assert_refused, clew, records, running, trained, wait_until
from tests.parts.records import record_of

__all__ = ["trained"]  # a fixture


def written(run_dir: Path, *updates: int, theta: str = "") -> None:
    """Records of updates, at the end of updates.jsonl."""
    with (run_dir / "updates.jsonl").open("ab") as file:
        file.writelines(record_of(update, theta).line for update in updates)


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def events(folder: Path) -> list[Event]:
    """What TensorBoard would read: length, its checksum, an event, its checksum, again and again."""
    (path,) = folder.glob("events.out.tfevents.*.clew")
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<Q", content)
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def curves(folder: Path) -> dict[tuple[str, int], float]:
    return {(point.tag, event.step): point.simple_value for event in events(folder) for point in event.summary.value}


def test_every_form_holds_every_figure_of_every_update(trained: Path, tmp_path: Path) -> None:
    for form in ("csv", "parquet", "tensorboard"):
        result = clew("export", trained, "--to", form, "--out", tmp_path / form, folder=tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, f"10 updates: {tmp_path / form}\n", "")
    told, rows = lines_of(tmp_path / "csv"), parquet.read_table(tmp_path / "parquet").to_pylist()
    drawn = curves(tmp_path / "tensorboard")
    for record, line, row in zip(records(trained), told, rows, strict=True):
        assert set(record) <= {name.partition(".")[0] for name in COLUMNS}
        assert row == row_of(Record.of(json.dumps(record)))
        assert (row["theta_sha256"], row["phase_s.gradient"]) == (record["theta_sha256"], record["phase_s"]["gradient"])  # type: ignore[index]
        assert line == {name: "" if value is None else str(value) for name, value in row.items()}
        update = int(record["update"])
        for name, value in row.items():
            if name not in ("update", "theta_sha256") and value is not None:
                assert drawn[name.replace(".", "/"), update] == pytest.approx(np.float32(value))


def test_without_a_place_it_lies_in_the_run(tmp_path: Path) -> None:
    written(tmp_path, 1)
    for form, name in (("csv", "updates.csv"), ("parquet", "updates.parquet"), ("tensorboard", "tensorboard")):
        assert clew("export", tmp_path, "--to", form, folder=tmp_path).returncode == 0
        assert (tmp_path / name).exists()


def test_events_replace_those_of_clew_and_leave_others(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    for _ in range(2):
        export(tmp_path, "tensorboard", tmp_path / "tb", lambda _: False)
        (tmp_path / "tb/events.out.tfevents.1.host").touch()
    assert len(list((tmp_path / "tb").iterdir())) == 2
    begin, *others = [event.wall_time for event in events(tmp_path / "tb") if event.step]
    assert [other - begin for other in others] == [pytest.approx(0.25)]  # seconds of an update


def test_what_is_not_finite_or_not_known_is_left_empty(tmp_path: Path) -> None:
    lost = vars(record_of(1)) | {"objective": None, "refusals": {"stale": 2, "late": 3}}
    (tmp_path / "updates.jsonl").write_text(json.dumps(lost) + "\n")
    for form in ("csv", "parquet", "tensorboard"):
        export(tmp_path, form, tmp_path / form, lambda _: False)
    (line,), (row,) = lines_of(tmp_path / "csv"), parquet.read_table(tmp_path / "parquet").to_pylist()
    assert (line["objective"], row["objective"], row["actor_s.sampling"]) == ("", None, None)
    assert (line["refusals.late"], line["refusals.forged"], row["phase_s.waiting"]) == ("3", "0", 0.0)
    assert ("objective", 1) not in curves(tmp_path / "tensorboard")


def test_a_reader_takes_whole_lines_and_sees_a_run_cut_back(tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    journal, reader = tmp_path / "updates.jsonl", Reader(tmp_path)

    def more() -> tuple[bool, list[int]]:
        anew, found = reader.more()
        return anew, [record.update for record in found]

    assert more() == (False, [1, 2])
    whole = record_of(3).line
    with journal.open("ab") as file:
        file.write(whole[:40])
        file.flush()
        assert more() == (False, [])
        file.write(whole[40:] + b"no record\n")
    assert more() == (False, [3])
    journal.write_bytes(record_of(1).line)
    written(tmp_path, 2, 3, 4, 5, theta="another")
    assert more() == (True, [1, 2, 3, 4, 5])
    assert more() == (False, [])


@pytest.mark.parametrize("form", ["csv", "tensorboard"])
def test_a_table_that_follows_a_run_begins_anew_where_the_run_does(form: str, tmp_path: Path) -> None:
    written(tmp_path, 1, 2)
    later = iter([lambda: written(tmp_path, 3), lambda: (tmp_path / "updates.jsonl").write_bytes(record_of(1).line)])

    def goes_on(update: int) -> bool:
        act: Callable[[], object] | None = next(later, None)
        if act:
            act()
        return bool(act)

    assert export(tmp_path, form, tmp_path / "out", goes_on) == 1
    if form == "csv":
        assert [line["update"] for line in lines_of(tmp_path / "out")] == ["1"]
    else:
        assert {step for _, step in curves(tmp_path / "out")} == {1}


def test_following_ends_with_the_last_update_or_with_a_signal(tmp_path: Path) -> None:
    config, theta_P = Config.model_validate({"run": {"updates": 3}}), np.zeros(3, np.float32)
    checkpoint.save(tmp_path, Checkpoint(0, "run", config, {0: theta_P}, theta_P, theta_P, 0))
    written(tmp_path, 1)
    following, table = ("export", tmp_path, "--to", "csv", "--follow"), tmp_path / "updates.csv"

    def holds(updates: int) -> bool:
        return table.exists() and len(lines_of(table)) == updates

    with running(*following, folder=tmp_path) as process:
        wait_until(lambda: holds(1))
        written(tmp_path, 2)
        wait_until(lambda: holds(2))
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    with running(*following, folder=tmp_path) as process:
        wait_until(lambda: holds(2))
        written(tmp_path, 3)
        assert process.wait() == 0
    assert holds(3)


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    assert_refused(clew("export", tmp_path, "--to", "csv", folder=tmp_path), "holds no updates.jsonl")
    written(tmp_path, 1)
    assert_refused(clew("export", tmp_path, "--to", "xml", folder=tmp_path), "'xml' is not one of 'tensorboard', 'csv'")
    assert_refused(clew("export", tmp_path, "--to", "parquet", "--follow", folder=tmp_path), "once it is whole")
    for form in ("csv", "parquet", "tensorboard"):
        out = tmp_path / "updates.jsonl/x"
        assert_refused(clew("export", tmp_path, "--to", form, "--out", out, folder=tmp_path), "give --out another path")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_takes_the_place_of_a_former_one_and_of_no_other_file(form: str, tmp_path: Path) -> None:
    written(tmp_path, 1)
    records, table = tmp_path / "updates.jsonl", tmp_path / "table"
    (tmp_path / "link").symlink_to(records)
    former = records.read_bytes()
    for name in ("updates.jsonl", "link"):
        with pytest.raises(ClewError, match=f"{name} holds something else than {form} of updates; give --out another"):
            export(tmp_path, form, tmp_path / name, lambda _: False)
    assert records.read_bytes() == former
    table.touch()
    assert [export(tmp_path, form, table, lambda _: False) for _ in range(2)] == [1, 1]


def test_what_a_table_cannot_be_written_to_is_left_there(tmp_path: Path) -> None:
    written(tmp_path, 1)
    device = tmp_path / "full"
    device.symlink_to("/dev/full")
    for form in ("csv", "parquet"):
        with pytest.raises(ClewError, match=r"No space left on device.*; give --out another path"):
            export(tmp_path, form, device, lambda _: False)
    assert device.is_symlink()


def test_a_missing_package_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(ClewError, match=r"^never_made not found: run pip install 'clew\[export\]'$"):
        require("never_made", extra="export")

"""`clew page`: what it shows is what clew computes, and nobody else than its reader can use it."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

import clew
from deploy.page import guard, history, server, shipped, trying
from deploy.page.dreams import Line
from deploy.page.history import History
from deploy.page.trying import tried
from deploy.process.settings import load as load_config
from deploy.process.versions import require
from deploy.study.evaluate import Run
from protocol.config import ClewError
from protocol.world.memory import MOST_GAIN, NO_EXIT, NO_WAY
from protocol.world.senses import MARKS
from tests import ROOT
from tests.deploy.test_cli import assert_refused, trained, wait_until
from tests.deploy.test_cli import clew as command
from tests.parts.deadline import DEADLINE_S
from tests.parts.page import JSON, Served, events, serving
from tests.parts.records import record_of
from tests.whole.test_api import CONFIGS, evaluated, untrained

__all__ = ["trained"]  # a fixture

MAZE = "S..#.\n.#.#.\n.#...\n.#.#.\n...#E"
FOLDER = ROOT / "deploy/page"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page without a run."""
    with serving(folder=tmp_path_factory.mktemp("page")) as served:
        yield served


# What is shown


def drawn(count: int = 1) -> list[clew.Maze]:
    families = ("braided", 9), ("rooms", 11), ("blocks", 8), ("perfect", 9)
    return [maze for family, side in families for maze in clew.sample(family, side, count, seed=5)]


def in_cells(maze: clew.Maze, places: Any) -> list[int]:
    return [int(row) * maze.shape[1] + int(column) for row, column in places]


def lines_of(lines: list[Line], steps: int) -> list[list[int]]:
    """The line of every step, as the page unfolds what is sent."""
    latest = [next((one for one in reversed(lines) if one[0] <= step), (step, [])) for step in range(steps)]
    return [cells[step - begin :] for step, (begin, cells) in enumerate(latest)]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_move_and_every_fast_weight_is_that_of_adapt(name: str) -> None:
    run = untrained(name)
    for maze in drawn():
        shown = tried(Run(run.name, run.update, run.config, run.theta), maze.text, 4, seed=3)
        (robot,) = run.adapt([maze], attempts=4, seed=3).robots
        assert (shown.maze, shown.shortest) == (str(maze), maze.shortest)
        assert len(shown.attempts) == 4
        for one, walk, weights in zip(shown.attempts, robot.walks, robot.fast_weights, strict=True):
            assert one.found == walk.found
            assert one.cells == in_cells(maze, walk.cells)
            assert one.moves == walk.moves.tolist()
            sent = np.zeros((maze.grid.cells, 4))
            for cell, *four in one.weights:
                sent[int(cell)] = four
            assert np.allclose(sent, weights.reshape(-1, 4), atol=10**-trying.DIGITS)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_mark_and_every_dream_is_what_the_robot_had(name: str) -> None:
    run = untrained(name)
    for maze in drawn():
        shown = tried(Run(run.name, run.update, run.config, run.theta), maze.text, 6, seed=1)
        (robot,) = run.adapt([maze], attempts=6, seed=1).robots
        for one, walk in zip(shown.attempts, robot.walks, strict=True):
            steps = len(one.moves)
            known, hopeful = lines_of(one.known, steps), lines_of(one.hopeful, steps)
            for step in range(steps):
                seen = walk.observation(step)
                marks = seen.features[-4 * MARKS :].reshape(MARKS, 4).argmax(axis=0)
                assert one.marks[step] == "".join(map(str, marks))
                assert begins_as(known[step], one.cells[step], seen.known, maze)
                assert begins_as(hopeful[step], one.cells[step], seen.hope, maze)
                if known[step] and hopeful[step] and seen.gain < MOST_GAIN:
                    assert len(known[step]) - len(hopeful[step]) == seen.gain
                assert bool(known[step]) <= (seen.gain < NO_WAY)
                assert seen.gain != NO_EXIT or not known[step]


def begins_as(line: list[int], cell: int, moves: int, maze: clew.Maze) -> bool:
    """Whether a line is a way from a cell whose first move is one of those that the robot dreamt of."""
    if not moves:
        return not line
    columns = maze.shape[1]
    steps = [there - here for here, there in pairwise(line)]
    move = (-columns, 1, columns, -1).index(steps[0])
    return line[0] == cell and bool(moves >> move & 1) and set(map(abs, steps)) <= {1, columns}


def test_the_known_way_leads_to_an_exit_through_cells_that_the_robot_has_visited() -> None:
    run = shipped.load()
    for maze in drawn():
        attempts = tried(run, maze.text, 5, seed=2).attempts
        visited = set[int]()
        for one in attempts:
            for line in lines_of(one.known, len(one.moves)):
                assert set(line) <= visited
                assert not line or maze.grid.cell_C[line[-1]] == 2
            visited |= set(one.cells)


def test_the_steps_are_those_that_evaluate_reports_and_the_explorers_are_its_too(trained: Path, tmp_path: Path) -> None:
    maze = clew.sample("braided", 9, 1, seed=4)[0]
    (tmp_path / "mazes.txt").write_text(maze.text)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(trained)
    told = evaluated(tmp_path, "--mazes", "mazes.txt", "--attempts", 6, "--seed", 4, "--robots", 1)["mazes"][0]
    with serving(trained, folder=tmp_path) as page:
        shown = page.post("/try", {"maze": maze.text, "seed": 4, "attempts": 6}).told
        assert page.get("/about").told["is_own"]
    steps = [len(one["cells"]) - 1 if one["found"] else shown["horizon"] for one in shown["attempts"]]
    assert steps == [point["steps"] for point in told["curve"]]
    explored = [len(one["cells"]) - 1 for one in shown["explorer"]]
    assert explored == [told["yardsticks"][name]["steps"] for name in ("explorer", "known")]
    (robot,) = clew.load(trained).adapt([maze], attempts=6, seed=4).robots
    assert [one["cells"] for one in shown["attempts"]] == [in_cells(maze, walk.cells) for walk in robot.walks]
    assert [one["moves"] for one in shown["attempts"]] == [walk.moves.tolist() for walk in robot.walks]


def test_a_maze_is_drawn_as_evaluate_draws_it(page: Served) -> None:
    for family, side, seed in (("rooms", 9, 0), ("mouse", 15, 7), ("blocks", 6, 2)):
        told = page.post("/draw", {"family": family, "side": side, "seed": seed}).told
        (maze,) = clew.sample(family, side, 1, seed)
        assert told == {"maze": str(maze), "shortest": maze.shortest}


def test_the_form_of_competitions_is_read(page: Served) -> None:
    told = page.post("/read", {"maze": "o---o---o\n| S   G |\no---o---o\n"}).told
    assert told == {"maze": "S.E", "shortest": 2}


def test_line_ends_and_a_mark_of_byte_order_make_no_second_maze(page: Served) -> None:
    for text in ("\ufeff\n\nS.\n.E", "S.\r.E\r\r", "\r\n\r\nS.\r\n.E\r\n"):
        assert page.post("/read", {"maze": text}).told == {"maze": "S.\n.E", "shortest": 2}


def test_the_parameters_that_ship_walk_the_shortest_way_from_the_second_attempt_on() -> None:
    run = shipped.load()
    assert shipped.FILE.stat().st_size < 100_000
    assert run.config == load_config(ROOT / "deploy/configs/default.toml")
    mazes = clew.sample("perfect", 15, 10, seed=8)
    first, *later = clew.Run(run.name, run.update, run.config, run.theta_P).adapt(mazes, attempts=3).curve.tolist()
    assert first < 2.5
    assert max(later) < 1.05


def test_the_command_beside_the_shipped_parameters_makes_such_a_file(trained: Path, tmp_path: Path) -> None:
    run = clew.load(trained)
    shipped.save(Run(run.name, run.update, run.config, run.theta), tmp_path / "made.safetensors")
    made = shipped.load(tmp_path / "made.safetensors")
    assert (made.config, made.update) == (run.config, 10)
    assert np.array_equal(made.theta_P, run.theta)


def test_until_there_is_a_run_the_page_shows_what_ships_and_then_the_run(trained: Path, tmp_path: Path) -> None:
    with serving("later", folder=tmp_path) as page:
        told = page.get("/about").told
        assert (told["is_own"], told["waits_for"]) == (False, "later")
        (tmp_path / "later").symlink_to(trained)
        told = page.get("/about").told
        assert (told["is_own"], told["update"], told["updates"]) == (True, 10, 10)
        page.process.terminate()
        assert "later holds no run so far" in page.process.communicate(DEADLINE_S)[1]


# A run's figures as they come


def test_the_stream_tells_what_there_is_and_what_comes_and_begins_anew_where_records_are_cut_back(
    tmp_path: Path,
) -> None:
    run, file = tmp_path / "run", tmp_path / "run/updates.jsonl"
    run.mkdir()
    file.write_bytes(b"".join(record_of(update).line for update in (1, 2)) + record_of(3).line[:50])
    with serving(run, folder=tmp_path) as page, closing(page.connect()) as connection:
        connection.request("GET", "/watch")
        coming = events(iter(connection.getresponse()))
        name, points = next(coming)
        assert (name, [point[0] for point in points]) == ("history", [1, 2])
        assert points[0] == list(history.point(record_of(1)))
        with file.open("ab") as added:
            added.write(record_of(3).line[50:] + b"no record\n" + record_of(4).line)
        assert next(coming) == ("points", [list(history.point(record_of(update))) for update in (3, 4)])
        file.write_bytes(record_of(1).line)
        assert next(coming) == ("history", [list(history.point(record_of(1)))])


def test_all_who_watch_are_told_of_every_update(tmp_path: Path) -> None:
    file = tmp_path / "updates.jsonl"
    file.write_bytes(b"")
    with serving(tmp_path, folder=tmp_path) as page, ExitStack() as stack:
        streams = []
        for _ in range(3):
            connection = stack.enter_context(closing(page.connect()))
            connection.request("GET", "/watch")
            streams.append(events(iter(connection.getresponse())))
            assert next(streams[-1]) == ("history", [])
        for update in range(1, 300):
            with file.open("ab") as added:
                added.write(record_of(update).line)
        for stream in streams:
            told: list[int] = []
            while len(told) < 299:
                told += [point[0] for point in next(stream)[1]]
            assert told == list(range(1, 300))


def test_records_that_were_cut_back_and_written_again_are_kept_once(tmp_path: Path) -> None:
    file, history = tmp_path / "updates.jsonl", History(tmp_path)
    file.write_bytes(b"".join(record_of(update).line for update in range(1, 8)))
    history.refresh()
    file.write_bytes(b"".join(record_of(update).line for update in range(1, 4)))
    with file.open("ab") as again:
        again.write(b"".join(record_of(update).line for update in range(4, 20)))
    history.refresh()
    assert history.beginnings == 1
    with file.open("ab") as again:
        again.write(b"".join(record_of(update).line for update in range(15, 30)))
    history.refresh()
    assert [point.update for point in history.points] == list(range(1, 30))
    assert history.beginnings == 2


def test_a_long_history_is_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.page.history.MOST_POINTS", 10)
    monkeypatch.setattr("deploy.page.history.READ_BYTES", 5_000)
    (tmp_path / "updates.jsonl").write_bytes(b"".join(record_of(update).line for update in range(1, 1_001)))
    history = History(tmp_path)
    while history.refresh():
        pass
    updates = [point.update for point in history.points]
    assert 10 <= len(updates) <= 21
    assert len(set(np.diff(updates))) == 1
    assert updates[-1] > 900


def test_ctrl_c_ends_the_page_while_somebody_watches(tmp_path: Path) -> None:
    with serving(folder=tmp_path) as page, closing(page.connect()) as connection:
        connection.request("GET", "/watch")
        answer = connection.getresponse()
        page.process.send_signal(signal.SIGINT)
        _, errors = page.process.communicate(DEADLINE_S)
        assert errors == ""
        assert page.process.wait() == -signal.SIGINT
        answer.close()


# What is refused


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/draw", {"family": "os:system", "side": 9}, "family: Input should be 'perfect', 'braided'"),
        ("/draw", {"family": "perfect", "side": 8}, "have odd sides, got 8"),
        ("/draw", {"family": "perfect", "side": 65}, "less than or equal to 63"),
        ("/draw", {"family": "perfect", "side": 9, "seed": -1}, "seed: Input should be greater"),
        ("/try", {"maze": MAZE, "attempts": 51}, "attempts: Input should be less"),
        ("/try", {"maze": MAZE, "path": "/etc/passwd"}, "path: Extra inputs are not permitted"),
        ("/try", {"maze": "S#E"}, "no way leads from the start to an exit; open a wall"),
        ("/try", {"maze": "S" + 99 * "." + "E"}, "takes 63 by 63 at most"),
        ("/try", {"maze": "SE\n\nSE"}, "the text holds 2 mazes, and the page takes one"),
        ("/try", {"maze": "SE\r\n \r\nSE\r\n"}, "the text holds 2 mazes, and the page takes one"),
        ("/read", {"maze": "SE\r\rSE\r"}, "the text holds 2 mazes, and the page takes one"),
        ("/try", {"maze": "\n".join(["S" + 62 * "."] + 61 * [63 * "."] + [62 * "." + "E"]), "attempts": 50}, "ask for"),
        ("/read", {"maze": "S!E"}, "'!' is not a cell"),
        ("/read", b"[" * 10_000, "the request: "),
        ("/read", b"\xff\xfe", "the request: "),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(page: Served, path: str, body: object, sentence: str) -> None:
    reply = page.post(path, body)
    assert reply.status == 422
    assert sentence in reply.told["error"]


def test_a_maze_of_a_million_cells_is_refused_before_it_is_read(page: Served) -> None:
    for body in (b"x" * 1_000_000, {"maze": "\n".join(1_000 * [1_000 * "."])}):
        reply = page.post("/try", body)
        assert reply.status == 413
        assert "a maze has 63 by 63 cells at most" in reply.told["error"]


def test_a_body_whose_length_is_not_told_is_cut_off(page: Served) -> None:
    with closing(page.connect()) as connection:
        connection.request("POST", "/try", iter([b"x" * 10_000] * 10), JSON, encode_chunked=True)
        assert connection.getresponse().status == 413


@pytest.mark.parametrize("path", ["/about", "/", "/watch"])
@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "localhost.evil.example:80"},
        {"host": ""},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
    ],
)
def test_another_host_and_another_origin_are_refused(page: Served, path: str, headers: dict[str, str]) -> None:
    assert page.get(path, **headers).status == 403


def test_a_page_of_another_site_can_lead_to_the_page_and_to_nothing_else(page: Served) -> None:
    for site in ("cross-site", "same-site"):
        assert page.get("/about", sec_fetch_site=site).status == 403
        assert page.get("/", sec_fetch_site=site).status == 200
    assert page.post("/read", {"maze": "SE"}, {"content-type": "text/plain"}).status == 415


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:8080", "192.0.2.7:80", "maze.example"])
def test_addresses_localhost_and_the_name_that_was_given_are_this_machine(host: str) -> None:
    assert guard.is_this_machine(host, "maze.example")
    assert not guard.is_this_machine(f"{host}.evil.example", "maze.example")


def test_of_a_thousand_requests_at_once_each_is_done_or_told_to_come_again(page: Served) -> None:
    maze = {"maze": MAZE, "attempts": 2}
    with ThreadPoolExecutor(40) as many:
        replies = list(many.map(lambda _: page.post("/try", maze), range(1_000)))
    found = {reply.status for reply in replies}
    assert {200, 503} >= found
    assert 200 in found
    assert all(reply.headers["retry-after"] == "1" for reply in replies if reply.status == 503)
    assert page.post("/try", maze).status == 200


def test_connections_that_say_nothing_keep_nobody_out(page: Served) -> None:
    with ExitStack() as stack:
        for _ in range(3 * guard.CONNECTIONS):
            stack.enter_context(closing(socket.create_connection(("127.0.0.1", page.port), DEADLINE_S)))
        assert page.get("/about").status == 200


@contextmanager
def in_a_thread() -> Iterator[int]:
    """A page of this process, so that a test can shorten its times; yields its port."""
    with server.listening("127.0.0.1", 0) as listener:
        running = server.Server(server.Page(None), "127.0.0.1")
        thread = Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join(DEADLINE_S)


def answer_to(port: int, said: bytes) -> bytes:
    """What comes back until the server hangs up."""
    with closing(socket.create_connection(("127.0.0.1", port), DEADLINE_S)) as connection:
        connection.sendall(said)
        return b"".join(iter(lambda: connection.recv(65_536), b""))


def test_who_sends_a_request_too_slowly_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HEAD_S", 0.1)
    monkeypatch.setattr(guard, "BODY_S", 0.1)
    head = b"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\nConnection: close\r\n\r\n"
    with in_a_thread() as port:
        assert answer_to(port, b"") == b""
        assert answer_to(port, b"GET /about HTTP/1.1\r\nHost: loc") == b""
        assert answer_to(port, b"POST /try HTTP/1.1\r\n" + head + b"{").startswith(b"HTTP/1.1 408 ")


def test_more_watchers_than_there_is_room_for_are_told_so(page: Served) -> None:
    with ExitStack() as stack:
        found = []
        for _ in range(17):
            connection = stack.enter_context(closing(page.connect()))
            connection.request("GET", "/watch")
            answer = connection.getresponse()
            stack.callback(answer.close)
            if answer.status == 200:
                answer.readline()  # the stream has begun
            found.append(answer.status)
    assert found == [200] * 16 + [503]

    def is_let_in() -> bool:
        with closing(page.connect()) as connection:
            connection.request("GET", "/watch")
            return connection.getresponse().status == 200

    wait_until(is_let_in)  # those who have left make room


def test_a_port_that_is_taken_is_said_in_one_line(page: Served, tmp_path: Path) -> None:
    assert_refused(command("page", "--port", page.port, folder=tmp_path), "choose another --port or --host")


def test_what_is_missing_is_named_with_the_extra_that_brings_it() -> None:
    with pytest.raises(ClewError, match=r"nonesuch not found: run pip install 'clew\[page\]'"):
        require("nonesuch", extra="page")


def test_a_damaged_run_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/00000010.json").write_text("{}")
    result = command("page", tmp_path, folder=tmp_path)
    assert result.returncode == 2
    assert re.search(
        r"^clew: no checkpoint in .* is whole: .*00000010\.json is damaged .*; start anew .*\n\Z",
        result.stderr,
        re.MULTILINE,
    )


# The page's files


def test_the_page_takes_nothing_from_another_host_and_holds_no_script_or_style_of_its_own() -> None:
    files = [path for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js")]
    assert len(files) > 6
    for path in files:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        assert set(re.findall(r"\w+://[\w.]+", text)) <= {"http://www.w3.org"}, path  # the name of a name space
        assert not re.search(r"url\(|@import|<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=\"/)", text), path
        assert len(text.splitlines()) <= 300, path


def test_every_answer_forbids_the_browser_what_the_page_does_not_need(page: Served) -> None:
    for path in ("/", "/main.js", "/about", "/nothing"):
        headers = page.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_only_the_files_of_the_page_are_served(page: Served) -> None:
    assert page.get("/main.js").headers["content-type"] == "text/javascript; charset=utf-8"
    for path in ("/server.py", "/default.safetensors", "/../../pyproject.toml", "/%2e%2e/shipped.py", "/index.html/"):
        assert page.get(path).status in (404, 307), path

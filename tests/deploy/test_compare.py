"""The rivals of `clew compare`: each against a slow, obvious form of itself, or for what it is known to do."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from pathlib import Path

import numpy as np
import pytest

from deploy.compare import tabular
from deploy.compare.gradient import policy_gradient
from deploy.compare.minds import NEW_CELL, CautiousPlanner, Planner, RandomWalk, RealTimeSearch
from deploy.compare.played import Played, first_reaching, groups, marked
from deploy.compare.rival import Task, changed
from deploy.compare.rivals import NOTHING, RIVALS, chosen
from deploy.process.settings import load
from deploy.study import exam as exams
from deploy.study.exam import Exam
from deploy.study.explorer import DepthFirst, Mind, World, attempts
from protocol.config import ClewError, Config, MazeConfig, PolicyConfig
from protocol.world.cells import EXIT, MOVES, TRAP, UNREACHABLE, WALL
from protocol.world.maze import Mazes, to_exit
from protocol.world.memory import Known
from protocol.world.walk import Walk, walk
from tests import ROOT
from tests.deploy.test_evaluation import steps_within

SMALL = Config(maze=MazeConfig(family=("perfect", "braided", "blocks", "rooms"), side=9))
SEEING = PolicyConfig(dreams=False)
BLIND = PolicyConfig(dreams=False, radius=0)
LAKE = "S..H.\n..H..\nH....\n.H.H.\n....E"
WINDING = "S..#.\n.#.#.\n.#...\n.###.\n...#E"


def exam_of(text: str) -> Exam:
    mazes = Mazes.from_text(text)
    return exams.of([""] * len(mazes), [""] * len(mazes), mazes, SMALL)


def unwatched(done: int, of: int) -> None:
    """Nobody looks."""


def walks_of(exam: Exam, policy: PolicyConfig, mind: Callable[[World], Mind], count: int) -> list[Walk]:
    """The attempts of a rival."""
    world = World(exam.mazes, policy, np.random.default_rng(0))
    return list(attempts(world, mind(world), exam.horizon_M, count))


def steps_of(exam: Exam, walks: list[Walk], maze: int) -> list[list[tuple[int, int, int]]]:
    """Cell, move and next cell of every step of the robot in one maze, attempt by attempt; cells from 0."""
    offset, attempts = int(exam.mazes.offset_M[maze]), []
    for done in walks:
        end = int(done.length_W[: maze + 1].sum())
        steps = slice(end - int(done.length_W[maze]), end)
        at_T = [*(done.at_N[steps] - offset).tolist(), int(done.end_W[maze]) - offset]
        attempts.append(list(zip(at_T, done.move_N[steps].tolist(), at_T[1:], strict=False)))
    return attempts


# Planners


@pytest.mark.parametrize(("mind", "price"), [(Planner, 1), (CautiousPlanner, NEW_CELL)])
@pytest.mark.parametrize("compass", [False, True])
@pytest.mark.parametrize("radius", [0, 1])
def test_a_planner_always_goes_the_cheapest_way_through_what_it_does_not_know(
    radius: int, compass: bool, mind: Callable[[World], Mind], price: int
) -> None:
    config = changed(SMALL, {"maze.traps": 0.1})
    exam = exams.held_out(config, None, None, 8, 3)
    policy = PolicyConfig(dreams=False, radius=radius, compass=compass)
    walks = walks_of(exam, policy, mind, 3)
    for maze in range(len(exam.mazes)):
        slow = SlowPlanner(exam.mazes[maze : maze + 1], policy, price)
        for attempt in steps_of(exam, walks, maze):
            for at, move, to in attempt:
                slow.arrive(at)
                assert move in slow.good_moves(at)
                if at == to:
                    slow.shut.add(slow.beside(at, move) or at)
            slow.arrive(attempt[-1][2])


class SlowPlanner:
    """A planner that thinks of one cell at a time."""

    def __init__(self, maze: Mazes, policy: PolicyConfig, price: int) -> None:
        self.price = price  # of a step into a cell where it has never been
        self.kind, (self.rows, self.columns) = maze.cell_C.tolist(), maze.shape_M2[0].tolist()
        self.policy = policy
        self.visited: set[int] = set()
        self.shut: set[int] = set()

    def beside(self, at: int, move: int) -> int | None:
        row, column = at // self.columns + MOVES[move][0], at % self.columns + MOVES[move][1]
        inside = 0 <= row < self.rows and 0 <= column < self.columns
        return row * self.columns + column if inside else None

    def arrive(self, at: int) -> None:
        self.visited.add(at)
        if self.kind[at] == TRAP:
            self.shut.add(at)
        reach = self.policy.radius
        for cell, kind in enumerate(self.kind):
            apart = max(abs(cell // self.columns - at // self.columns), abs(cell % self.columns - at % self.columns))
            if kind == WALL and apart <= reach:
                self.shut.add(cell)

    def good_moves(self, at: int) -> set[int]:
        """The moves that begin a shortest way to the exit, or, while none is known, to the nearest new cell."""
        exits = {cell for cell, kind in enumerate(self.kind) if kind == EXIT}
        known = exits if self.policy.compass else exits & self.visited
        goals = known or set(range(len(self.kind))) - self.visited - self.shut
        cost: dict[int, int] = {}
        waiting = [(0, goal) for goal in goals]
        while waiting:  # Dijkstra's search, from the goals
            paid, cell = heappop(waiting)
            if cell not in cost:
                cost[cell] = paid
                for move in range(4):
                    to = self.beside(cell, move)
                    if to is not None and to not in self.shut:
                        heappush(waiting, (paid + self.entering(cell), to))
        ahead = {move: self.beside(at, move) for move in range(4)}
        paths = {move: cost[to] + self.entering(to) for move, to in ahead.items() if to is not None and to in cost}
        return {move for move, least in paths.items() if least == min(paths.values())}

    def entering(self, cell: int) -> int:
        return 1 if cell in self.visited else self.price


def test_a_planner_with_a_compass_bumps_its_way_through_a_known_maze() -> None:
    exam = exam_of("S.\n#E")
    (first, second) = walks_of(exam, changed(SMALL, {"policy.radius": 0, "policy.compass": True}).policy, Planner, 2)
    assert int(first.length_W[0]) in (2, 3)  # with a bump, if it tries to go down at first
    assert int(second.length_W[0]) in (2, 3)
    every = walks_of(exam, changed(SMALL, {"policy.radius": 0, "policy.compass": True}).policy, Planner, 10)
    assert int(every[-1].length_W[0]) == 2


@pytest.mark.parametrize("mind", [Planner, CautiousPlanner, RealTimeSearch, DepthFirst])
def test_who_has_died_in_a_trap_does_not_die_there_again(mind: Callable[[World], Mind]) -> None:
    exam = exam_of(LAKE)
    walks = walks_of(exam, PolicyConfig(dreams=False, radius=0, compass=True), mind, 12)
    ends = [int(done.end_W[0]) for done in walks]
    died = [end for end in ends if exam.mazes.cell_C[end] == TRAP]
    assert len(died) == len(set(died))
    assert exam.mazes.cell_C[ends[-1]] == EXIT


# Explorers


@pytest.mark.parametrize("policy", [SEEING, BLIND], ids=["seeing", "blind"])
def test_an_explorer_walks_each_passage_twice_at_most_and_then_the_best_way_that_it_knows(policy: PolicyConfig) -> None:
    exam = exams.held_out(SMALL, None, None, 20, 1)
    walks = walks_of(exam, policy, DepthFirst, 3)
    for maze in range(len(exam.mazes)):
        first, *later = steps_of(exam, walks, maze)
        moved = [(at, to) for at, _, to in first if at != to]
        assert max(moved.count(step) + moved.count(step[::-1]) for step in moved) <= 2
        bumps = [(at, move) for at, move, to in first if at == to]
        assert len(bumps) == len(set(bumps))
        assert not (bumps and policy.radius)
        ahead = exam.mazes[maze : maze + 1].ahead_CA.tolist()
        visited = {cell for step in first for cell in (step[0], step[2])}
        for again in later:
            assert len(again) == steps_within(visited, ahead, first[0][0], first[-1][2])


@pytest.mark.parametrize("compass", [False, True])
def test_estimates_of_lrta_only_rise_never_say_too_much_and_come_true(compass: bool) -> None:
    exam = exams.held_out(SMALL, None, None, 8, 2)
    world = World(exam.mazes, PolicyConfig(dreams=False, compass=compass), np.random.default_rng(0))
    mind, known = RealTimeSearch(world), Known.nothing(exam.mazes.cells)
    true_C = to_exit(exam.mazes)
    reachable_C, before_C = true_C != UNREACHABLE, mind.estimate_C.copy()
    for _ in range(100):
        mind.begin(known)
        done = walk(world.sight, world.met, known, 1, exam.horizon_M, mind.choose)
        assert (mind.estimate_C >= before_C).all()
        assert (mind.estimate_C <= true_C)[reachable_C].all()
        before_C = mind.estimate_C.copy()
    assert (done.length_W == exam.shortest_M).all()


def test_a_random_walk_takes_the_square_of_a_corridors_length() -> None:
    exam = exam_of("\n\n".join(["S...E"] * 2000))
    exam = exams.of(exam.names, exam.kinds, exam.mazes, SMALL, 1000)
    (done,) = walks_of(exam, SEEING, RandomWalk, 1)  # it never walks into the wall behind it
    assert done.length_W.mean() == pytest.approx(16, abs=1)


# Ordinary reinforcement learning


def test_q_learning_never_thinks_too_little_of_a_move_and_ends_on_the_shortest_way() -> None:
    exam = exams.held_out(SMALL, None, None, 40, 4)
    learner = tabular.QLearning(exam, 0.9, True, np.random.default_rng(0))
    true_C = to_exit(exam.mazes)[exam.mazes.ahead_CA]
    worth_CA = np.where(true_C == UNREACHABLE, 0, 0.9 ** np.minimum(true_C, 1000))
    open_CA = exam.mazes.ahead_CA != np.arange(exam.mazes.cells)[:, None]
    for _ in range(150):
        found_M, steps_M = learner.attempt()
        assert (learner.value_CA >= worth_CA - 1e-9)[open_CA].all()
    assert found_M.all()
    assert (steps_M == exam.shortest_M).all()


def test_q_learning_learns_of_walls_and_traps_by_bumping_and_dying() -> None:
    exam = exam_of(LAKE)
    learner = tabular.QLearning(exam, 0.9, False, np.random.default_rng(0))
    played = tabular.until_learned(learner.attempt, exam, 10, 300, unwatched)
    assert not played.found_EM[:10].all()
    assert played.found_EM[-1].all()
    assert (played.steps_EM[~played.found_EM] == exam.horizon_M[0]).all()


def test_policy_gradient_learns_a_maze_from_nothing() -> None:
    exam = exam_of("\n\n".join([WINDING] * 20))
    config = changed(SMALL, NOTHING)
    attempts = policy_gradient(exam, config, np.random.default_rng(0))
    played = tabular.until_learned(attempts, exam, 10, 2000, unwatched)
    assert len(played.steps_EM) < 2000
    assert played.steps_EM[:10].mean() > 1.5 * exam.shortest_M[0]


def test_who_learns_for_as_long_as_it_takes_stops_half_as_long_after_the_target() -> None:
    exam, made = exam_of(WINDING), []

    def attempt() -> tuple[np.ndarray, np.ndarray]:
        made.append(1)
        return np.array([True]), exam.shortest_M + (len(made) < 20)

    played = tabular.until_learned(attempt, exam, 10, 1000, unwatched)
    assert len(played.steps_EM) == len(made) == 30


# Figures


def test_the_first_attempt_at_the_target_and_its_interval() -> None:
    shortest_M, rng = np.array([10.0, 10]), np.random.default_rng(0)
    steps_EM = np.array([[30, 10], [12, 10], [10, 10]], np.int32)
    reached = first_reaching(steps_EM, shortest_M, rng)
    assert reached
    assert (reached.value, reached.interval) == (3, (1, 3))
    assert first_reaching(steps_EM[:2], shortest_M, rng) is None


def test_a_curve_has_the_first_ten_attempts_and_some_of_each_decade() -> None:
    assert list(marked(7)) == [1, 2, 3, 4, 5, 6, 7]
    shown = list(marked(5000))
    assert shown[:11] == [*range(1, 12)]
    assert shown[-1] == 5000
    assert len(shown) < 90


def test_a_failure_counts_as_the_horizon_and_groups_are_of_their_own_mazes() -> None:
    exam = exams.held_out(SMALL, None, None, 8, 0)
    steps_EM = np.stack([exam.horizon_M, exam.shortest_M])
    both = groups(Played(np.array([[False] * 8, [True] * 8]), steps_EM), exam, 0)
    assert [group.name for group in both] == ["all", "perfect 9x9", "braided 9x9", "blocks 9x9", "rooms 9x9"]
    failed, walked = both[0].points
    assert (failed.success.value, walked.success.value, walked.ratio.value) == (0, 1, 1)
    assert failed.ratio.value == pytest.approx(8 * 243 / exam.shortest_M.sum())
    assert (both[0].exits.value, both[0].exits.interval) == (1, (1, 1))
    assert both[1].reached is not None


@pytest.mark.parametrize("rival", [rival for rival in RIVALS if rival.settings is None], ids=lambda rival: rival.name)
def test_a_seed_says_how_a_rival_plays(rival: object) -> None:
    exam = exams.held_out(SMALL, None, None, 8, 0, horizon=60)
    play = chosen([rival.name])[0].play  # type: ignore[attr-defined]
    one, same, other = (play(Task(exam, SMALL, seed, 30, None), unwatched).steps_EM for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("path", sorted((ROOT / "deploy" / "configs").glob("*.toml")), ids=lambda path: path.stem)
def test_every_config_can_be_compared(path: Path) -> None:
    config = load(path)
    runs = {rival.name: rival.training(config) for rival in RIVALS}
    assert runs["learned"] == changed(config, {"policy.kind": "fast-weights"})
    assert runs["no-adaptation"] == runs["fine-tuned"]
    assert runs["planner"] is None
    assert changed(config, NOTHING).policy.memory == "none"


def test_an_unknown_rival_is_refused() -> None:
    with pytest.raises(ClewError, match="no rival 'nobody'; choose from learned, "):
        chosen(["planner", "nobody"])


def test_rivals_have_names_of_their_own_and_say_where_they_come_from() -> None:
    assert len({rival.name for rival in RIVALS}) == len({rival.title for rival in RIVALS}) == len(RIVALS)
    assert all(rival.source.endswith(".") and rival.words.endswith((".", ".)")) for rival in RIVALS)


def test_attempts_of_a_mind_are_collected_attempt_by_attempt() -> None:
    exam = exam_of("SE\n\nS.E")
    played = Played.of(walks_of(exam, SEEING, Planner, 2), exam.mazes, exam.horizon_M)
    assert played.steps_EM.tolist() == [[1, 2], [1, 2]]
    assert played.found_EM.all()


def test_a_quick_comparison_leaves_out_what_takes_long_to_train_unless_it_is_named() -> None:
    left_out = {rival.name for rival in chosen(None)} - {rival.name for rival in chosen(None, quick=True)}
    assert left_out == {"rl2", "rl2-memory"}
    assert [rival.name for rival in chosen(["rl2"], quick=True)] == ["rl2"]
    run = chosen(["rl2"])[0].training(SMALL)
    assert run is not None
    assert run.run.updates == max(1, round(0.3 * SMALL.run.updates))

"""A session with clew, cell by cell: `python -i tests/notebook.py` in an empty directory, or an editor with cells."""

# %% Train: a learner and two actors, as processes of this machine.
import numpy as np

import clew

ratios: list[float] = []
run = clew.train(
    {"maze": {"family": ["perfect", "braided"], "side": [7, 9]}, "run": {"updates": 10}},
    "runs/notebook",
    on_update=lambda record: ratios.append(record.ratio_after or float("nan")),
)
print(f"{run.update} updates; steps ÷ shortest after adaptation: {ratios[0]:.2f}, then {ratios[-1]:.2f}")

# %% Try it in mazes that no training has seen, larger ones too.
mazes = clew.sample("braided", side=9, count=10) + clew.sample("blocks", side=16, density=0.3)
trial = run.adapt(mazes, attempts=6)
print("attempt by attempt:", trial.curve.round(3))

# %% Look at one robot: its maze, its ways, what it has learned.
robot = trial.robots[-1]
first, last = robot.walks[0], robot.walks[-1]
print(robot.maze, f"{len(first.moves)} steps, then {len(last.moves)}; {robot.maze.shortest} are the fewest", sep="\n")
visits = np.zeros(robot.maze.shape, int)
np.add.at(visits, tuple(first.cells.T), 1)
print(visits)

# %% Its policy where it starts, as it was at the first attempt and as it is at the last.
start, seen = first.cells[0], first.observation(0)
for attempt in (0, -1):
    print(robot.policy(start, seen, attempt).round(3), robot.fast_weights[attempt][tuple(start)].round(2))

# %% A maze of one's own, and a hundred robots in it.
mine = clew.Maze("S.#.\n.#..\n....\n.##E", name="mine")
print(mine, run.adapt([mine] * 100, attempts=3).curve.round(3), sep="\n")

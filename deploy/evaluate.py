"""`clew evaluate`: adapts a trained policy to mazes that it never saw, and reports what that was worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from actors.rollout import attempt_and_adapt, roll_out
from learner import checkpoint
from learner.evaluation import Estimate, Evaluation, Outcome, Point, evaluation
from protocol.config import ClewError, Config
from protocol.wire.messages import Attempts
from protocol.world import families
from protocol.world.maze import Mazes, pad, read_mazes
from protocol.world.states import Floats, StateTable

SCORED = 20  # fresh attempts at each maze that a stage is scored by; adaptation never sees them
AT_ONCE = 100  # mazes adapted to at a time: bounds the memory, since each has its own parameters
DRAWN = 4  # mazes in the picture
LISTED = 20  # mazes that the table shows one by one


@dataclass(frozen=True)
class Trial:
    """What happened on some mazes: the attempts that adaptation learned from, and how each stage scored."""

    mazes: Mazes
    stages: tuple[Attempts, ...]  # K + 1: before each inner step, and after the last
    outcomes: tuple[Outcome, ...]  # K + 1: of SCORED fresh attempts under the same policies


def trained(run_dir: Path) -> tuple[Config, Floats]:
    """A run's config and its newest theta."""
    newest = checkpoint.load(run_dir)
    if newest is None:
        raise ClewError(
            f"{run_dir} holds no checkpoint to evaluate; make one: clew train --run-dir {run_dir}"
        )
    return newest.config, newest.theta


def history(run_dir: Path) -> list[dict[str, Any]]:
    """All updates of a run."""
    with (run_dir / "updates.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


def held_out(config: Config, count: int, seed: int) -> tuple[list[str], Mazes]:
    """`count` mazes of the run's own kind that training can never have seen."""
    mazes = families.sample(config.maze, count, np.random.default_rng([seed, 1]), held_out=True)
    return [f"held out {number}" for number in range(1, count + 1)], mazes


def from_files(paths: Sequence[Path], side: int) -> tuple[list[str], Mazes]:
    """All mazes of some files, padded to the side that was trained; a larger one is refused."""
    found = [named for path in paths for named in read_mazes(path)]
    for name, maze in found:
        if maze.side > side:
            raise ClewError(
                f"maze {name} is {maze.side}x{maze.side}, and the run was trained on {side}x{side}; "
                f"leave it out, or train with --set maze.side={maze.side}"
            )
    return [named.name for named in found], Mazes.concatenate([pad(named.maze, side) for named in found])


def overridden(config: Config, attempts_per_step: int | None, steps: int | None) -> Config:
    """The run's config with other adaptation than it was trained for."""
    inner = config.inner.model_dump()
    inner |= {"attempts": attempts_per_step} if attempts_per_step else {}
    inner |= {"steps": steps} if steps else {}
    return Config.model_validate(config.model_dump() | {"inner": inner})


def try_out(theta_P: Floats, config: Config, mazes: Mazes, rng: np.random.Generator) -> Trial:
    """Adapts to every one of `mazes`, and scores the policy of every stage by fresh attempts."""
    stages, _ = attempt_and_adapt(theta_P, mazes, rng, config)
    table = StateTable.of(mazes, config.policy.radius)
    fresh = [roll_out(stage.log_prob, table, SCORED, config.run.horizon, rng) for stage in stages]
    return Trial(mazes, stages, tuple(Outcome.of(attempts, table) for attempts in fresh))


def evaluate(theta_P: Floats, config: Config, names: Sequence[str], mazes: Mazes, seed: int) -> Evaluation:
    """The adaptation curves of `mazes`."""
    rng = np.random.default_rng([seed, 2])
    chunks = [mazes[at : at + AT_ONCE] for at in range(0, len(mazes), AT_ONCE)]
    trials = [try_out(theta_P, config, chunk, rng).outcomes for chunk in chunks]
    stages = [Outcome.concatenate(parts) for parts in zip(*trials, strict=True)]
    return evaluation(names, stages, config.inner.attempts, rng)


def draw(
    run_dir: Path, theta_P: Floats, config: Config, names: Sequence[str], mazes: Mazes, seed: int
) -> None:
    """adaptation.png: some of `mazes`, from a usual first attempt to the longest. learning_curve.png: the history."""
    from deploy import plots  # matplotlib takes long, and is not in the images

    pool = mazes[:AT_ONCE]
    before = try_out(theta_P, config, pool, np.random.default_rng([seed, 3])).outcomes[0]
    detour_M = before.steps_ME.mean(1) / before.shortest_M
    drawn = min(DRAWN, len(pool))
    spread = np.linspace(min(2 * len(pool) // 3, len(pool) - drawn), len(pool) - 1, drawn).astype(int)
    rows = np.argsort(detour_M, kind="stable")[spread]
    few = mazes[rows]
    stages = try_out(theta_P, config, few, np.random.default_rng([seed, 3])).stages
    table, labels = StateTable.of(few, config.policy.radius), [names[row] for row in rows]
    plots.adaptation(few, table, stages, labels, config.inner.attempts, run_dir / "adaptation.png")
    plots.learning_curve(history(run_dir), run_dir / "learning_curve.png")


def report(result: Evaluation) -> Table:
    """The table for people: the mean over all mazes, and each of them where they are few."""
    table = Table(caption_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for head in ("maze (shortest)", "attempts", "success", "steps", "steps ÷ shortest"):
        table.add_column(head, justify="left" if head.startswith("maze") else "right")
    if len(result.names) <= LISTED:
        for name, shortest, curve in zip(result.names, result.shortest, result.curves, strict=True):
            add_curve(table, f"{name} ({shortest})", curve)
    add_curve(table, f"all {len(result.names)} ({np.mean(result.shortest):.1f})", result.mean)
    table.caption = (
        f"attempts: used for adaptation so far; every line is scored by {SCORED} fresh ones at each maze, "
        "with moves sampled, a failure counted as the horizon, and 95 % intervals"
    )
    return table


def add_curve(table: Table, name: str, curve: Sequence[Point]) -> None:
    """One line per stage."""
    for point in curve:
        figures = (brief(point.success, 3), brief(point.steps, 1), brief(point.ratio, 3))
        table.add_row(
            name if point.step == 0 else "", str(point.attempts), *figures, end_section=point is curve[-1]
        )


def brief(figure: Estimate, digits: int) -> str:
    """A figure and, less loud, its interval."""
    return f"{figure.value:.{digits}f} [dim]{figure.low:.{digits}f}-{figure.high:.{digits}f}[/]"

"""The plain form of protocol.learning and of learner.outer: one maze, one attempt, one step after another; float64."""

# E attempts, T steps, A moves, F features, H hidden units, P parameters, K inner steps

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from protocol.config import Config
from protocol.learning import policy
from protocol.learning.inner import CREDIT_SCALE, DREAM_SCALE, Theta, unflatten
from protocol.world.cells import Floats
from protocol.world.walk import Walk
from tests.parts.robot import MOST_GAIN, NO_EXIT, NO_WAY, Cell, Drawing, Dream, Past, Robot

Estimator = Literal["first-order", "maml", "lvc", "dice"]
KNOWN, HOPE = range(2)
CLIP, MAX_LOG_RATIO = 0.2, 3.0


@dataclass(frozen=True)
class Step:
    """One move of an attempt, and what the robot had before it."""

    cell: Cell
    move: int
    after: Cell  # where it led to
    turned_AF: Tensor  # what is sensed and remembered, turned to each move
    allowed: list[int]  # the moves that no wall is known to bar
    dream: Dream


@dataclass(frozen=True)
class Attempt:
    """All moves from the start on."""

    steps: list[Step]
    found: bool
    horizon: int
    log_probs: list[float]  # of each move, under the policy that made it

    def __len__(self) -> int:
        return len(self.steps)


def step_of(robot: Robot, move: int) -> Step:
    turned_AF = torch.tensor([robot.features(facing) for facing in range(4)], dtype=torch.float64)
    allowed = [way for way in range(4) if robot.may(way)]
    after = robot.drawing.ahead(robot.cell, move)
    return Step(robot.cell, move, after, turned_AF, allowed, robot.dream())


def attempts_at(
    drawings: Sequence[Drawing],
    walk: Walk,
    log_prob_N: Floats,
    pasts: Sequence[Past],
    horizons: Sequence[int],
    config: Config,
) -> Iterator[tuple[list[Attempt], Past]]:
    """For each maze the attempts whose moves `walk` holds, and what is known after them."""
    each, row, walker = len(walk.length_W) // len(drawings), 0, 0
    for drawing, past, horizon in zip(drawings, pasts, horizons, strict=True):
        attempts, robots = [], []
        for length in walk.length_W[walker : walker + each].tolist():
            robot, steps = Robot(drawing, config.policy, past), []
            for move in walk.move_N[row : row + length].tolist():
                steps.append(step_of(robot, move))
                robot.go(move)
            attempts.append(Attempt(steps, robot.found, horizon, log_prob_N[row : row + length].tolist()))
            robots.append(robot)
            row += length
        walker += each
        yield attempts, past.and_then(robots)


# What hindsight knows


def reward(attempt: Attempt, discount: float) -> float:
    """R = gamma^(L-1) where an exit was found."""
    return to_go(attempt, 0, discount)


def to_go(attempt: Attempt, time: int, discount: float) -> float:
    return discount ** (len(attempt) - 1 - time) if attempt.found else 0.0


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def advantage(attempts: list[Attempt], config: Config) -> list[list[float]]:
    """[e][t] the credit of every step before anything is learned of it."""
    if config.inner.credit == "policy-gradient":
        returns = [reward(attempt, config.run.discount) for attempt in attempts]
        rows = []
        for i, attempt in enumerate(attempts):
            others = [value for j, value in enumerate(returns) if j != i]
            rows.append([returns[i] - (mean(others) if others else 0.0)] * len(attempt))
        return rows

    discount, at_cell = config.inner.discount, dict[Cell, list[float]]()
    for attempt in attempts:
        for time, step in enumerate(attempt.steps):
            at_cell.setdefault(step.cell, []).append(to_go(attempt, time, discount))
    return [
        [to_go(attempt, time, discount) - mean(at_cell[step.cell]) for time, step in enumerate(attempt.steps)]
        for attempt in attempts
    ]


def loop_erased(attempt: Attempt) -> set[int]:
    """The times of the steps that are left when every loop is cut out as soon as it closes."""
    path: list[int] = []  # times; their cells are all different
    for time, step in enumerate(attempt.steps):
        cells = [attempt.steps[earlier].cell for earlier in path]
        if step.cell in cells:
            path = path[: cells.index(step.cell)]
        path.append(time)
    return set(path)


def hindsight(
    attempts: list[Attempt], way: dict[Cell, int], attempts_left: int, config: Config
) -> list[list[list[float]]]:
    """[e][t][11] what is known of each step once the attempts are over; `way`: the known one by then."""
    rows = []
    for attempt, advantages in zip(attempts, advantage(attempts, config), strict=True):
        path, known = loop_erased(attempt), []
        for time, step in enumerate(attempt.steps):
            later = [other.cell for other in attempt.steps[time + 1 :]]
            before, after = way.get(step.cell), way.get(step.after)
            known.append(
                [
                    to_go(attempt, time, config.inner.discount),
                    advantages[time],
                    float(attempt.found),
                    float(time in path),
                    float(step.cell not in later),
                    float(step.after == step.cell),
                    time / attempt.horizon,
                    float(before is not None and after is not None and after < before),
                    float(before is not None and after is not None and after > before),
                    1 / (1 + attempts_left),
                    1.0,
                ]
            )
        rows.append(known)
    return rows


def credit(facts: list[float], theta: Theta) -> Tensor:
    """[] of one step: its advantage, and what the credit network adds where the rule has one."""
    credit = torch.tensor(facts[1], dtype=torch.float64)
    if "credit.in" in theta:
        hidden = torch.relu(torch.tensor(facts, dtype=torch.float64) @ theta["credit.in"])
        credit = credit + CREDIT_SCALE * (hidden @ theta["credit.out"])
    return credit


# The policy


@dataclass(frozen=True)
class Phi:
    """The policy of one maze."""

    net: dict[str, Tensor]
    delta: dict[Cell, Tensor]  # [A] the fast weights of each cell
    dream_DG: Tensor  # how strongly a dream of each kind and gain is followed


def initial_phi(theta: Theta, drawing: Drawing, attempts_left: int, config: Config) -> Phi:
    net = {name: theta[f"policy.{name}"] for name in policy.shapes(config)}
    nothing = {cell: torch.zeros(4, dtype=torch.float64) for cell in drawing.cells}
    return Phi(net, nothing, dreams(theta, attempts_left, config))


def step_size(theta: Theta, name: str, config: Config) -> Any:
    """Returns alpha of a parameter."""
    fixed = config.inner.cell_step_size if name == "cells" else config.inner.step_size
    return theta.get(f"step_size.{name}", fixed)


def dreams(theta: Theta, attempts_left: int, config: Config) -> Tensor:
    """[D, G] alpha, times 1 for the way that is the shorter, times what is learned of each kind and gain."""
    strengths = []
    for kind in (KNOWN, HOPE):
        for gain in range(NO_EXIT + 1):
            strength = torch.tensor([float(kind == HOPE or gain == 0)], dtype=torch.float64)
            if "dream.in" in theta:
                facts = [
                    float(kind == KNOWN),
                    float(kind == HOPE),
                    float(gain == 0),
                    float(gain == NO_WAY),
                    float(gain == NO_EXIT),
                    math.log1p(gain) / math.log1p(MOST_GAIN) if gain < NO_WAY else 0.0,
                    1 / (1 + attempts_left),
                    (kind == HOPE) / (1 + attempts_left),
                    1.0,
                ]
                hidden = torch.relu(torch.tensor(facts, dtype=torch.float32).double() @ theta["dream.in"])
                strength = strength + DREAM_SCALE * (hidden @ theta["dream.out"])
            strengths.append(step_size(theta, "cells", config) * strength)
    return torch.cat(strengths).reshape(2, NO_EXIT + 1)


def score(net: dict[str, Tensor], step: Step) -> Tensor:
    """[A] what the network says of each move, one after another, the robot turned to it."""
    moves = [(torch.relu(seen_F @ net["in"] + net["bias"]) * net["out"]).sum() for seen_F in step.turned_AF]
    return torch.stack(moves)


def logits(phi: Phi, step: Step) -> Tensor:
    """[A] of which only the allowed moves count; where there is a dream, it stands in place of the fast weights."""
    if not step.dream.known and not step.dream.hope:
        return score(phi.net, step) + phi.delta[step.cell]
    before_A = score(phi.net, step)
    after_A = before_A
    pi = dict(zip(step.allowed, torch.softmax(before_A[step.allowed], 0), strict=True))
    for kind, moves in ((KNOWN, step.dream.known), (HOPE, step.dream.hope)):
        for move in step.allowed if moves else ():
            pull = phi.dream_DG[kind, step.dream.gain] * ((move in moves) / len(moves) - pi[move])
            after_A = after_A + pull * torch.eye(4, dtype=torch.float64)[move]
    return after_A


def log_pi(phi: Phi, step: Step, nudge_A: Tensor | None = None) -> dict[int, Tensor]:
    """log pi of every allowed move; `nudge_A` is added to the logits."""
    logits_A = logits(phi, step) if nudge_A is None else logits(phi, step) + nudge_A
    return dict(zip(step.allowed, torch.log_softmax(logits_A[step.allowed], 0), strict=True))


# The inner step


def surrogate(estimator: Estimator, log_pis: list[list[Tensor]], credits: list[list[Tensor]]) -> Tensor:
    """Computes what the inner step climbs: the mean over attempts of what each step adds."""
    total = torch.zeros((), dtype=torch.float64)
    for attempt, row in zip(log_pis, credits, strict=True):
        before = torch.zeros((), dtype=torch.float64)
        for taken, value in zip(attempt, row, strict=True):
            upto = before + taken
            if estimator == "dice":
                gain = torch.exp(upto - upto.detach()) - torch.exp(before - before.detach())
            elif estimator == "lvc":
                gain = torch.exp(taken) / torch.exp(taken).detach()
            else:
                gain = taken
            total, before = total + value * gain, upto
    return total / len(log_pis)


def adapt(
    phi: Phi,
    theta: Theta,
    attempts: list[Attempt],
    facts: list[list[list[float]]],
    attempts_left: int,
    config: Config,
) -> Phi:
    """phi_{k+1} of one maze: a step along the gradient of the logits at each step, with the estimator's graph.

    Args:
      facts: [e][t] what hindsight knows.
      attempts_left: attempts that are to come after those that the result makes.
    """
    estimator: Estimator = config.inner.estimator
    nudges = [[torch.zeros(4, dtype=torch.float64, requires_grad=True) for _ in attempt.steps] for attempt in attempts]
    log_pis, held = [], phi
    if estimator == "first-order":
        net = {name: value.detach() for name, value in phi.net.items()}
        held = Phi(net, {cell: value.detach() for cell, value in phi.delta.items()}, phi.dream_DG.detach())
    for attempt, row in zip(attempts, nudges, strict=True):
        pairs = zip(attempt.steps, row, strict=True)
        log_pis.append([log_pi(held, step, nudge)[step.move] for step, nudge in pairs])
    credits = [[credit(known, theta) for known in row] for row in facts]
    flat = [nudge for row in nudges for nudge in row]
    slopes = torch.autograd.grad(surrogate(estimator, log_pis, credits), flat, create_graph=True)

    kept = torch.sigmoid(theta["keep"]) if "keep" in theta else 1.0
    delta = {cell: kept * value_A for cell, value_A in phi.delta.items()}
    steps = [step for attempt in attempts for step in attempt.steps]
    for step, slope_A in zip(steps, slopes, strict=True):
        delta[step.cell] = delta[step.cell] + step_size(theta, "cells", config) * slope_A
    moved = phi.net
    if config.inner.adapts == "all":
        # The slopes of the logits count as given: what is sought is the gradient through the network alone.
        alias = {name: value.clone() for name, value in held.net.items()}
        for value in alias.values():
            value.requires_grad_()
        said = torch.stack([score(alias, step) @ slope_A for step, slope_A in zip(steps, slopes, strict=True)]).sum()
        risen = torch.autograd.grad(said, list(alias.values()), create_graph=True)
        moved = {
            name: value + step_size(theta, name, config) * slope
            for (name, value), slope in zip(phi.net.items(), risen, strict=True)
        }
    return Phi(moved, delta, dreams(theta, attempts_left, config))


# The outer objective


@dataclass(frozen=True)
class Trial:
    """All that was done at one maze."""

    drawing: Drawing
    stages: list[list[Attempt]]  # [k][e]
    facts: list[list[list[list[float]]]]  # [k][e][t] what hindsight knows; of all stages but the last
    values: list[list[list[float]]]  # [k][e][t] of the baseline
    gain: float  # how much better it went after adaptation than in the batch, given the best that there can be


def advantages(attempt: Attempt, values: list[float], config: Config) -> list[float]:
    """[t] sum over the steps from t on of (gamma lambda)^(u-t) (r_u + gamma V_{u+1} - V_u)."""
    gamma, decay = config.run.discount, config.run.discount * config.outer.gae_lambda
    length = len(attempt)
    rewards = [0.0] * (length - 1) + [float(attempt.found)]
    deltas = [
        reward + gamma * after - before
        for reward, before, after in zip(rewards, values, [*values[1:], 0.0], strict=True)
    ]
    return [sum(decay ** (u - t) * deltas[u] for u in range(t, length)) for t in range(length)]


def gains(drawings: list[Drawing], last: list[list[Attempt]], config: Config) -> list[float]:
    """[m] the mean return after adaptation, less the batch's share of the best that there can be in the maze."""
    gamma = config.run.discount
    returns = [mean([reward(attempt, gamma) for attempt in attempts]) for attempts in last]
    best = [gamma ** (drawing.distance(drawing.start) - 1) for drawing in drawings]
    share = sum(returns) / sum(best)
    return [mine - share * most for mine, most in zip(returns, best, strict=True)]


def objective(theta_P: Tensor, trials: list[Trial], config: Config) -> Tensor:
    """Computes what learner.outer.meta_objective does of the batch that the mazes of `trials` make up."""
    theta, last = unflatten(theta_P, config), config.inner.steps
    total = torch.zeros((), dtype=torch.float64)
    for trial in trials:
        phi = initial_phi(theta, trial.drawing, last, config)
        for k, attempts in enumerate(trial.stages):
            for attempt, values in zip(attempts, trial.values[k], strict=True):
                credits = advantages(attempt, values, config)
                if k < last:
                    # Each attempt of a stage is credited in full with what all of them made possible.
                    weight, made_possible = (
                        config.outer.first_weight,
                        config.outer.exploration * trial.gain * len(attempts),
                    )
                    credits = [weight * value + made_possible for value in credits]
                for step, value, behaviour in zip(attempt.steps, credits, attempt.log_probs, strict=True):
                    log_pis = log_pi(phi, step)
                    ratio = torch.exp((log_pis[step.move] - behaviour).clamp(max=MAX_LOG_RATIO))
                    rise = ratio * value
                    if config.outer.objective == "clipped":
                        rise = torch.minimum(rise, ratio.clamp(1 - CLIP, 1 + CLIP) * value)
                    total = total + rise / (len(trials) * len(attempts))
            if k < last:
                phi = adapt(phi, theta, attempts, trial.facts[k], last - k - 1, config)
    return total

"""The plain form of what protocol does on tables: one maze, one attempt, one step after another."""

# E attempts, T steps, A moves, P parameters

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from protocol.config import Config
from protocol.learning.credit import HINDSIGHT
from protocol.learning.inner import CREDIT_SCALE, Theta
from protocol.learning.policy import Params
from protocol.wire.messages import Attempts
from tests.oracle import MOVES, Drawing, Estimator, State


@dataclass(frozen=True)
class Step:
    """One move of an attempt."""

    state: State  # where it was made
    move: int
    after: State | None  # where it led to; None for the exit

    @property
    def cell(self) -> int:
        return self.state[0]


Attempt = list[Step]


def attempts_at(drawing: Drawing, attempts: Attempts, maze: int) -> list[Attempt]:
    """The E attempts at one maze, read off the message."""
    states = drawing.states()
    begin = int(attempts.length[:maze].astype(int).sum())
    each: list[Attempt] = []
    for length in attempts.length[maze].tolist():
        pairs = [divmod(visit, len(MOVES)) for visit in attempts.visits[begin : begin + length].tolist()]
        each.append([Step(states[row], move, drawing.follow(states[row], move)) for row, move in pairs])
        begin += length
    return each


def found(attempt: Attempt) -> bool:
    return attempt[-1].after is None


def reward(attempt: Attempt, discount: float) -> float:
    """R = gamma^(L-1) where the exit was found."""
    return discount ** (len(attempt) - 1) if found(attempt) else 0.0


def to_go(attempt: Attempt, time: int, discount: float) -> float:
    return reward(attempt[time:], discount)


def mean(values: list[float]) -> float:
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

    discount, at_cell = config.inner.discount, dict[int, list[float]]()
    for attempt in attempts:
        for time, step in enumerate(attempt):
            at_cell.setdefault(step.cell, []).append(to_go(attempt, time, discount))
    return [
        [to_go(attempt, time, discount) - mean(at_cell[step.cell]) for time, step in enumerate(attempt)]
        for attempt in attempts
    ]


def loop_erased(attempt: Attempt) -> set[int]:
    """The times of the steps that are left when every loop is cut out as soon as it closes."""
    path: list[int] = []  # times; their cells are all different
    for time, step in enumerate(attempt):
        cells = [attempt[earlier].cell for earlier in path]
        if step.cell in cells:
            path = path[: cells.index(step.cell)]
        path.append(time)
    return set(path)


def hindsight(attempts: list[Attempt], config: Config) -> list[list[list[float]]]:
    """[e][t][7] what is known of each step once its attempt is over."""
    rows = []
    for attempt, advantages in zip(attempts, advantage(attempts, config), strict=True):
        path, known = loop_erased(attempt), []
        for time, step in enumerate(attempt):
            later = [other.cell for other in attempt[time + 1 :]]
            known.append(
                [
                    to_go(attempt, time, config.inner.discount),
                    advantages[time],
                    float(found(attempt)),
                    float(time in path),
                    float(step.cell not in later),
                    float(step.after == step.state),
                    time / config.run.horizon,
                ]
            )
            assert len(known[-1]) == HINDSIGHT
        rows.append(known)
    return rows


def credit(attempts: list[Attempt], theta: Theta, config: Config) -> list[list[Tensor]]:
    """[e][t] a scalar each, with the graph to the credit network where the rule has one."""
    advantages = advantage(attempts, config)
    if config.inner.rule != "learned":
        return [[torch.tensor(value, dtype=torch.float64) for value in row] for row in advantages]
    rows = []
    for known, row in zip(hindsight(attempts, config), advantages, strict=True):
        credits = []
        for facts, value in zip(known, row, strict=True):
            hidden = torch.relu(
                torch.tensor(facts, dtype=torch.float64) @ theta["credit.in"] + theta["credit.bias"]
            )
            credits.append(value + CREDIT_SCALE * (hidden @ theta["credit.out"])[0])
        rows.append(credits)
    return rows


def log_policy(phi: Params, drawing: Drawing, state: State, radius: int) -> Tensor:
    """[A] log pi( . | state) under one maze's own parameters."""
    (cell, previous), side = state, drawing.side
    hidden = phi["cell"][cell] + phi["row"][cell // side] + phi["column"][cell % side] + phi["bias"]
    for near, wall in enumerate(drawing.seen(cell, radius)):
        hidden = hidden + wall * phi["seen"][near]
    hidden = torch.relu(hidden + phi["previous"][previous])
    logits = hidden @ phi["out"] + phi["out_bias"]
    return logits - torch.log(torch.exp(logits).sum())


def surrogate(
    estimator: Estimator,
    phi: Params,
    drawing: Drawing,
    attempts: list[Attempt],
    credits: list[list[Tensor]],
    config: Config,
) -> Tensor:
    """What the inner step climbs: the mean over attempts, the policy evaluated anew at every step."""
    total = torch.zeros((), dtype=torch.float64)
    for attempt, row in zip(attempts, credits, strict=True):
        before = torch.zeros((), dtype=torch.float64)
        for step, value in zip(attempt, row, strict=True):
            log_pi = log_policy(phi, drawing, step.state, config.policy.radius)[step.move]
            upto = before + log_pi
            if estimator == "dice":
                total = total + value * (
                    torch.exp(upto - upto.detach()) - torch.exp(before - before.detach())
                )
            elif estimator == "lvc":
                total = total + value * torch.exp(log_pi) / torch.exp(log_pi).detach()
            else:
                total = total + value * log_pi
            before = upto
    return total / len(attempts)


def adapt(phi: Params, theta: Theta, drawing: Drawing, attempts: list[Attempt], config: Config) -> Params:
    """phi_{k+1} of one maze, with the estimator's graph."""
    estimator: Estimator = config.inner.estimator
    point = phi
    if estimator == "first-order":
        point = {name: value.detach().requires_grad_() for name, value in phi.items()}
    credits = credit(attempts, theta, config)
    total = surrogate(estimator, point, drawing, attempts, credits, config)
    slopes = torch.autograd.grad(total, list(point.values()), create_graph=True)
    adapted = {}
    for (name, value), slope in zip(phi.items(), slopes, strict=True):
        fixed = config.inner.cell_step_size if name == "cell" else config.inner.step_size
        adapted[name] = value + theta.get(f"step_size.{name}", fixed) * slope
    return adapted

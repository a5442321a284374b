"""The exact mathematics of one small maze, a finite MDP: slow, obvious, float64, and without protocol's tables.

What is learned from is J(phi) = E[R], R = gamma^(L-1) where the exit was found within the horizon, else 0. The meta-
gradient is d J(phi_K) / d phi_0 with phi_{k+1} = phi_k + alpha * grad J(phi_k), so a product of Jacobians I + alpha * H
times grad J(phi_K). With enough attempts every estimator finds the same phi_k; what it takes for H differs. Write
l = sum_t log pi(a_t | s_t) for the log-likelihood of an attempt and b for the baseline of its credit R - b:

    dice         H = E[(R - b) (d2l + dl dl')]       the Hessian of J itself: E[d2l + dl dl'] = 0, so b is of no account
    lvc          H = E[(R - b) sum_t d2pi_t / pi_t]  lacks dl_t dl_u' for t != u; sum_a d2pi = 0: b is of no account
    maml         H = E[(R - b) sum_t d2 log pi_t]    lacks dl dl' altogether; E[sum_t d2 log pi_t] = -Fisher, so that
                                                     b adds b * Fisher: b = J of others on average, 0 if there are none
    first-order  H = 0

The baseline of an attempt comes from the others, so these expectations hold at any number of attempts; the product
with grad J(phi_K) does not, since phi_K depends on the same attempts: there the limit is of many attempts.
"""

# S states, A moves, P parameters, T horizon, K inner steps; "..." any batch of parameters

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from protocol.config import Config
from protocol.learning import policy

Estimator = Literal["first-order", "maml", "lvc", "dice"]
State = tuple[int, int]  # cell, last move that got the robot somewhere

MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
NO_MOVE = 4


class Drawing:
    """A maze as its text says."""

    def __init__(self, text: str) -> None:
        rows = text.split("\n")
        self.side = len(rows)
        self.free = {(i, j) for i, row in enumerate(rows) for j, mark in enumerate(row) if mark != "#"}
        (self.start,) = (
            self.cell(i, j) for i, row in enumerate(rows) for j, mark in enumerate(row) if mark == "S"
        )
        (self.exit,) = (
            self.cell(i, j) for i, row in enumerate(rows) for j, mark in enumerate(row) if mark == "E"
        )

    def cell(self, row: int, column: int) -> int:
        return row * self.side + column

    def move(self, cell: int, move: int) -> int:
        """The cell that a move leads to: the neighbour, or the same cell where a wall or the edge is in the way."""
        down, right = MOVES[move]
        row, column = cell // self.side + down, cell % self.side + right
        return self.cell(row, column) if (row, column) in self.free else cell

    def follow(self, state: State, move: int) -> State | None:
        """The state that follows; None for the exit, the same after a bump."""
        cell = self.move(state[0], move)
        if cell == self.exit:
            return None
        return state if cell == state[0] else (cell, move)

    def states(self) -> list[State]:
        """All that can be reached: the start before any move, then by cell and move."""
        start = (self.start, NO_MOVE)
        found, frontier = {start}, [start]
        while frontier:
            state = frontier.pop()
            for move in range(len(MOVES)):
                after = self.follow(state, move)
                if after is not None and after not in found:
                    found.add(after)
                    frontier.append(after)
        return [start, *sorted(found - {start})]

    def distance(self, cell: int) -> int:
        """Steps from a cell to the exit: after so many rounds of moving everywhere at once, the exit is among them."""
        steps, here = 0, {cell}
        while self.exit not in here:
            here |= {self.move(each, move) for each in here for move in range(len(MOVES))}
            steps += 1
        return steps

    def seen(self, cell: int, radius: int) -> list[float]:
        """1 for each cell around this one that is blocked or outside; row by row, without the centre."""
        row, column = divmod(cell, self.side)
        reach = range(-radius, radius + 1)
        return [
            float((row + down, column + right) not in self.free)
            for down in reach
            for right in reach
            if (down, right) != (0, 0)
        ]


class ExactMaze:
    """One maze under a policy network of `config`; parameters are flat vectors [..., P]."""

    def __init__(self, text: str, config: Config) -> None:
        self.drawing = Drawing(text)
        self.states = self.drawing.states()
        self.config = config
        self.shapes = policy.shapes(config)
        self.step_size_P = torch.cat(
            [
                torch.full(
                    (math.prod(shape),),
                    config.inner.cell_step_size if name == "cell" else config.inner.step_size,
                    dtype=torch.float64,
                )
                for name, shape in self.shapes.items()
            ]
        )
        count = len(self.states)
        self.leads_SAS = torch.zeros(count, len(MOVES), count, dtype=torch.float64)
        self.exits_SA = torch.zeros(count, len(MOVES), dtype=torch.float64)
        for row, state in enumerate(self.states):
            for move in range(len(MOVES)):
                after = self.drawing.follow(state, move)
                if after is None:
                    self.exits_SA[row, move] = 1
                else:
                    self.leads_SAS[row, move, self.states.index(after)] = 1
        self.sensed = self._sensed()

    def _sensed(self) -> dict[str, Tensor]:
        """For each input of the network, [S, its rows]: one row of ones and zeros per state."""
        side, cells = self.drawing.side, [cell for cell, _ in self.states]

        def one_hot(values: list[int], size: int) -> Tensor:
            return torch.tensor([[float(v == i) for i in range(size)] for v in values], dtype=torch.float64)

        seen = [self.drawing.seen(cell, self.config.policy.radius) for cell in cells]
        return {
            "cell": one_hot(cells, side**2),
            "row": one_hot([cell // side for cell in cells], side),
            "column": one_hot([cell % side for cell in cells], side),
            "seen": torch.tensor(seen, dtype=torch.float64),
            "previous": one_hot([move for _, move in self.states], len(MOVES) + 1),
        }

    def named(self, phi_P: Tensor) -> dict[str, Tensor]:
        """The parameters by name, each [..., its shape]."""
        parts = torch.split(phi_P, [math.prod(shape) for shape in self.shapes.values()], dim=-1)
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in named}

    def log_policy(self, phi_P: Tensor) -> Tensor:
        """[..., S, A]"""
        phi = self.named(phi_P)
        hidden = phi["bias"].unsqueeze(-2)
        for name, sensed in self.sensed.items():
            hidden = hidden + sensed @ phi[name]
        return torch.log_softmax(torch.relu(hidden) @ phi["out"] + phi["out_bias"].unsqueeze(-2), dim=-1)

    def value(self, phi_P: Tensor) -> Tensor:
        """[...] J(phi) = e_0' sum_{t<T} gamma^t P^t r."""
        move_SS, exit_S = self._chain(phi_P)
        value_S = torch.zeros_like(exit_S)
        for _ in range(self.config.run.horizon):
            value_S = exit_S + self.config.run.discount * (move_SS @ value_S.unsqueeze(-1)).squeeze(-1)
        return value_S[..., 0]

    def value_without_horizon(self, phi_P: Tensor) -> Tensor:
        """[...] e_0' (I - gamma P)^-1 r."""
        move_SS, exit_S = self._chain(phi_P)
        identity = torch.eye(len(self.states), dtype=torch.float64)
        value_S: Tensor = torch.linalg.solve(identity - self.config.run.discount * move_SS, exit_S)
        return value_S[..., 0]

    def _chain(self, phi_P: Tensor) -> tuple[Tensor, Tensor]:
        """P [..., S, S] and r [..., S] of the Markov chain under the policy."""
        pi_SA = self.log_policy(phi_P).exp()
        return torch.einsum("...sa,san->...sn", pi_SA, self.leads_SAS), (pi_SA * self.exits_SA).sum(-1)

    def gradient(self, phi_P: Tensor) -> Tensor:
        """[P] grad J."""
        return slope(self.value(phi_P), phi_P)

    def occupancy(self, phi_P: Tensor) -> tuple[Tensor, Tensor]:
        """[S, A] how often each (state, move) is met in an attempt, and the same times the attempt's R, expected."""
        horizon, discount = self.config.run.horizon, self.config.run.discount
        pi_SA = self.log_policy(phi_P.detach()).exp()
        value_S, to_go = torch.zeros(len(self.states), dtype=torch.float64), []
        for _ in range(horizon):
            to_go.append(self.exits_SA + discount * self.leads_SAS @ value_S)  # with 1, 2, ... T steps left
            value_S = (pi_SA * to_go[-1]).sum(1)
        times_SA, returns_SA = torch.zeros_like(pi_SA), torch.zeros_like(pi_SA)
        there_S = torch.zeros_like(value_S)
        there_S[0] = 1
        for time in range(horizon):
            here_SA = there_S[:, None] * pi_SA
            times_SA += here_SA
            returns_SA += here_SA * discount**time * to_go[horizon - 1 - time]
            there_S = torch.einsum("sa,san->n", here_SA, self.leads_SAS)
        return times_SA, returns_SA

    def surrogate(self, phi_P: Tensor, estimator: Estimator, baseline: float | None = None) -> Tensor:
        """A function of phi whose gradient here is grad J and whose Hessian is the estimator's, as expected.

        `baseline` is b; None for the leave-one-out one, which is J on average.
        """
        if estimator == "dice":
            return self.value(phi_P)
        times_SA, returns_SA = self.occupancy(phi_P)
        b = self.value(phi_P.detach()) if baseline is None else baseline
        credit_SA = returns_SA - b * times_SA
        log_SA = self.log_policy(phi_P)
        if estimator == "lvc":
            return (credit_SA * torch.exp(log_SA - log_SA.detach())).sum()
        return (credit_SA * log_SA).sum()

    def adapted(self, phi_P: Tensor, estimator: Estimator, steps: int) -> Tensor:
        """phi_K of the exact inner loop, with the graph that `estimator` has in the limit of many attempts."""
        for _ in range(steps):
            point_P = phi_P.detach().requires_grad_() if estimator == "first-order" else phi_P
            slope_P = slope(self.surrogate(point_P, estimator), point_P, graph=True)
            phi_P = phi_P + self.step_size_P * slope_P
        return phi_P

    def meta_gradient(self, phi_P: Tensor, estimator: Estimator = "dice", *, steps: int) -> Tensor:
        """[P] what `estimator` converges to; for 'dice' the exact d J(phi_K) / d phi_0."""
        return slope(self.value(self.adapted(phi_P, estimator, steps)), phi_P)


def slope(scalar: Tensor, at: Tensor, *, graph: bool = False) -> Tensor:
    (gradient,) = torch.autograd.grad(scalar, at, create_graph=graph)
    return gradient


def cosine(left: Tensor, right: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(left, right, dim=0))

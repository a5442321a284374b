"""The exact mathematics of one small maze: slow, obvious, float64, and without protocol's arrays.

Without memory a maze is a finite MDP over (cell, last move). What is learned from is J(phi) = E[R], R = gamma^(L-1)
where an exit was found within the horizon, else 0; phi is the network and the fast weights of every cell. The
meta-gradient is d J(phi_K) / d phi_0 with phi_{k+1} = phi_k + alpha * grad J(phi_k), so a product of Jacobians
I + alpha * H times grad J(phi_K). With enough attempts every estimator finds the same phi_k; what it takes for H
differs. Write l = sum_t log pi(a_t | s_t) for the log-likelihood of an attempt and b for the baseline of its credit
R - b:

    dice         H = E[(R - b) (d2l + dl dl')]       the Hessian of J itself: E[d2l + dl dl'] = 0, so b is of no account
    lvc          H = E[(R - b) sum_t d2pi_t / pi_t]  lacks dl_t dl_u' for t != u; sum_a d2pi = 0: b is of no account
    maml         H = E[(R - b) sum_t d2 log pi_t]    lacks dl dl' altogether; E[sum_t d2 log pi_t] = -Fisher, so that
                                                     b adds b * Fisher: b = J of others on average, 0 if there are none
    first-order  H = 0

The baseline of an attempt comes from the others, so these expectations hold at any number of attempts; the product
with grad J(phi_K) does not, since phi_K depends on the same attempts: there the limit is of many attempts.

With memory and dreams there are as many states as ways to walk. In the tiniest mazes they can all be walked: see
`every_chance`.
"""

# S states, A moves, F features, C cells, P parameters, T horizon, K inner steps; "..." any batch of parameters

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from protocol.config import Config
from protocol.learning import policy
from protocol.learning.inner import unflatten
from tests.parts import stepwise
from tests.parts.robot import MOVES, NO_MOVE, Cell, Drawing, Past, Robot
from tests.parts.stepwise import Attempt, Estimator, Phi, log_pi, reward, step_of

State = tuple[Cell, int]  # where it is, and the last move that got it somewhere


class ExactMaze:
    """One maze under the policies of a robot without memory; parameters, network and Delta, are flat: [..., P]."""

    def __init__(self, text: str, config: Config) -> None:
        assert config.policy.memory == "none"
        self.drawing, self.config = Drawing(text), config
        self.horizon = math.ceil(config.run.horizon_per_cell * len(self.drawing.cells))
        self.states = self._states()
        self.shapes = policy.shapes(config) | {"delta": (len(MOVES), len(self.drawing.cells))}
        self.net_size = sum(math.prod(shape) for name, shape in self.shapes.items() if name != "delta")
        step_size = config.inner.step_size if config.inner.adapts == "all" else 0.0
        self.step_size_P = torch.cat(
            [
                torch.full((math.prod(shape),), config.inner.cell_step_size if name == "delta" else step_size).double()
                for name, shape in self.shapes.items()
            ]
        )
        robots = [self._robot(state) for state in self.states]
        self.turned_SAF = torch.tensor([[robot.features(facing) for facing in range(4)] for robot in robots]).double()
        self.allowed_SA = torch.tensor([[robot.may(move) for move in range(4)] for robot in robots])
        self.cell_S = torch.tensor([self.drawing.number(cell) for cell, _ in self.states])
        count = len(self.states)
        self.leads_SAS = torch.zeros(count, len(MOVES), count, dtype=torch.float64)
        self.exits_SA = torch.zeros(count, len(MOVES), dtype=torch.float64)
        for row, state in enumerate(self.states):
            for move in range(len(MOVES)):
                cell, last = self.follow(state, move)
                if not self.drawing.ends(cell):
                    self.leads_SAS[row, move, self.states.index((cell, last))] = 1
                self.exits_SA[row, move] = float(cell in self.drawing.exits)

    def follow(self, state: State, move: int) -> State:
        """Returns the state after a move; a bump changes nothing."""
        cell = self.drawing.ahead(state[0], move)
        return state if cell == state[0] else (cell, move)

    def _states(self) -> list[State]:
        """All in which a move can be made: the start before any move, then by cell and move."""
        start = (self.drawing.start, NO_MOVE)
        found, frontier = {start}, [start]
        while frontier:
            state = frontier.pop()
            for move in range(len(MOVES)):
                after = self.follow(state, move)
                if after not in found and not self.drawing.ends(after[0]):
                    found.add(after)
                    frontier.append(after)
        return [start, *sorted(found - {start})]

    def _robot(self, state: State) -> Robot:
        robot = Robot(self.drawing, self.config.policy, Past())
        robot.cell, robot.last = state
        return robot

    def named(self, phi_P: Tensor) -> dict[str, Tensor]:
        """The parameters by name, each [..., its shape]."""
        parts = torch.split(phi_P, [math.prod(shape) for shape in self.shapes.values()], dim=-1)
        named = zip(self.shapes.items(), parts, strict=True)
        return {name: part.reshape(*part.shape[:-1], *shape) for (name, shape), part in named}

    def unadapted(self, net_Q: Tensor) -> Tensor:
        """[..., P] a network's parameters, and fast weights of 0."""
        cells = len(self.drawing.cells)
        return torch.cat([net_Q, net_Q.new_zeros(*net_Q.shape[:-1], len(MOVES) * cells)], dim=-1)

    def log_policy(self, phi_P: Tensor) -> Tensor:
        """[..., S, A]; next to nothing for moves into walls that are sensed."""
        phi = self.named(phi_P)
        hidden = torch.relu(torch.einsum("saf,...fh->...sah", self.turned_SAF, phi["in"]) + _wide(phi["bias"]))
        logits = (hidden * _wide(phi["out"])).sum(-1) + phi["delta"][..., self.cell_S].transpose(-1, -2)
        return torch.log_softmax(torch.where(self.allowed_SA, logits, -1e4), dim=-1)

    def value(self, phi_P: Tensor) -> Tensor:
        """[...] J(phi) = e_0' sum_{t<T} gamma^t P^t r."""
        move_SS, exit_S = self._chain(phi_P)
        value_S = torch.zeros_like(exit_S)
        for _ in range(self.horizon):
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
        discount = self.config.run.discount
        pi_SA = self.log_policy(phi_P.detach()).exp()
        value_S, to_go = torch.zeros(len(self.states), dtype=torch.float64), []
        for _ in range(self.horizon):
            to_go.append(self.exits_SA + discount * self.leads_SAS @ value_S)  # with 1, 2, ... T steps left
            value_S = (pi_SA * to_go[-1]).sum(1)
        times_SA, returns_SA = torch.zeros_like(pi_SA), torch.zeros_like(pi_SA)
        there_S = torch.zeros_like(value_S)
        there_S[0] = 1
        for time in range(self.horizon):
            here_SA = there_S[:, None] * pi_SA
            times_SA += here_SA
            returns_SA += here_SA * discount**time * to_go[self.horizon - 1 - time]
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

    def meta_gradient(self, net_Q: Tensor, estimator: Estimator = "dice", *, steps: int) -> Tensor:
        """[Q] of the network's parameters what `estimator` converges to; for 'dice' the exact d J(phi_K) / d net."""
        return slope(self.value(self.adapted(self.unadapted(net_Q), estimator, steps)), net_Q)


def _wide(value: Tensor) -> Tensor:
    """[..., 1, 1, H]"""
    return value.unsqueeze(-2).unsqueeze(-2)


def slope(scalar: Tensor, at: Tensor, *, graph: bool = False) -> Tensor:
    (gradient,) = torch.autograd.grad(scalar, at, create_graph=graph)
    return gradient


def cosine(left: Tensor, right: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(left, right, dim=0))


# With memory and dreams


def every_attempt(drawing: Drawing, past: Past, horizon: int, config: Config) -> Iterator[tuple[Attempt, Past]]:
    """All that an attempt can be, and what is known after each."""
    going: list[tuple[Robot, list[stepwise.Step]]] = [(Robot(drawing, config.policy, past), [])]
    while going:
        robot, steps = going.pop()
        if robot.over(horizon):
            yield Attempt(steps, robot.found, horizon, [0.0] * len(steps)), past.and_then([robot])
            continue
        for move in filter(robot.may, range(4)):
            other = robot.copy()
            step = step_of(other, move)
            other.go(move)
            going.append((other, [*steps, step]))


def log_pis(phi: Phi, attempts: Sequence[Attempt]) -> list[list[Tensor]]:
    """[w][t] log pi of every move; what attempts have in common from the start on is asked once."""
    asked: dict[tuple[int, ...], dict[int, Tensor]] = {}
    rows: list[list[Tensor]] = []
    for attempt in attempts:
        moves: tuple[int, ...] = ()
        rows.append([])
        for step in attempt.steps:
            if moves not in asked:
                asked[moves] = log_pi(phi, step)
            rows[-1].append(asked[moves][step.move])
            moves = (*moves, step.move)
    return rows


@dataclass(frozen=True)
class Chance:
    """One of the ways in which the attempts at a maze, one after another, can go."""

    attempts: tuple[Attempt, ...]
    log_pis: tuple[list[Tensor], ...]  # [k][t]
    phis: tuple[Phi, ...]  # [k] the policies that make them
    log_p: Tensor  # [] log of how likely it is, with the graph of all that the attempts before have changed


def every_chance(text: str, theta_P: Tensor, config: Config) -> list[Chance]:
    """All ways in which K + 1 attempts can go; each but the last is remembered, and adapted to."""
    drawing, theta, stages = Drawing(text), unflatten(theta_P, config), config.inner.steps
    horizon = math.ceil(config.run.horizon_per_cell * len(drawing.cells))
    trees: dict[Past, list[tuple[Attempt, Past]]] = {}
    nothing = torch.zeros((), dtype=torch.float64)
    going = [(Chance((), (), (), nothing), Past(), stepwise.initial_phi(theta, drawing, stages, config))]
    for left in reversed(range(stages + 1)):
        gone, going = going, []
        for chance, past, phi in gone:
            if past not in trees:
                trees[past] = list(every_attempt(drawing, past, horizon, config))
            rows = log_pis(phi, [attempt for attempt, _ in trees[past]])
            for (attempt, known), row in zip(trees[past], rows, strict=True):
                log_p = chance.log_p + torch.stack(row).sum()
                longer = Chance((*chance.attempts, attempt), (*chance.log_pis, row), (*chance.phis, phi), log_p)
                after = phi
                if left:
                    facts = stepwise.hindsight([attempt], known.known_way(drawing), left - 1, config)
                    after = stepwise.adapt(phi, theta, [attempt], facts, left - 1, config)
                going.append((longer, known, after))
    return [chance for chance, _, _ in going]


def expected_returns(chances: Sequence[Chance], config: Config) -> Tensor:
    """[K + 1] J of each attempt."""
    return_CK = [[reward(attempt, config.run.discount) for attempt in chance.attempts] for chance in chances]
    chance_C = torch.stack([chance.log_p for chance in chances]).exp()
    return chance_C @ torch.tensor(return_CK, dtype=torch.float64)

"""Attempts in a batch of mazes, and the adaptation between them: what an actor does with a lease."""

# M mazes, E attempts, T steps, S states, A moves, N steps of all attempts

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from protocol.config import Config
from protocol.learning.credit import Steps
from protocol.learning.inner import adapt, initial_policy, unflatten
from protocol.learning.policy import Scene, log_policy
from protocol.wire.messages import Attempts
from protocol.world import families
from protocol.world.maze import MOVES, Mazes
from protocol.world.states import Floats, StateTable

A = len(MOVES)


def collect(
    theta_P: Floats, seed: Sequence[int], config: Config
) -> tuple[Mazes, tuple[Attempts, ...], dict[str, float]]:
    """The mazes that `seed` stands for and the attempts at them: a pure function, but for the seconds that it took."""
    began = time.perf_counter()
    rng = np.random.default_rng(seed)
    mazes = families.sample(config.maze, config.run.mazes_per_lease, rng, held_out=False)
    sampled = time.perf_counter()
    stages, rollout_s = attempt_and_adapt(theta_P, mazes, rng, config)
    seconds = {"sampling": sampled - began, "rollouts": rollout_s}
    seconds["adaptation"] = time.perf_counter() - sampled - rollout_s
    return mazes, stages, seconds


def attempt_and_adapt(
    theta_P: Floats, mazes: Mazes, rng: np.random.Generator, config: Config
) -> tuple[tuple[Attempts, ...], float]:
    """K+1 stages of attempts, one inner step after each but the last, and the seconds spent on attempts alone."""
    table = StateTable.of(mazes, config.policy.radius)
    scene = Scene.of(table, torch.device("cpu"))
    theta = unflatten(torch.from_numpy(theta_P.copy()), config)
    phi = initial_policy(theta, len(mazes))
    stages, rollout_s = [], 0.0
    for stage in range(config.inner.steps + 1):
        last = stage == config.inner.steps
        phi = {name: value.detach().requires_grad_(not last) for name, value in phi.items()}
        log_prob = log_policy(phi, scene)
        began = time.perf_counter()
        each = config.outer.attempts if last else config.inner.attempts
        attempts = roll_out(log_prob.detach().numpy(), table, each, config.run.horizon, rng)
        rollout_s += time.perf_counter() - began
        stages.append(attempts)
        if not last:
            steps = Steps.of(attempts, scene, config.run.discount)
            phi = adapt(phi, theta, log_prob, steps, scene, config, graph=False)
    return tuple(stages), rollout_s


def roll_out(
    log_prob: Floats, table: StateTable, attempts: int, horizon: int, rng: np.random.Generator
) -> Attempts:
    """E attempts in each of M mazes: every step is a few look-ups for all attempts at once.

    All tables are indexed by the last (state, move) pair, so that one look-up finds where it led (`base`: A * the
    state) and another the policy there (`bounds`: cumulative probabilities). A base below 0 is the exit.
    """
    mazes, states = table.cell_MS.shape
    first_M = np.arange(mazes) * states
    next_MSA = table.next_MSA + first_M[:, None, None]
    following = np.where(table.next_MSA == table.exit_state, -1, next_MSA).reshape(-1)
    bounds_AS = np.cumsum(np.exp(log_prob.reshape(-1, A)), axis=1, dtype=np.float32)[:, :-1].T
    bounds = bounds_AS.take(following, axis=1)
    base = following * A

    walker_W = np.arange(mazes * attempts)
    length_W = np.full(len(walker_W), horizon)
    pairs_TW = np.empty((horizon, len(walker_W)), np.int64)
    start_W = np.repeat(first_M, attempts)
    at, bound = start_W * A, bounds_AS.take(start_W, axis=1)
    for step in range(horizon):
        drawn = rng.random(len(at), dtype=np.float32)
        # However the cumulative probabilities are rounded, the last move takes what the others leave.
        pair = at + (drawn >= bound).sum(axis=0, dtype=np.uint8)
        pairs_TW[step, walker_W] = pair
        at = base.take(pair)
        if at.min() < 0:
            going = at >= 0
            length_W[walker_W[~going]] = step + 1
            walker_W, at, pair = walker_W[going], at[going], pair[going]
            if not len(at):
                break
        bound = bounds.take(pair, axis=1)
    taken_WT = np.arange(horizon) < length_W[:, None]
    visits_N = pairs_TW.T[taken_WT] - np.repeat(start_W * A, length_W)
    return Attempts(
        length=length_W.reshape(mazes, attempts).astype(np.uint16),
        visits=visits_N.astype(np.uint16),
        log_prob=log_prob,
    )

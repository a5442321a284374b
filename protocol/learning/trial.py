"""The work that a lease asks for: attempts in mazes that its seed stands for, and the adaptation between them.

It is a pure function of theta, seed and config. Actors compute it, and so does the learner where it checks them.
"""

# M mazes, C cells of all mazes, N steps of all attempts, S situations (see inner.Made), U distinct observations,
# A moves, K inner steps, J facts that hindsight knows of a step, D kinds of dream, G gains of a dream, P parameters,
# H hidden units, W walkers

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from protocol.config import Config
from protocol.learning import recurrent
from protocol.learning.arrays import take
from protocol.learning.credit import Steps, hindsight, horizons
from protocol.learning.inner import Made, Theta, adapt, initial_phi, situations, unflatten
from protocol.learning.play import Scores, keys, play, scene_of
from protocol.learning.policy import Phi, Scene, log_prob
from protocol.world import families
from protocol.world.cells import EXIT, Floats, Ints
from protocol.world.maze import Mazes
from protocol.world.memory import Known
from protocol.world.senses import Observations, Sight
from protocol.world.walk import Walk, learned

Finished = Callable[[str], None]  # takes the name of a piece of work that has been done


@dataclass(frozen=True)
class Trial:
    """The attempts at some mazes, and the policies, one inner step after another."""

    walks: tuple[Walk, ...]  # [K + 1] the attempts before each inner step, and after the last
    log_probs: tuple[Floats, ...]  # [K + 1] arrays [N]: the log-probability that each move was drawn with
    phis: tuple[Phi, ...]  # [K + 1] the policies that drew the moves
    knowns: tuple[Known, ...]  # [K + 1] what the robots knew before the attempts


def lease_trial(
    theta_P: Floats, seed: Sequence[int], config: Config, finished: Finished = lambda work: None
) -> tuple[Mazes, Trial]:
    """Draws the mazes that `seed` stands for, and makes the attempts at them.

    Args:
      theta_P: [P] the parameters.
      finished: is told of every piece of work: "sampling", "rollouts" or "adaptation".
    """
    rng = np.random.default_rng(seed)
    mazes = families.sample(config.maze, config.run.mazes_per_lease, rng, held_out=False)
    finished("sampling")
    return mazes, attempt_and_adapt(theta_P, mazes, rng, config, finished=finished)


def attempt_and_adapt(
    theta_P: Floats,
    mazes: Mazes,
    rng: np.random.Generator,
    config: Config,
    horizon_M: Ints | None = None,
    finished: Finished = lambda work: None,
) -> Trial:
    """Makes K + 1 stages of attempts at `mazes`, with one inner step after each but the last.

    Args:
      theta_P: [P] the parameters.
      horizon_M: [M] steps after which an attempt at each maze has failed; None stands for the config's horizons.
      finished: is told of every piece of work: "rollouts" or "adaptation".
    """
    theta, inner = unflatten(theta_P, config), config.inner
    horizon_M = horizons(mazes, config) if horizon_M is None else horizon_M
    if config.policy.kind == "recurrent":
        return _recurrent_trial(theta, mazes, rng, config, horizon_M, finished)
    met = Observations(Sight.of(mazes, config.policy), by_maze=inner.adapts == "all")
    phis = [initial_phi(theta, mazes.cells, len(mazes), inner.steps, config)]
    knowns = [Known.nothing(mazes.cells)]
    scores = Scores(phis[0].net, met, config)
    walks, log_probs = [], []
    for left in reversed(range(inner.steps + 1)):
        each, phi = inner.attempts if left else config.outer.attempts, phis[-1]
        if phi.net is not scores.net:
            scores = Scores(phi.net, met, config)
        done = play(phi, scores, met, knowns[-1], horizon_M, keys(len(mazes) * each, rng))
        finished("rollouts")
        situation_N, step_S = situations(done, each)
        at_S, seen_S = done.at_N[step_S], done.seen_N[step_S]
        score_AS, delta_AS = scores.of(seen_S), take(phi.delta_AC, at_S)
        dreams = (dream_N[step_S] for dream_N in (done.known_N, done.hope_N, done.gain_N))
        log_prob_AS = log_prob(score_AS, delta_AS, phi.dream_DG, *dreams)
        pair_N = done.move_N * np.intp(len(step_S)) + situation_N
        walks.append(done)
        log_probs.append(log_prob_AS.reshape(-1)[pair_N])
        if left:
            knowns.append(learned(met.sight, knowns[-1], done))
            steps = Steps.of(done, mazes, horizon_M)
            known_JN = hindsight(steps, knowns[-1].way_C, left - 1, config)
            seen_S, scene = _scene(met, seen_S, config)
            made = Made(each, at_S, seen_S, pair_N, steps.attempt_N, steps.time_N, known_JN)
            phis.append(adapt(phi, theta, log_prob_AS, made, scene, left - 1, config))
        finished("adaptation")
    return _trial(met, walks, log_probs, phis, knowns)


def _recurrent_trial(
    theta: Theta, mazes: Mazes, rng: np.random.Generator, config: Config, horizon_M: Ints, finished: Finished
) -> Trial:
    """Makes K + 1 attempts at each maze with the recurrent policy, whose state goes on from one to the next."""
    met, knowns = Observations(Sight.of(mazes, config.policy)), [Known.nothing(mazes.cells)]
    phis = [initial_phi(theta, mazes.cells, len(mazes), config.inner.steps, config)]
    fed = recurrent.Fed(phis[0].net, met)
    walks, log_probs = [], []
    for left in reversed(range(config.inner.steps + 1)):
        done, log_prob_N, state_MH = recurrent.play(phis[-1], fed, met, knowns[-1], horizon_M, keys(len(mazes), rng))
        walks.append(done)
        log_probs.append(log_prob_N)
        finished("rollouts")
        if left:
            knowns.append(learned(met.sight, knowns[-1], done))
            found_M = (mazes.cell_C[done.end_W] == EXIT).astype(np.float32)
            phis.append(recurrent.adapt(phis[-1], state_MH, found_M))
        finished("adaptation")
    return _trial(met, walks, log_probs, phis, knowns)


def _trial(
    met: Observations, walks: Sequence[Walk], log_probs: Sequence[Floats], phis: Sequence[Phi], knowns: Sequence[Known]
) -> Trial:
    """Puts a trial together; the numbers of its observations do not depend on when they were met."""
    _, rank_U = met.order()
    ordered = tuple(replace(done, seen_N=rank_U[done.seen_N]) for done in walks)
    return Trial(ordered, tuple(log_probs), tuple(phis), tuple(knowns))


def _scene(met: Observations, seen_S: Ints, config: Config) -> tuple[Ints, Scene | None]:
    """Numbers the observations [S] and collects them; None in their place where the network does not adapt."""
    if config.inner.adapts == "cells":
        return seen_S, None
    order_U, rank_U = met.order()
    return rank_U[seen_S], scene_of(met, order_U, config)

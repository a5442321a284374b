"""Policy gradient from nothing, in each maze: clew's own policy, whose network is random and learns no other maze.

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning" (REINFORCE),
Machine Learning 8, 1992. The fast weights of the cells take all steps: that is a softmax over a table. The baseline of
a step is the mean of what followed all visits to its cell.
"""

# M mazes, C cells of all mazes, E attempts at each maze before a step of the gradient, S situations,
# N steps of all attempts, A moves, D kinds of dream, G gains of a dream, J facts that hindsight knows of a step

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deploy.compare.played import Played
from deploy.study.exam import Exam
from protocol.config import Config
from protocol.learning.arrays import take
from protocol.learning.credit import Steps, hindsight
from protocol.learning.inner import Made, adapt, initial_phi, initial_theta, situations, unflatten
from protocol.learning.play import Scores, keys, play
from protocol.learning.policy import log_prob
from protocol.world.cells import Bools, Ints
from protocol.world.memory import Known
from protocol.world.senses import Observations, Sight


def policy_gradient(exam: Exam, config: Config, rng: np.random.Generator) -> Callable[[], tuple[Bools, Ints]]:
    """Returns a function that makes E attempts at each maze and then one step of the gradient.

    The function returns [E, M] whether the attempts found an exit, and their steps. `config` has rule sgd on the cells,
    and no dreams: E is inner.attempts, and the step size is inner.cell_step_size.
    """
    mazes, each = exam.mazes, config.inner.attempts
    theta = unflatten(initial_theta(config), config)
    phi = initial_phi(theta, mazes.cells, len(mazes), 0, config)
    met = Observations(Sight.of(mazes, config.policy))
    scores, nothing = Scores(phi.net, met, config), Known.nothing(mazes.cells)

    def attempts() -> tuple[Bools, Ints]:
        nonlocal phi
        done = play(phi, scores, met, nothing, exam.horizon_M, keys(len(mazes) * each, rng))
        situation_N, step_S = situations(done, each)
        at_S, seen_S = done.at_N[step_S], done.seen_N[step_S]
        dreams = (dream_N[step_S] for dream_N in (done.known_N, done.hope_N, done.gain_N))
        log_prob_AS = log_prob(scores.of(seen_S), take(phi.delta_AC, at_S), phi.dream_DG, *dreams)
        pair_N = done.move_N * np.intp(len(step_S)) + situation_N
        steps = Steps.of(done, mazes, exam.horizon_M)
        known_JN = hindsight(steps, nothing.way_C, 0, config)
        made = Made(each, at_S, seen_S, pair_N, steps.attempt_N, steps.time_N, known_JN)
        phi = adapt(phi, theta, log_prob_AS, made, None, 0, config)
        played = Played.of([done], mazes, exam.horizon_M)
        return played.found_EM, played.steps_EM

    return attempts

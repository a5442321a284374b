"""The policies that theta makes in the mazes of a batch, stage after stage: log pi of every move, with its gradient."""

# M mazes, W walkers, N steps of all attempts, S situations (see inner.Made), T steps of an attempt, U distinct
# observations, F features of an observation, H hidden units, Z gates of a recurrent network, A moves

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from learner.stages import Batch
from protocol.config import Config
from protocol.learning import policy, recurrent
from protocol.learning.inner import Made, Theta, adapt, initial_phi
from protocol.learning.policy import Phi, Scene


def log_probs(theta: Theta, batch: Batch, config: Config) -> Iterator[Tensor]:
    """Yields log pi of every move in every situation [A, S], stage after stage, with the inner steps between them."""
    phi = initial_phi(theta, batch.cells, batch.mazes, config.inner.steps, config)
    return (_unrolled if config.policy.kind == "recurrent" else _by_situation)(phi, theta, batch, config)


def _by_situation(phi: Phi, theta: Theta, batch: Batch, config: Config) -> Iterator[Tensor]:
    """Yields log pi under a network of the observation, with fast weights and dreams."""
    score_AU = policy.scores(phi.net, batch.scene)
    for left, stage in zip(reversed(range(len(batch.stages))), batch.stages, strict=True):
        log_prob_AS = stage.log_prob(score_AU, phi)
        yield log_prob_AS
        if left:
            phi = adapt(phi, theta, log_prob_AS, stage.made, batch.scene, left - 1, config)
            if config.inner.adapts == "all":
                score_AU = policy.scores(phi.net, batch.scene)


def _unrolled(phi: Phi, theta: Theta, batch: Batch, config: Config) -> Iterator[Tensor]:
    """Yields log pi under a recurrent network, whose situations are the steps."""
    for stage in batch.stages:
        log_prob_AS, state_MH = unroll(phi, stage.made, stage.length_W, batch.scene)
        yield log_prob_AS
        phi = recurrent.adapt(phi, state_MH, stage.found_W)


def unroll(phi: Phi, made: Made, length_M: Tensor, scene: Scene) -> tuple[Tensor, Tensor]:
    """Computes log pi of every move at every step [A, S], and the states after the last steps [M, H].

    Args:
      phi: the network, and the states before the first steps.
      made: one attempt at each maze; its situations are its steps.
      length_M: [M] steps of each attempt.
    """
    net, order_M = phi.net, length_M.argsort(descending=True, stable=True)
    rank_M = order_M.argsort()
    going_T = (length_M[:, None] > torch.arange(int(length_M.max()), device=length_M.device)).sum(0)
    # The steps stand by time, and at each time the longer attempts first: those that go on are the first rows.
    place_N = (going_T.cumsum(0) - going_T)[made.time_N] + rank_M[made.attempt_N]
    fed_UZ = scene.x_UAF[:, 0] @ net["in"][: recurrent.ENDED] + net["bias"]  # the observation, turned to no move
    fed_NZ = fed_UZ.index_select(0, made.seen_S[place_N.argsort()])
    states, ended, state_MH = [], [], phi.state_MH[order_M]  # type: ignore[index]
    for fed_WZ in fed_NZ.split(going_T.tolist()):
        going = len(fed_WZ)
        if going < len(state_MH):
            state_MH, over_WH = state_MH.split((going, len(state_MH) - going))
            ended.append(over_WH)
        state_MH = recurrent.advance(net, fed_WZ, state_MH)
        states.append(state_MH)
    last_MH = torch.cat([state_MH, *reversed(ended)])
    state_NH, open_AN = torch.cat(states).index_select(0, place_N), scene.open_AU.index_select(1, made.seen_S)
    score_AN = recurrent.scores(net, state_NH, open_AN)
    return score_AN.log_softmax(0), last_MH[rank_M]

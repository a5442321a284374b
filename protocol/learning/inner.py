"""The update rules f: phi' = phi + step_size * grad_phi (1/E) sum_t credit_t log pi(a_t | s_t), and estimators.

MAML, arXiv:1703.03400; Meta-SGD, arXiv:1707.09835; LVC (ProMP), arXiv:1810.06784; DiCE, arXiv:1802.05098, in the form
with advantages of Loaded DiCE, arXiv:1909.10549. Actors call `adapt` without a graph, the learner with one.
"""

# M mazes, E attempts, N steps of all attempts, S states, A moves, P parameters; of the credit network: G what it knows
# of a step and 1, H hidden units

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from protocol.config import Config
from protocol.learning import policy
from protocol.learning.credit import ADVANTAGE, HINDSIGHT, Steps, advantage, hindsight
from protocol.learning.policy import Params, Scene, log_policy
from protocol.world.states import Floats

CREDIT_SCALE = (
    10.0  # of the credit network's output: what one attempt must teach is far larger than Adam's steps
)

Theta = dict[str, Tensor]  # "policy.*" phi_0; "step_size.*" alpha, as phi_0; "credit.*" the credit network


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """All of theta = (phi_0, psi): names, shapes and their order in the vector that travels."""
    phi = policy.shapes(config)
    theta = {f"policy.{name}": shape for name, shape in phi.items()}
    if config.inner.rule != "sgd":
        theta |= {f"step_size.{name}": shape for name, shape in phi.items()}
    if config.inner.rule == "learned":
        hidden = config.inner.credit_hidden
        theta |= {"credit.in": (HINDSIGHT, hidden), "credit.bias": (hidden,), "credit.out": (hidden, 1)}
    return theta


def unflatten(vector_P: Tensor, config: Config) -> Theta:
    """The named views of a theta vector [P]."""
    named = shapes(config)
    parts = torch.split(vector_P, [math.prod(shape) for shape in named.values()])
    return {name: part.view(shape) for (name, shape), part in zip(named.items(), parts, strict=True)}


def initial_theta(config: Config) -> Floats:
    """[P] where training starts: small random weights, one step size, and a credit network that says 0."""
    rng = np.random.default_rng([config.run.seed, 0x7E7A])
    parts = []
    for name, shape in shapes(config).items():
        group, _, leaf = name.partition(".")
        if group == "step_size":
            part = np.full(shape, step_size(leaf, config))
        elif leaf in ("bias", "out_bias") or name == "credit.out":
            part = np.zeros(shape)
        else:
            part = rng.normal(size=shape) / math.sqrt(shape[0] if leaf in ("out", "in") else 4)
        parts.append(part.ravel())
    return np.concatenate(parts).astype(np.float32)


def step_size(name: str, config: Config) -> float:
    """alpha of one of the policy's parameters, where it is not learned yet."""
    return config.inner.cell_step_size if name == "cell" else config.inner.step_size


def initial_policy(theta: Theta, mazes: int) -> Params:
    """phi_0 for each of M mazes: [M, ...] views of the shared parameters."""
    prefix = "policy."
    return {
        name.removeprefix(prefix): value.expand(mazes, *value.shape)
        for name, value in theta.items()
        if name.startswith(prefix)
    }


def adapt(
    phi: Params, theta: Theta, log_prob: Tensor, steps: Steps, scene: Scene, config: Config, graph: bool
) -> Params:
    """phi_{k+1} = f(phi_k, attempts), each [M, ...].

    `log_prob` [M, S, A] is log_policy(phi, scene). With `graph`, the result can be differentiated with respect to theta
    through f itself, as the estimator sees it; without, nothing leads through the step.
    """
    point = phi
    if config.inner.estimator == "first-order":
        point = {name: value.detach().requires_grad_() for name, value in phi.items()}
        log_prob = log_policy(point, scene)
    credit_N = step_credit(theta, steps, scene, config)
    surrogate = SURROGATES[config.inner.estimator](log_prob, credit_N, steps) / steps.attempts
    gradient = torch.autograd.grad(surrogate, list(point.values()), create_graph=graph)
    adapted = {}
    for (name, value), slope in zip(phi.items(), gradient, strict=True):
        adapted[name] = value + theta.get(f"step_size.{name}", step_size(name, config)) * slope
    return adapted


def step_credit(theta: Theta, steps: Steps, scene: Scene, config: Config) -> Tensor:
    """[N] the credit of every step: its advantage, and, for rule 'learned', what the credit network adds."""
    if config.inner.rule != "learned":
        return advantage(steps, scene, config)
    known_GN = hindsight(steps, scene, config)
    weight_GH = torch.cat((theta["credit.in"], theta["credit.bias"].unsqueeze(0)))
    said_N: Tensor = _CreditNetwork.apply(known_GN, weight_GH, theta["credit.out"].squeeze(1))  # type: ignore[no-untyped-call]
    return known_GN[ADVANTAGE] + CREDIT_SCALE * said_N


class _CreditNetwork(Function):
    """[N] out_H relu(weight_GH known_GN), a network of one hidden layer at every step.

    What autograd would make of it passes over [H, N] three times as often, a tenth of the learner's time.
    """

    @staticmethod
    def forward(ctx: Any, known_GN: Tensor, weight_GH: Tensor, out_H: Tensor) -> Tensor:
        hidden_HN = (weight_GH.T @ known_GN).relu_()
        ctx.save_for_backward(known_GN, hidden_HN, out_H)
        return out_H @ hidden_HN

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope_N: Tensor) -> tuple[None, Tensor, Tensor]:
        known_GN, hidden_HN, out_H = ctx.saved_tensors
        return None, ((known_GN * slope_N) @ hidden_HN.sign().T) * out_H, hidden_HN @ slope_N


def by_pair(value_N: Tensor, steps: Steps, like_MSA: Tensor) -> Tensor:
    """[M, S, A] the sum of a value over all steps that made the same move in the same state."""
    flat = torch.zeros(like_MSA.numel(), dtype=value_N.dtype, device=value_N.device)
    return flat.index_add(0, steps.pair_N, value_N).view_as(like_MSA)


def log_likelihood(log_prob: Tensor, credit_N: Tensor, steps: Steps) -> Tensor:
    """MAML as implemented: sum credit * log pi. Its gradient is right; its Hessian lacks the score terms."""
    return (by_pair(credit_N, steps, log_prob) * log_prob).sum()


def low_variance_curvature(log_prob: Tensor, credit_N: Tensor, steps: Steps) -> Tensor:
    """LVC: sum credit * pi / stop(pi). Its Hessian lacks the terms across different steps of an attempt."""
    return (by_pair(credit_N, steps, log_prob) * torch.exp(log_prob - log_prob.detach())).sum()


def dice(log_prob: Tensor, credit_N: Tensor, steps: Steps) -> Tensor:
    """Loaded DiCE: sum (box(l_<=t) - box(l_<t)) credit_t, box(x) = exp(x - stop(x)), l_<=t the log-likelihood up to t.

    Unbiased at every order. Needs each attempt's own likelihood, so it gathers from the table per step.
    """
    log_N = log_prob.flatten().index_select(0, steps.pair_N)
    horizon = int(steps.length_ME.max())
    padded = log_N.new_zeros(len(steps.length_ME), horizon).index_put((steps.attempt_N, steps.time_N), log_N)
    upto_N = padded.cumsum(1)[steps.attempt_N, steps.time_N]
    before_N = upto_N - log_N
    return (credit_N * (torch.exp(upto_N - upto_N.detach()) - torch.exp(before_N - before_N.detach()))).sum()


SURROGATES = {
    "first-order": log_likelihood,
    "maml": log_likelihood,
    "lvc": low_variance_curvature,
    "dice": dice,
}

"""The update rules f: phi' = phi + step_size * (1/E) sum_t w_t grad_phi log pi(a_t | step), in closed form.

With respect to the logits the gradient is w * (onehot(a) - pi), so no second backward pass is needed: the same lines
compute f in numpy, where actors adapt, and in torch, where the learner differentiates through them. The estimator
decides what w is beside the step's credit, and so which second-order terms that derivative sees.

MAML, arXiv:1703.03400; Meta-SGD, arXiv:1707.09835; LVC (ProMP), arXiv:1810.06784; DiCE, arXiv:1802.05098, in the form
with advantages of Loaded DiCE, arXiv:1909.10549; fast weights: Schmidhuber, 1992, arXiv:1610.06258.
"""

# M mazes, E attempts at each maze, W = M*E attempts, T steps of an attempt, N steps of all attempts, S situations,
# C cells of all mazes, U distinct observations, A moves, F features of an observation, H hidden units, P parameters,
# D kinds of dream, G gains of a dream, J facts that hindsight knows of a step

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from protocol.compiled import compiled
from protocol.config import Config
from protocol.learning import policy, recurrent
from protocol.learning.arrays import Array, exp, fixed, is_torch, like, product, relu, sum_by, take
from protocol.learning.credit import ADVANTAGE, HINDSIGHT
from protocol.learning.exact import log
from protocol.learning.policy import DREAMS, GAINS, HOPE, KNOWN, Phi, Scene
from protocol.world.cells import A, Floats, Indices
from protocol.world.memory import MOST_GAIN, NO_EXIT, NO_WAY
from protocol.world.walk import Walk

# The factor of a credit network's output: what one attempt must teach is far larger than Adam's steps.
CREDIT_SCALE = 10.0
# The same factor for dreams, which begin nearly right: at full speed they drift where little is at stake.
DREAM_SCALE = 0.3
CREDIT_UNITS = 8  # hidden units of the credit networks
DREAMT = 9  # facts that `_dreamt` knows of a dream, among them 1 for the bias

Theta = dict[str, Array]


@dataclass(frozen=True)
class Made:
    """The attempts that an inner step learns from, as it reads them.

    A situation is all that decides the policy at a step: the cell, the observation and what is dreamt there. Attempts
    that take the same way share theirs.
    """

    attempts: int  # E
    at_S: Array  # [S] row of the cell among the C
    seen_S: Array  # [S] number of the observation
    pair_N: Array  # [N] move * S + situation: where the move that was made stands in a table [A, S]
    attempt_N: Array  # [N] the number of the attempt among the W
    time_N: Array  # [N] t
    known_JN: Array  # [J, N] what hindsight knows


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """Lists all of theta: names, shapes, and their order in the vector that travels.

    `policy.*` is the network, `step_size.*` is alpha, `keep` says how much of the fast weights stays, and `credit.*`
    and `dream.*` are the credit networks of what was done and of what was dreamt.
    """
    recurs = config.policy.kind == "recurrent"
    inner, net = config.inner, (recurrent if recurs else policy).shapes(config)
    theta = {f"policy.{name}": shape for name, shape in net.items()}
    if recurs:
        return theta  # its state is all that it learns
    if inner.rule != "sgd":
        theta["step_size.cells"] = (1,)
        if inner.adapts == "all":
            theta |= {f"step_size.{name}": shape for name, shape in net.items()}
    if inner.rule == "learned":
        known = HINDSIGHT + len(inner.credit_features)
        theta |= {"keep": (1,), "credit.in": (known, CREDIT_UNITS), "credit.out": (CREDIT_UNITS,)}
        if config.policy.dreams:
            theta |= {"dream.in": (DREAMT, CREDIT_UNITS), "dream.out": (CREDIT_UNITS,)}
    return theta


def unflatten(vector_P: Array, config: Config) -> Theta:
    """Cuts a theta vector [P] into its named parts, which are views of it."""
    theta, begin = {}, 0
    for name, shape in shapes(config).items():
        end = begin + math.prod(shape)
        theta[name], begin = vector_P[begin:end].reshape(shape), end
    return theta


def initial_theta(config: Config) -> Floats:
    """Draws the theta [P] that training starts from: small random weights, credit networks whose output is 0."""
    rng = np.random.default_rng([config.run.seed, 0x7E7A])
    parts = []
    for name, shape in shapes(config).items():
        group, _, leaf = name.partition(".")
        if group == "step_size":
            part = np.full(shape, step_size(leaf, config))
        elif leaf == "bias" or name in ("keep", "credit.out", "dream.out"):
            part = np.zeros(shape)
        else:
            part = rng.normal(size=shape) / math.sqrt(6 if leaf == "in" else shape[0])  # some six features are 1
        parts.append(part.ravel())
    return np.concatenate(parts).astype(np.float32)


def step_size(name: str, config: Config) -> float:
    """Returns alpha of the fast weights ("cells") or of one of the network's parameters, before it is learned."""
    return config.inner.cell_step_size if name == "cells" else config.inner.step_size


def alpha(theta: Theta, name: str, config: Config) -> Array:
    """Returns alpha as theta or, where it is not learned, the config has it; `name` as for `step_size`."""
    return theta.get(f"step_size.{name}", step_size(name, config))


def initial_phi(theta: Theta, cells: int, mazes: int, attempts_left: int, config: Config) -> Phi:
    """Makes the policies that M mazes with C cells start with: one network, no fast weights."""
    net = {name.removeprefix("policy."): value for name, value in theta.items() if name.startswith("policy.")}
    if config.policy.kind == "recurrent":
        sizes = (A, cells), (DREAMS, GAINS), (mazes, config.policy.hidden)
        return Phi(net, *(like(np.zeros(size, np.float32), theta["policy.in"]) for size in sizes))
    if config.inner.adapts == "all":
        net = {name: value[None] + _zeros(value, mazes) for name, value in net.items()}
    return Phi(net, like(np.zeros((A, cells), np.float32), theta["policy.in"]), dreams(theta, attempts_left, config))


def _zeros(value: Array, mazes: int) -> Array:
    """Returns zeros [M, 1, ...] of the kind of `value`, which spread it over M mazes when added."""
    return like(np.zeros((mazes, *[1] * len(value.shape)), np.float32), value)


def dreams(theta: Theta, attempts_left: int, config: Config) -> Array:
    """Computes how strongly a dream of each kind and gain is followed [D, G]: alpha times its credit.

    Before anything is learned, the credit is 1 for whichever way is the shorter, and 0 for the other.
    """
    kind, gain = (each.reshape(-1) for each in np.mgrid[:DREAMS, :GAINS])
    each = like(((kind == HOPE) | (gain == 0)).astype(np.float32), theta["policy.in"])  # [D * G] the credit of each
    if "dream.in" in theta:
        known = like(_dreamt(kind, gain, attempts_left), theta["dream.in"])
        learned = product(relu(product(known, theta["dream.in"])), theta["dream.out"][:, None])[:, 0]
        each = each + DREAM_SCALE * learned
    return (alpha(theta, "cells", config) * each).reshape(DREAMS, GAINS)


def _dreamt(kind: Indices, gain: Indices, attempts_left: int) -> Floats:
    """Returns what is known of each dream [D * G, DREAMT]: its kind, its gain, attempts left; and 1, for the bias."""
    columns = (
        kind == KNOWN,
        kind == HOPE,
        gain == 0,
        gain == NO_WAY,
        gain == NO_EXIT,
        log(1.0 + gain * (gain <= MOST_GAIN)) / log(np.array(1.0 + MOST_GAIN)),
        np.full(len(gain), 1 / (1 + attempts_left)),
        (kind == HOPE) / (1 + attempts_left),
        np.ones(len(gain)),
    )
    return np.stack(columns, axis=1).astype(np.float32)


def credit(theta: Theta, known_JN: Array) -> Array:
    """Computes the credit of every step [N]: its advantage and, for rule 'learned', what the credit network adds."""
    if "credit.in" not in theta:
        return known_JN[ADVANTAGE]
    learned_N = product(theta["credit.out"][None], relu(product(theta["credit.in"].T, known_JN)))[0]
    return known_JN[ADVANTAGE] + CREDIT_SCALE * learned_N


def adapt(
    phi: Phi, theta: Theta, log_prob_AS: Array, made: Made, scene: Scene | None, attempts_left: int, config: Config
) -> Phi:
    """Makes one inner step: phi_{k+1} = f(phi_k, attempts).

    Args:
      log_prob_AS: [A, S] log pi of phi_k in the situations of `made`.
      scene: the observations; needed where the network adapts, too.
      attempts_left: attempts that are to come after those that the result makes.
    """
    net = phi.net
    if config.inner.estimator == "first-order":
        log_prob_AS, net = fixed(log_prob_AS), {name: fixed(value) for name, value in net.items()}
    credit_N = credit(theta, made.known_JN) / made.attempts
    weight_AS = WEIGHTS[config.inner.estimator](credit_N, log_prob_AS, made)
    slope_AS = weight_AS - weight_AS.sum(0) * exp(log_prob_AS)
    kept = 1 / (1 + exp(-theta["keep"])) if "keep" in theta else 1.0
    raised_AC = sum_by(slope_AS, made.at_S, phi.delta_AC.shape[1])
    delta_AC = kept * phi.delta_AC + alpha(theta, "cells", config) * raised_AC
    adapted = phi.net
    if scene is not None and config.inner.adapts == "all":
        slopes = _slopes(net, sum_by(slope_AS, made.seen_S, scene.x_UAF.shape[0]), scene)
        adapted = {name: value + alpha(theta, name, config) * slopes[name] for name, value in phi.net.items()}
    return Phi(adapted, delta_AC, dreams(theta, attempts_left, config))


def situations(walk: Walk, attempts: int) -> tuple[Indices, Indices]:
    """Numbers each step's situation [N], and returns a step of each situation [S], in the order they were met."""
    steps = np.arange(len(walk.at_N))
    if attempts == 1:
        return steps, steps  # one robot hardly ever comes into the same situation twice
    code_N = walk.at_N * (int(walk.seen_N.max()) + 1) + walk.seen_N
    for part_N, parts in ((walk.known_N, 1 << A), (walk.hope_N, 1 << A), (walk.gain_N, GAINS)):
        code_N = code_N * parts + part_N
    if machine := compiled("credit"):
        return machine.numbered(code_N)  # type: ignore[no-any-return]
    _, first, inverse = np.unique(code_N, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return rank[inverse], first[order]


def chosen(log_prob_AS: Array, made: Made) -> Array:
    """Returns the log-probabilities of the moves that were made [N]."""
    return take(log_prob_AS.reshape(1, -1), made.pair_N)[0]


def gathered(value_N: Array, made: Made) -> Array:
    """Adds up, for each move in each situation [A, S], the values of all steps at which it was made there."""
    return sum_by(value_N[None], made.pair_N, A * len(made.at_S)).reshape(A, -1)


def _slopes(net: policy.Net, slope_AU: Array, scene: Scene) -> policy.Net:
    """Computes the gradient of each maze's own network, given the gradient of its scores."""
    assert scene.member_UM is not None
    mazes = scene.member_UM.shape[1]
    hidden_UAH = policy.hidden(net, scene)
    score_UA1 = slope_AU.T[:, :, None]
    back_UAH = score_UA1 * policy.spread(net["out"], scene) * (hidden_UAH > 0)
    each = {
        "in": product(scene.x_UAF.swapaxes(1, 2), back_UAH),
        "bias": back_UAH.sum(1),
        "out": (score_UA1 * hidden_UAH).sum(1),
    }
    return {
        name: product(scene.member_UM.T, value.reshape(len(value), -1)).reshape(mazes, *value.shape[1:])
        for name, value in each.items()
    }


def log_likelihood(credit_N: Array, log_prob_AS: Array, made: Made) -> Array:
    """Weighs as MAML is implemented: w = credit. Its gradient is right; its Hessian lacks the score terms."""
    return gathered(credit_N, made)


def low_variance_curvature(credit_N: Array, log_prob_AS: Array, made: Made) -> Array:
    """Weighs as LVC: w = credit * pi / stop(pi). Its Hessian lacks the terms across different steps of an attempt."""
    credit_AS = gathered(credit_N, made)
    return credit_AS * exp(log_prob_AS - fixed(log_prob_AS)) if is_torch(log_prob_AS) else credit_AS


def dice(credit_N: Array, log_prob_AS: Array, made: Made) -> Array:
    """Weighs as Loaded DiCE, which is unbiased at every order.

    w_t = sum_{u >= t} credit_u box(l_<=u) - sum_{u > t} credit_u box(l_<u), where box(x) = exp(x - stop(x)), and
    l_<=u is the attempt's log-likelihood up to step u.
    """
    if not is_torch(log_prob_AS):
        return gathered(credit_N, made)
    taken_N = chosen(log_prob_AS, made)
    attempts, horizon = int(made.attempt_N.max()) + 1, int(made.time_N.max()) + 1

    def padded(value_N: Array) -> Array:
        return value_N.new_zeros(attempts, horizon).index_put((made.attempt_N, made.time_N), value_N)

    upto_WT = padded(taken_N).cumsum(1)
    before_WT = upto_WT - padded(taken_N)
    credit_WT = padded(credit_N)
    with_WT, without_WT = credit_WT * exp(upto_WT - fixed(upto_WT)), credit_WT * exp(before_WT - fixed(before_WT))
    later_WT = (with_WT - without_WT).flip(1).cumsum(1).flip(1) + without_WT
    return gathered(later_WT[made.attempt_N, made.time_N], made)


WEIGHTS = {
    "first-order": log_likelihood,
    "maml": log_likelihood,
    "lvc": low_variance_curvature,
    "dice": dice,
}

"""The inner step and its derivative against the exact mathematics of a maze, for a robot without memory.

What each estimator must converge to stands in tests.parts.oracle.
"""

# M mazes, all copies of one, E attempts, S states, A moves, C cells of all, P parameters of a policy, Q of its network

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.outer import meta_gradient
from learner.stages import Batch
from protocol.config import Config
from protocol.learning.arrays import take
from protocol.learning.credit import Steps, hindsight, horizons
from protocol.learning.inner import Made, adapt
from protocol.learning.play import Scores, keys, play
from protocol.learning.policy import Net, Phi, Scene, log_prob, scores
from protocol.world.maze import Mazes
from protocol.world.memory import Known
from protocol.world.senses import Observations, Sight
from protocol.world.walk import learned
from tests.parts import batches
from tests.parts.batches import CPU, tried, with_more
from tests.parts.oracle import ExactMaze, cosine, slope
from tests.parts.stepwise import Estimator

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
TWO_WAYS = "S..\n.#.\n.#E\n..."  # no held-out maze, which nobody may train on
TRAP = "S..H\n.#..\n..E."
MOST_WALKERS, MOST_COPIES = 4000, 100  # at once


def make_config(estimator: Estimator = "dice", mazes: int = 1, **sections: dict[str, Any]) -> Config:
    """Long inner steps, so that what an estimator drops can be seen."""
    step_size = {1: 4.0, 2: 2.0, 3: 2.0}[sections.get("inner", {}).get("steps", 1)]
    base: dict[str, dict[str, Any]] = {
        "policy": {"hidden": 4, "memory": "none", "dreams": False},
        "inner": {
            "rule": "sgd",
            "estimator": estimator,
            "credit": "policy-gradient",
            "step_size": step_size,
            "cell_step_size": step_size,
        },
        "run": {"horizon_per_cell": 2.0, "discount": 0.95},
    }
    return batches.make_config(mazes, **with_more(base, sections))


def random_vector(count: int, seed: int = 0, scale: float = 0.7) -> Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(exact: ExactMaze) -> Tensor:
    """[Q] the network of some policy that finds the exit now and then."""
    return random_vector(exact.net_size).requires_grad_()


def bent(exact: ExactMaze) -> Tensor:
    """[P] a policy whose fast weights have something to say, too."""
    return random_vector(len(exact.step_size_P)).requires_grad_()


class Copies:
    """Many adaptations to copies of one maze, each with a network and attempts of its own."""

    def __init__(self, text: str, config: Config, copies: int, attempts: int, seed: int) -> None:
        self.config, self.copies, self.attempts = config, copies, attempts
        self.exact, self.mazes = ExactMaze(text, config), Mazes.concatenate([Mazes.from_text(text)] * copies)
        self.sight, self.rng = Sight.of(self.mazes, config.policy), np.random.default_rng(seed)

    def phi(self, phi_MP: Tensor) -> Phi:
        """The policies [M, P] as adaptation has them."""
        named = self.exact.named(phi_MP)
        delta_AC = named.pop("delta").transpose(0, 1).flatten(1)
        return Phi(named, delta_AC, torch.zeros(2, 34, dtype=torch.float64))

    def flat(self, phi: Phi) -> Tensor:
        """[M, P]"""
        net = [value.flatten(1) for value in phi.net.values()]
        return torch.cat([*net, phi.delta_AC.unflatten(1, (self.copies, -1)).transpose(0, 1).flatten(1)], dim=1)

    def attempt(self, phi: Phi) -> tuple[Made, Scene]:
        """What robots with these policies do, and what they see."""
        net: Net = {name: value.detach().float().numpy() for name, value in phi.net.items()}
        drawn = Phi(net, phi.delta_AC.detach().float().numpy(), np.zeros((2, 34), np.float32))
        met, known = Observations(self.sight, by_maze=True), Known.nothing(self.mazes.cells)
        horizon_M = horizons(self.mazes, self.config)
        asked = Scores(net, met, self.config.model_copy(update={"inner": ALL}))
        done = play(drawn, asked, met, known, horizon_M, keys(self.copies * self.attempts, self.rng))
        steps = Steps.of(done, self.mazes, horizon_M)
        known_JN = hindsight(steps, learned(self.sight, known, done).way_C, 0, self.config)
        index = (done.at_N, done.seen_N, done.move_N, steps.attempt_N, steps.time_N)
        at_N, seen_N, move_N, attempt_N, time_N = (torch.from_numpy(array.astype(np.int64)) for array in index)
        pair_N = move_N * len(at_N) + torch.arange(len(at_N))
        made = Made(self.attempts, at_N, seen_N, pair_N, attempt_N, time_N, torch.from_numpy(known_JN).double())
        real = torch.zeros((), dtype=torch.float64)
        return made, Scene.of(met.features(), self.config, real, met.mazes(), self.copies)

    def adapted(self, phi: Phi, made: Made, scene: Scene, config: Config) -> Phi:
        """f(phi, what was done)"""
        nothing = torch.zeros(len(made.at_S), dtype=torch.int64)
        score_AN, delta_AN = take(scores(phi.net, scene), made.seen_S), take(phi.delta_AC, made.at_S)
        log_prob_AN = log_prob(score_AN, delta_AN, phi.dream_DG, nothing, nothing, nothing)
        theta = {"policy.in": torch.zeros((), dtype=torch.float64)}
        return adapt(phi, theta, log_prob_AN, made, scene, 0, config)


ALL = Config.model_validate({"inner": {"adapts": "all"}}).inner


def sampled(
    text: str,
    phi_P: Tensor,
    configs: Sequence[Config],
    *,
    copies: int,
    attempts: int,
    seed: int = 0,
    worth: Callable[[ExactMaze, Tensor], Tensor],
) -> list[Tensor]:
    """For each config [copies, P] the derivative by phi_0 of what phi_K is worth: [M] of [M, P].

    The configs differ in their estimator alone, so phi_K is the same for all, and one set of attempts does.
    """
    slopes: list[list[Tensor]] = [[] for _ in configs]
    at_once = max(1, min(MOST_COPIES, MOST_WALKERS // attempts))
    for part in range(0, copies, at_once):
        group = Copies(text, configs[0], min(at_once, copies - part), attempts, seed + part)
        first_MP = phi_P.detach().expand(group.copies, -1).clone().requires_grad_()
        each = [group.phi(first_MP) for _ in configs]
        for _ in range(configs[0].inner.steps):
            made, scene = group.attempt(each[0])
            each = [group.adapted(phi, made, scene, config) for phi, config in zip(each, configs, strict=True)]
        for own, phi in zip(slopes, each, strict=True):
            own.append(slope(worth(group.exact, group.flat(phi)).sum(), first_MP, graph=False))
    return [torch.cat(own) for own in slopes]


def sampled_meta_gradients(
    text: str, configs: Sequence[Config], *, copies: int = 1, attempts: int, seed: int = 0
) -> list[Tensor]:
    """[copies, Q] grad J(phi_K), which is taken exactly, through Jacobians of the inner steps, which are estimated."""
    exact = ExactMaze(text, configs[0])
    first_P, rest = exact.unadapted(start(exact)), {"copies": copies, "attempts": attempts, "seed": seed}
    found = sampled(text, first_P, configs, worth=lambda maze, phi_MP: maze.value(phi_MP), **rest)
    return [each_MP[:, : exact.net_size] for each_MP in found]


# The oracle itself


def test_with_a_long_horizon_repeated_products_and_a_linear_solve_agree() -> None:
    exact = ExactMaze(TWO_WAYS, make_config(run={"horizon_per_cell": 100.0, "discount": 0.95}))
    phi_P = bent(exact)
    by_products, by_solving = exact.value(phi_P), exact.value_without_horizon(phi_P)
    torch.testing.assert_close(by_products, by_solving, rtol=1e-10, atol=0)
    torch.testing.assert_close(slope(by_products, phi_P), slope(by_solving, phi_P), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("text", "radius"), [(TWO_WAYS, 1), (TRAP, 0)])
def test_the_exact_value_is_the_mean_return_of_many_attempts(text: str, radius: int) -> None:
    config = make_config(policy={"radius": radius})
    group = Copies(text, config, copies=1, attempts=60_000, seed=0)
    phi_P = bent(group.exact)
    made, _ = group.attempt(group.phi(phi_P.detach()[None]))
    length_W = torch.bincount(made.attempt_N)
    found_W = torch.zeros(len(length_W), dtype=torch.float64).index_add(0, made.attempt_N, made.known_JN[2]) > 0
    return_W = found_W * config.run.discount ** (length_W - 1)
    assert 0 < found_W.double().mean() < 1
    error = return_W.std() / math.sqrt(len(return_W))
    assert abs(return_W.mean() - exact_value(group.exact, phi_P)) < 4 * error


def exact_value(exact: ExactMaze, phi_P: Tensor) -> float:
    return exact.value(phi_P.detach()).item()


def central_difference(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> float:
    width = 1e-5
    with torch.no_grad():
        ahead, behind = at + width * along, at - width * along
    return float((function(ahead) - function(behind)).detach()) / (2 * width)


@pytest.mark.parametrize("adapts", ["cells", "all"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_exact_meta_gradient_matches_finite_differences(steps: int, adapts: str) -> None:
    exact = ExactMaze(TWO_WAYS, make_config(inner={"steps": steps, "adapts": adapts}))
    net_Q = start(exact)
    gradient_Q = exact.meta_gradient(net_Q, steps=steps)

    def objective(at: Tensor) -> Tensor:
        return exact.value(exact.adapted(exact.unadapted(at.requires_grad_()), "dice", steps))

    for seed in range(3):
        along_Q = random_vector(len(net_Q), seed, scale=1.0)
        difference = central_difference(objective, net_Q.detach(), along_Q)
        assert difference == pytest.approx(float(gradient_Q @ along_Q), rel=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_expected_surrogate_has_the_policy_gradient_for_its_slope(estimator: Estimator) -> None:
    exact = ExactMaze(TWO_WAYS, make_config())
    phi_P = bent(exact)
    for baseline in (None, 0.0, 0.3):
        slope_P = slope(exact.surrogate(phi_P, estimator, baseline), phi_P)
        torch.testing.assert_close(slope_P, exact.gradient(phi_P), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("estimator", ["maml", "lvc"])
def test_a_baseline_matters_to_the_expected_curvature_of_maml_alone(estimator: Estimator) -> None:
    exact = ExactMaze(TWO_WAYS, make_config())
    phi_P = bent(exact)
    along_P = random_vector(len(phi_P), seed=1)
    curved = []
    for baseline in (0.0, 0.3):
        slope_P = slope(exact.surrogate(phi_P, estimator, baseline), phi_P, graph=True)
        curved.append(slope(slope_P @ along_P, phi_P))
    times_SA, _ = exact.occupancy(phi_P)
    # Of maml's E[(R - b) sum_t d2 log pi], b adds b * Fisher: the occupancy-weighted sum of -d2 log pi.
    log_slope_P = slope((times_SA * exact.log_policy(phi_P)).sum(), phi_P, graph=True)
    fisher_P = -slope(log_slope_P @ along_P, phi_P)
    assert fisher_P.norm() > 1
    expected = 0.3 * fisher_P if estimator == "maml" else torch.zeros_like(fisher_P)
    torch.testing.assert_close(curved[1] - curved[0], expected, rtol=1e-9, atol=1e-12)


# The inner step


@pytest.mark.parametrize("adapts", ["cells", "all"])
def test_an_inner_step_leads_along_the_policy_gradient_on_average(adapts: str) -> None:
    config = make_config(inner={"adapts": adapts})
    group = Copies(TRAP, config, copies=40, attempts=500, seed=0)
    phi_P = bent(group.exact)
    phi = group.phi(phi_P.detach().expand(40, -1))
    step_MP = group.flat(group.adapted(phi, *group.attempt(phi), config)) - phi_P.detach()
    expected_P = group.exact.step_size_P * group.exact.gradient(phi_P)
    assert bool(expected_P[: group.exact.net_size].any()) == (adapts == "all")
    error_P = step_MP.std(0) / math.sqrt(len(step_MP))
    assert cosine(step_MP.mean(0), expected_P) > 0.99
    assert ((step_MP.mean(0) - expected_P).abs() <= 5 * error_P + 1e-6).all()


@pytest.mark.parametrize("attempts", [1, 2])
def test_the_derivative_of_one_step_has_its_expectation_at_any_number_of_attempts(attempts: int) -> None:
    """One attempt has no baseline, two have each other's return; only to maml is that not the same."""
    named: tuple[Estimator, ...] = ("maml", "lvc", "dice")
    configs = [make_config(estimator, inner={"adapts": "all"}) for estimator in named]
    exact = ExactMaze(TWO_WAYS, configs[0])
    phi_P, along_P = bent(exact), random_vector(len(exact.step_size_P), seed=1)

    def expected(estimator: Estimator, baseline: float | None) -> Tensor:
        slope_P = slope(exact.surrogate(phi_P, estimator, baseline), phi_P, graph=True)
        return slope(slope_P @ (exact.step_size_P * along_P), phi_P)

    found = sampled(TWO_WAYS, phi_P, configs, copies=2_000, attempts=attempts, worth=lambda _, phi_MP: phi_MP @ along_P)
    for estimator, each_MP in zip(named, found, strict=True):
        mean_P = (each_MP - along_P).mean(0)
        own, other = (expected(estimator, baseline) for baseline in ((0.0, None) if attempts == 1 else (None, 0.0)))
        print(f"\n{estimator}, E={attempts}: cosine {cosine(mean_P, own):.3f}")
        assert cosine(mean_P, own) > 0.98, estimator
        if estimator == "maml":
            assert (mean_P - own).norm() < 0.5 * (mean_P - other).norm()


# Convergence


@pytest.mark.parametrize(("steps", "adapts"), [(1, "cells"), (1, "all"), (3, "cells")])
def test_each_estimator_converges_to_its_limit_and_dice_alone_to_the_exact_meta_gradient(
    steps: int, adapts: str
) -> None:
    configs = [make_config(estimator, inner={"steps": steps, "adapts": adapts}) for estimator in ESTIMATORS]
    exact = ExactMaze(TWO_WAYS, configs[0])
    truth_Q = exact.meta_gradient(start(exact), steps=steps)
    found = sampled_meta_gradients(TWO_WAYS, configs, attempts=30_000)
    for estimator, (found_Q,) in zip(ESTIMATORS, found, strict=True):
        limit_Q = exact.meta_gradient(start(exact), estimator, steps=steps)
        to_limit, to_truth = cosine(found_Q, limit_Q), cosine(found_Q, truth_Q)
        print(f"\n{adapts}, {estimator}, K={steps}: cosine {to_limit:.5f} to its limit, {to_truth:.5f} to the exact")
        assert to_limit >= 0.95
        assert float(found_Q.norm() / limit_Q.norm()) == pytest.approx(1, abs=0.15)
        if estimator != "dice":
            assert (found_Q - limit_Q).norm() < 0.5 * (found_Q - truth_Q).norm()


@pytest.mark.parametrize("first_weight", [0.0, 1.0])
def test_the_learners_meta_gradient_reaches_the_exact_one(first_weight: float) -> None:
    """Undiscounted and with lambda = 1, where the outer surrogate is the gradient of J and nothing else."""
    inner = {"attempts": 500, "cell_step_size": 2.0}
    outer = {"attempts": 500, "objective": "policy-gradient", "gae_lambda": 1.0, "first_weight": first_weight}
    config = make_config("dice", mazes=40, inner=inner, outer=outer, run={"discount": 1.0})
    exact = ExactMaze(TWO_WAYS, config)
    net_Q = start(exact)
    theta_P = net_Q.detach().float()
    replay = tried(theta_P.numpy(), Mazes.concatenate([Mazes.from_text(TWO_WAYS)] * 40), config)
    found_Q = meta_gradient(theta_P, Batch.of([replay], config, CPU), config).vector.double()
    truth_Q = exact.meta_gradient(net_Q, steps=1) + first_weight * slope(exact.value(exact.unadapted(net_Q)), net_Q)
    print(f"\nlearner, first_weight={first_weight}: cosine similarity {cosine(found_Q, truth_Q):.5f}")
    assert cosine(found_Q, truth_Q) >= 0.99
    assert float(found_Q.norm() / truth_Q.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.soak
def test_bias_and_variance_of_the_four_estimators(tmp_path: Path) -> None:
    """Prints the README's table (pytest -s); claims of it only what theory says of any maze.

    All relative to the exact meta-gradient g: bias |E[est] - g| / |g|, what it becomes with infinitely many attempts,
    and the standard deviation sqrt(E|est - E[est]|^2) / |g|; the median cosine similarity of one estimate and g.
    """
    rows = ["estimator    K  attempts   bias  in the limit  deviation  cosine"]
    bias: dict[tuple[str, int, int], float] = {}
    deviation: dict[tuple[str, int, int], float] = {}
    for steps in (1, 3):
        configs = [make_config(estimator, inner={"steps": steps}) for estimator in ESTIMATORS]
        exact = ExactMaze(TWO_WAYS, configs[0])
        truth_Q = exact.meta_gradient(start(exact), steps=steps)
        size = float(truth_Q.norm())
        found = {
            attempts: sampled_meta_gradients(TWO_WAYS, configs, copies=copies, attempts=attempts, seed=1)
            for attempts, copies in ((20, 1000), (1000, 60))
        }
        for (row, estimator), (attempts, each) in product(enumerate(ESTIMATORS), found.items()):
            limit = float((exact.meta_gradient(start(exact), estimator, steps=steps) - truth_Q).norm()) / size
            each_MQ = each[row]
            variance = float(each_MQ.var(0).sum())
            squared = float((each_MQ.mean(0) - truth_Q).square().sum()) - variance / len(each_MQ)
            key = (estimator, attempts, steps)
            bias[key], deviation[key] = math.sqrt(max(squared, 0.0)) / size, math.sqrt(variance) / size
            alone = float(torch.nn.functional.cosine_similarity(each_MQ, truth_Q[None]).median())
            figures = f"{bias[key]:6.2f} {limit:13.2f} {deviation[key]:10.2f} {alone:7.2f}"
            rows.append(f"{estimator:12} {steps} {attempts:9,} {figures}")
    table = "\n".join(rows)
    (tmp_path / "estimators.txt").write_text(table + "\n")
    print(f"\n{table}")

    biased: tuple[Estimator, ...] = ("first-order", "maml", "lvc")
    for steps in (1, 3):
        assert all(bias["dice", 1000, steps] < 0.3 * bias[other, 1000, steps] for other in biased)
        assert deviation["dice", 1000, steps] > deviation["lvc", 1000, steps]
        assert all(deviation[name, 1000, steps] < deviation[name, 20, steps] for name in ESTIMATORS)

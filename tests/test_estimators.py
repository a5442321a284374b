"""The inner step and its derivative: against one step at a time, against finite differences, against the oracle.

What each estimator must converge to stands in tests.oracle.
"""

# M mazes, here often copies of one, E attempts, S states, A moves, P parameters, K inner steps

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.rollout import attempt_and_adapt, roll_out
from learner.outer import Batch, meta_gradient
from protocol.config import Config
from protocol.learning import policy
from protocol.learning.credit import Steps, advantage
from protocol.learning.inner import Theta, adapt, by_pair, initial_policy, initial_theta, shapes, unflatten
from protocol.learning.policy import Params, Scene, log_policy
from protocol.wire.messages import Attempts
from protocol.world.maze import Mazes
from protocol.world.states import StateTable
from tests import stepwise
from tests.oracle import Drawing, Estimator, ExactMaze, State, cosine, slope

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
TWO_WAYS = "S...#\n.##.#\n..E.#\n#####\n#####"
FORK = "S.#E#\n#...#\n#.#.#\n#...#\n#####"
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These tables are small: a second thread makes them several times as slow."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make_config(estimator: Estimator = "dice", **sections: dict[str, Any]) -> Config:
    """Long inner steps, so that what an estimator drops can be seen."""
    steps = sections.get("inner", {}).get("steps", 1)
    step_size = {1: 4.0, 2: 2.0, 3: 2.0}[steps]
    base: dict[str, dict[str, Any]] = {
        "maze": {"side": 5},
        "policy": {"hidden": 4},
        "inner": {
            "rule": "sgd",
            "estimator": estimator,
            "credit": "policy-gradient",
            "step_size": step_size,
            "cell_step_size": step_size,
        },
        "run": {"horizon": 25, "discount": 0.95},
    }
    return Config.model_validate(
        {name: base.get(name, {}) | sections.get(name, {}) for name in base | sections}
    )


def random_vector(count: int, seed: int = 0, scale: float = 0.7) -> Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def start(exact: ExactMaze) -> Tensor:
    """phi_0: some policy that finds the exit now and then."""
    return random_vector(len(exact.step_size_P)).requires_grad_()


def flatten(phi: Params) -> Tensor:
    """[M, P]"""
    return torch.cat([value.flatten(1) for value in phi.values()], dim=1)


def scene_of(text: str, copies: int, config: Config) -> tuple[StateTable, Scene]:
    table = StateTable.of(Mazes.concatenate([Mazes.from_text(text)] * copies), config.policy.radius)
    return table, Scene.of(table, CPU, torch.float64)


def sampled_adaptation(
    text: str, phi_P: Tensor, config: Config, *, copies: int, attempts: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """phi_0 and phi_K [copies, P] of as many adaptations to the same maze, each from attempts of its own."""
    table, scene = scene_of(text, copies, config)
    first_MP = phi_P.detach().expand(copies, -1).clone().requires_grad_()
    phi, rng = ExactMaze(text, config).named(first_MP), np.random.default_rng(seed)
    for _ in range(config.inner.steps):
        log_prob = log_policy(phi, scene)
        made = roll_out(log_prob.detach().float().numpy(), table, attempts, config.run.horizon, rng)
        steps = Steps.of(made, scene, config.run.discount)
        phi = adapt(phi, {}, log_prob, steps, scene, config, graph=True)
    return first_MP, flatten(phi)


def sampled_meta_gradient(
    text: str, config: Config, *, copies: int = 1, attempts: int, seed: int = 0
) -> Tensor:
    """[copies, P] grad J(phi_K), which is taken exactly, through Jacobians of the inner steps, which are estimated."""
    exact = ExactMaze(text, config)
    first_MP, last_MP = sampled_adaptation(
        text, start(exact), config, copies=copies, attempts=attempts, seed=seed
    )
    return slope(exact.value(last_MP).sum(), first_MP)


# The oracle itself


def test_with_a_long_horizon_repeated_products_and_a_linear_solve_agree() -> None:
    exact = ExactMaze(TWO_WAYS, make_config(run={"horizon": 3000, "discount": 0.95}))
    phi_P = start(exact)
    by_products, by_solving = exact.value(phi_P), exact.value_without_horizon(phi_P)
    torch.testing.assert_close(by_products, by_solving, rtol=1e-10, atol=0)
    torch.testing.assert_close(slope(by_products, phi_P), slope(by_solving, phi_P), rtol=1e-8, atol=1e-12)


def test_the_exact_value_is_the_mean_return_of_many_attempts() -> None:
    config = make_config()
    exact = ExactMaze(FORK, config)
    table, scene = scene_of(FORK, 1, config)
    log_prob = log_policy(exact.named(start(exact).detach()[None]), scene)
    torch.testing.assert_close(log_prob[0], exact.log_policy(start(exact).detach()))
    rng = np.random.default_rng(0)
    made = roll_out(log_prob.float().numpy(), table, 100_000, config.run.horizon, rng)
    returns = Steps.of(made, scene, config.run.discount).return_ME
    error = returns.std() / math.sqrt(len(returns))
    assert abs(returns.mean() - exact.value(start(exact))) < 4 * error


def central_difference(function: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> float:
    width = 1e-5
    with torch.no_grad():
        ahead, behind = at + width * along, at - width * along
    return float((function(ahead) - function(behind)).detach()) / (2 * width)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_exact_meta_gradient_matches_finite_differences(steps: int) -> None:
    exact = ExactMaze(TWO_WAYS, make_config(inner={"steps": steps}))
    phi_P = start(exact)
    gradient_P = exact.meta_gradient(phi_P, steps=steps)

    def objective(at: Tensor) -> Tensor:
        return exact.value(exact.adapted(at.requires_grad_(), "dice", steps))

    for seed in range(3):
        along_P = random_vector(len(phi_P), seed, scale=1.0)
        difference = central_difference(objective, phi_P.detach(), along_P)
        assert difference == pytest.approx(float(gradient_P @ along_P), rel=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_expected_surrogate_has_the_policy_gradient_for_its_slope(estimator: Estimator) -> None:
    exact = ExactMaze(TWO_WAYS, make_config())
    phi_P = start(exact)
    for baseline in (None, 0.0, 0.3):
        slope_P = slope(exact.surrogate(phi_P, estimator, baseline), phi_P)
        torch.testing.assert_close(slope_P, exact.gradient(phi_P), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("estimator", ["maml", "lvc"])
def test_a_baseline_matters_to_the_expected_curvature_of_maml_alone(estimator: Estimator) -> None:
    exact = ExactMaze(TWO_WAYS, make_config())
    phi_P = start(exact)
    along_P = random_vector(len(phi_P), seed=1)
    bent = []
    for baseline in (0.0, 0.3):
        slope_P = slope(exact.surrogate(phi_P, estimator, baseline), phi_P, graph=True)
        bent.append(slope(slope_P @ along_P, phi_P))
    times_SA, _ = exact.occupancy(phi_P)
    # Of maml's E[(R - b) sum_t d2 log pi], b adds b * Fisher: the occupancy-weighted sum of -d2 log pi.
    log_slope_P = slope((times_SA * exact.log_policy(phi_P)).sum(), phi_P, graph=True)
    fisher_P = -slope(log_slope_P @ along_P, phi_P)
    assert fisher_P.norm() > 1
    expected = 0.3 * fisher_P if estimator == "maml" else torch.zeros_like(fisher_P)
    torch.testing.assert_close(bent[1] - bent[0], expected, rtol=1e-9, atol=1e-12)


# The table form


@pytest.mark.parametrize(
    ("rule", "credit"),
    [("sgd", "policy-gradient"), ("meta-sgd", "cell-advantage"), ("learned", "cell-advantage")],
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_table_form_has_the_inner_and_outer_gradient_of_one_step_at_a_time(
    estimator: Estimator, rule: str, credit: str
) -> None:
    texts = [TWO_WAYS, FORK]
    inner = {"rule": rule, "credit": credit, "steps": 2, "step_size": 0.5, "cell_step_size": 1.0}
    config = make_config(estimator, inner=inner, run={"horizon": 12})
    table = StateTable.of(Mazes.from_text("\n\n".join(texts)), config.policy.radius)
    scene, rng = Scene.of(table, CPU, torch.float64), np.random.default_rng(0)
    size = sum(math.prod(shape) for shape in shapes(config).values())
    theta_P = torch.from_numpy(initial_theta(config)) + random_vector(size, scale=0.2)
    theta_P.requires_grad_()

    theta = unflatten(theta_P, config)
    phi, made = initial_policy(theta, len(texts)), []
    for _ in range(config.inner.steps):
        log_prob = log_policy(phi, scene)
        made.append(roll_out(log_prob.detach().float().numpy(), table, 3, config.run.horizon, rng))
        steps = Steps.of(made[-1], scene, config.run.discount)
        phi = adapt(phi, theta, log_prob, steps, scene, config, graph=True)
    by_table_MP = flatten(phi)

    plain = []
    for maze, text in enumerate(texts):
        own: Params = {name: theta[f"policy.{name}"] for name in policy.shapes(config)}
        for stage in made:
            attempts = stepwise.attempts_at(Drawing(text), stage, maze)
            own = stepwise.adapt(own, theta, Drawing(text), attempts, config)
        plain.append(torch.cat([value.flatten() for value in own.values()]))
    by_steps_MP = torch.stack(plain)

    assert (by_table_MP[0] - by_table_MP[1]).abs().max() > 1e-3
    torch.testing.assert_close(by_table_MP, by_steps_MP, rtol=1e-10, atol=1e-12)
    outer = [
        slope(
            sum((ExactMaze(t, config).value(p) for t, p in zip(texts, each, strict=True)), torch.zeros(())),
            theta_P,
        )
        for each in (by_table_MP, by_steps_MP)
    ]
    assert outer[1].norm() > 1e-6
    torch.testing.assert_close(outer[0], outer[1], rtol=1e-9, atol=1e-12 * float(outer[1].norm() + 1))


# Finite differences of an adaptation to fixed attempts


def fixed_adaptation(config: Config, theta_P: Tensor) -> Callable[[Tensor], Tensor]:
    """theta -> J(phi_K) for the attempts that were made under `theta_P`."""
    table, scene = scene_of(TWO_WAYS, 1, config)
    exact, rng, made = ExactMaze(TWO_WAYS, config), np.random.default_rng(0), list[Steps]()

    def objective(at_P: Tensor) -> Tensor:
        theta: Theta = unflatten(at_P.requires_grad_(), config)
        phi = initial_policy(theta, 1)
        for step in range(config.inner.steps):
            log_prob = log_policy(phi, scene)
            if step == len(made):
                attempts: Attempts = roll_out(
                    log_prob.detach().float().numpy(), table, 8, config.run.horizon, rng
                )
                made.append(Steps.of(attempts, scene, config.run.discount))
            phi = adapt(phi, theta, log_prob, made[step], scene, config, graph=True)
        return exact.value(flatten(phi))[0]

    objective(theta_P.detach().clone())
    return objective


def some_theta(config: Config) -> Tensor:
    size = sum(math.prod(shape) for shape in shapes(config).values())
    return torch.from_numpy(initial_theta(config)) + random_vector(size, seed=3, scale=0.3)


@pytest.mark.parametrize("rule", ["sgd", "meta-sgd", "learned"])
def test_maml_is_the_derivative_of_two_steps_of_adaptation_to_fixed_attempts(rule: str) -> None:
    inner = {"rule": rule, "steps": 2, "step_size": 0.5, "cell_step_size": 0.5}
    config = make_config("maml", inner=inner)
    theta_P = some_theta(config)
    objective = fixed_adaptation(config, theta_P)
    gradient_P = slope(objective(theta_P), theta_P)
    for group in {name.partition(".")[0] for name in shapes(config)}:
        own = {
            name: torch.full(shape, float(name.startswith(group))) for name, shape in shapes(config).items()
        }
        along_P = random_vector(len(theta_P), scale=1.0) * torch.cat(
            [part.flatten() for part in own.values()]
        )
        expected = central_difference(objective, theta_P.detach(), along_P)
        assert abs(expected) > 1e-6
        assert float(gradient_P @ along_P) == pytest.approx(expected, rel=1e-4), group


@pytest.mark.parametrize("rule", ["meta-sgd", "learned"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_rules_own_parameters_have_the_derivative_of_one_step_whatever_the_estimator(
    estimator: Estimator, rule: str
) -> None:
    config = make_config(estimator, inner={"rule": rule, "step_size": 0.5, "cell_step_size": 0.5})
    theta_P = some_theta(config)
    objective = fixed_adaptation(config, theta_P)
    gradient_P = slope(objective(theta_P), theta_P)
    own = {name: torch.full(shape, float(name[:6] != "policy")) for name, shape in shapes(config).items()}
    along_P = random_vector(len(theta_P), scale=1.0) * torch.cat([part.flatten() for part in own.values()])
    expected = central_difference(objective, theta_P.detach(), along_P)
    assert abs(expected) > 1e-6
    assert float(gradient_P @ along_P) == pytest.approx(expected, rel=1e-4)


def test_lvc_is_the_derivative_of_a_step_along_the_ratio_whose_denominator_is_held() -> None:
    config = make_config("lvc")
    table, scene = scene_of(TWO_WAYS, 1, config)
    exact = ExactMaze(TWO_WAYS, config)
    phi_P = start(exact)
    held = log_policy(exact.named(phi_P.detach()[None]), scene)
    made = roll_out(held.float().numpy(), table, 8, config.run.horizon, np.random.default_rng(0))
    steps = Steps.of(made, scene, config.run.discount)
    credit_SA = by_pair(advantage(steps, scene, config), steps, held)

    def objective(at_P: Tensor) -> Tensor:
        at_MP = at_P[None].requires_grad_()
        ratio = torch.exp(log_policy(exact.named(at_MP), scene) - held)
        slope_MP = slope((credit_SA * ratio).sum() / steps.attempts, at_MP)
        return exact.value((at_MP + exact.step_size_P * slope_MP).detach())[0]

    phi = exact.named(phi_P[None])
    adapted = adapt(phi, {}, log_policy(phi, scene), steps, scene, config, graph=True)
    gradient_P = slope(exact.value(flatten(adapted))[0], phi_P)
    for seed in range(3):
        along_P = random_vector(len(phi_P), seed, scale=1.0)
        expected = central_difference(objective, phi_P.detach(), along_P)
        assert float(gradient_P @ along_P) == pytest.approx(expected, rel=1e-4)


# Convergence


@pytest.mark.parametrize(("steps", "wanted"), [(1, 0.99), (3, 0.95)])
def test_dice_reaches_the_exact_meta_gradient(steps: int, wanted: float) -> None:
    config = make_config("dice", inner={"steps": steps})
    exact = ExactMaze(TWO_WAYS, config)
    truth_P = exact.meta_gradient(start(exact), steps=steps)
    (found_P,) = sampled_meta_gradient(TWO_WAYS, config, attempts=100_000)
    print(f"\ndice, K={steps}: cosine similarity {cosine(found_P, truth_P):.5f} at 100,000 attempts")
    assert cosine(found_P, truth_P) >= wanted
    assert float(found_P.norm() / truth_P.norm()) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("estimator", ["first-order", "maml", "lvc"])
def test_an_estimator_converges_to_its_own_limit_and_not_to_the_exact_meta_gradient(
    estimator: Estimator, steps: int
) -> None:
    config = make_config(estimator, inner={"steps": steps})
    exact = ExactMaze(TWO_WAYS, config)
    truth_P = exact.meta_gradient(start(exact), steps=steps)
    limit_P = exact.meta_gradient(start(exact), estimator, steps=steps)
    (found_P,) = sampled_meta_gradient(TWO_WAYS, config, attempts=100_000)
    to_limit, to_truth = cosine(found_P, limit_P), cosine(found_P, truth_P)
    print(
        f"\n{estimator}, K={steps}: cosine similarity {to_limit:.5f} to its limit, {to_truth:.5f} to the exact"
    )
    assert to_limit >= 0.99
    assert to_limit > to_truth
    assert (found_P - limit_P).norm() < 0.25 * (found_P - truth_P).norm()


@pytest.mark.parametrize("attempts", [1, 2])
@pytest.mark.parametrize("estimator", ["maml", "lvc", "dice"])
def test_the_derivative_of_one_step_has_its_expectation_at_any_number_of_attempts(
    estimator: Estimator, attempts: int
) -> None:
    """One attempt has no baseline, two have each other's return; only to maml is that not the same."""
    config = make_config(estimator)
    exact = ExactMaze(TWO_WAYS, config)
    phi_P, along_P = start(exact), random_vector(len(exact.step_size_P), seed=1)

    def expected(baseline: float | None) -> Tensor:
        slope_P = slope(exact.surrogate(phi_P, estimator, baseline), phi_P, graph=True)
        return slope(slope_P @ (exact.step_size_P * along_P), phi_P)

    first_MP, last_MP = sampled_adaptation(TWO_WAYS, phi_P, config, copies=20_000, attempts=attempts)
    each_MP = slope((last_MP * along_P).sum(), first_MP) - along_P
    alone = attempts == 1
    assert cosine(each_MP.mean(0), expected(0.0 if alone else None)) > 0.97
    if estimator == "maml":
        assert cosine(each_MP.mean(0), expected(None if alone else 0.0)) < 0.8


@pytest.mark.parametrize("first_weight", [0.0, 1.0])
def test_what_actor_and_learner_do_together_is_the_exact_meta_gradient(first_weight: float) -> None:
    """Undiscounted and with lambda = 1, where the outer surrogate is the gradient of J and nothing else."""
    inner = {"attempts": 1000, "step_size": 2.0, "cell_step_size": 2.0}
    outer = {
        "attempts": 1000,
        "objective": "policy-gradient",
        "gae_lambda": 1.0,
        "first_weight": first_weight,
        "entropy": 0.0,
        "exploration": 0.0,
    }
    config = make_config("dice", inner=inner, outer=outer, run={"discount": 1.0})
    exact = ExactMaze(TWO_WAYS, config)
    theta_P = start(exact).detach().float()
    mazes = Mazes.concatenate([Mazes.from_text(TWO_WAYS)] * 60)
    stages, *_ = attempt_and_adapt(theta_P.numpy(), mazes, np.random.default_rng(0), config)
    batch = Batch.of(StateTable.of(mazes, config.policy.radius), stages, config, CPU)
    found_P = meta_gradient(theta_P, batch, config).vector.double()
    phi_P = theta_P.double().requires_grad_()
    truth_P = exact.meta_gradient(phi_P, steps=1) + first_weight * exact.gradient(phi_P)
    print(f"\nlearner, first_weight={first_weight}: cosine similarity {cosine(found_P, truth_P):.5f}")
    assert cosine(found_P, truth_P) >= 0.99
    assert float(found_P.norm() / truth_P.norm()) == pytest.approx(1, abs=0.1)


def every_attempt(text: str, horizon: int) -> Attempts:
    """All that an attempt can be, each in a copy of the maze."""
    drawing = Drawing(text)
    states = drawing.states()
    ended: list[list[int]] = []
    going: list[tuple[list[int], State]] = [([], states[0])]
    while going:
        visits, state = going.pop()
        for move in range(4):
            longer, after = [*visits, states.index(state) * 4 + move], drawing.follow(state, move)
            if after is None or len(longer) == horizon:
                ended.append(longer)
            else:
                going.append((longer, after))
    visits_N = np.array([visit for attempt in ended for visit in attempt], np.uint16)
    length_ME = np.array([[len(attempt)] for attempt in ended], np.uint16)
    return Attempts(length_ME, visits_N, np.zeros((len(ended), len(states), 4), np.float32))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_with_the_exploration_term_it_is_maml_that_climbs_what_one_attempt_is_worth(
    estimator: Estimator,
) -> None:
    """E-MAML: d E[J(phi_1)] = E[d J(phi_1)] + E[J(phi_1) d log p], the attempts held fixed in the first part.

    What holds them fixed is maml. Dice alone climbs J after a step along the mean over all attempts; its Jacobian
    has the effect of phi_0 on the attempts in it, and the exploration term would count it once more.
    """
    text = "S.E##" + "\n#####" * 4
    inner = {"step_size": 1.0, "cell_step_size": 1.0}
    config = make_config(estimator, inner=inner, run={"horizon": 3, "discount": 0.95})
    exact, attempts = ExactMaze(text, config), every_attempt(text, 3)
    copies = len(attempts.length)
    _, scene = scene_of(text, copies, config)
    steps = Steps.of(attempts, scene, config.run.discount)

    def worth(at_P: Tensor) -> Tensor:
        phi = exact.named(at_P.requires_grad_().expand(copies, -1))
        log_prob = log_policy(phi, scene)
        log_N = log_prob.flatten()[steps.pair_N]
        chance_M = torch.zeros(copies, dtype=torch.float64).index_add(0, steps.attempt_N, log_N).exp()
        assert chance_M.sum().item() == pytest.approx(1)
        return (
            chance_M * exact.value(flatten(adapt(phi, {}, log_prob, steps, scene, config, graph=True)))
        ).sum()

    phi_P = start(exact)
    gradient_P = slope(worth(phi_P), phi_P)
    off = []
    for seed in range(3):
        along_P = random_vector(len(phi_P), seed, scale=1.0)
        expected = central_difference(worth, phi_P.detach(), along_P)
        off.append(abs(float(gradient_P @ along_P) / expected - 1))
    assert max(off) < 1e-6 if estimator == "maml" else max(off) > 0.05


def test_bias_and_variance_of_the_four_estimators(tmp_path: Path) -> None:
    """Prints the README's table (pytest -s); claims of it only what theory says of any maze.

    All relative to the exact meta-gradient g: bias |E[est] - g| / |g|, what it becomes with infinitely many attempts,
    and the standard deviation sqrt(E|est - E[est]|^2) / |g|; the median cosine similarity of one estimate and g.
    """
    rows = ["estimator    K  attempts   bias  in the limit  deviation  cosine"]
    bias: dict[tuple[str, int, int], float] = {}
    deviation: dict[tuple[str, int, int], float] = {}
    for steps, estimator in product((1, 3), ESTIMATORS):
        config = make_config(estimator, inner={"steps": steps})
        exact = ExactMaze(TWO_WAYS, config)
        truth_P = exact.meta_gradient(start(exact), steps=steps)
        size = float(truth_P.norm())
        limit = float((exact.meta_gradient(start(exact), estimator, steps=steps) - truth_P).norm()) / size
        for attempts, copies in ((20, 2000), (1000, 100)):
            each_MP = sampled_meta_gradient(TWO_WAYS, config, copies=copies, attempts=attempts, seed=1)
            variance = float(each_MP.var(0).sum())
            squared = float((each_MP.mean(0) - truth_P).square().sum()) - variance / copies
            key = (estimator, attempts, steps)
            bias[key], deviation[key] = math.sqrt(max(squared, 0.0)) / size, math.sqrt(variance) / size
            alone = float(torch.nn.functional.cosine_similarity(each_MP, truth_P[None]).median())
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

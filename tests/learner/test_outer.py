"""The meta-objective against its plain form, one step after another, and each of its terms against what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from actors.rollout import collect
from learner import baseline
from learner.admission import Replay, admit
from learner.outer import Totals, after_adaptation, meta_gradient, meta_objective
from learner.stages import Batch
from protocol.config import Config
from protocol.learning.inner import initial_theta, shapes, unflatten
from protocol.wire.messages import Rollouts
from protocol.world.maze import Mazes
from tests.parts import stepwise
from tests.parts.batches import CPU, batch_of, make_config, random_theta, trials_of, tried
from tests.parts.robot import Drawing, Past
from tests.parts.stepwise import Estimator

ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)
TEXTS = ["S.#\n..E", "S..\n.#H\n..E\nE.#"]
MAZES = Mazes.from_text("\n\n".join(TEXTS))


def config_of(**sections: dict[str, Any]) -> Config:
    inner = {"attempts": 2, "steps": 2, "cell_step_size": 1.0, "step_size": 0.3} | sections.pop("inner", {})
    return make_config(len(MAZES), inner=inner, **sections)


CASES: dict[str, dict[str, dict[str, Any]]] = {
    "as it comes": {},
    "every parameter": {"inner": {"adapts": "all"}},
    "blind": {"policy": {"radius": 0}},
    "with a compass": {"policy": {"compass": True}},
    "without dreams": {"policy": {"dreams": False}},
    "without memory": {"policy": {"memory": "none", "dreams": False}},
    "plain objective": {"outer": {"objective": "policy-gradient"}},
    "one attempt a step": {"inner": {"attempts": 1, "steps": 3}, "outer": {"attempts": 1}},
    "sgd": {"inner": {"rule": "sgd", "adapts": "all", "credit": "policy-gradient"}},
    "meta-sgd": {"inner": {"rule": "meta-sgd", "adapts": "all"}},
    "every term": {"outer": {"first_weight": 0.3, "exploration": 0.7, "gae_lambda": 0.5}},
}


def both(config: Config, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The objective and its gradient: of arrays, and of one step after another; attempts of an older theta."""
    replay = tried(random_theta(config, seed), MAZES, config, seed)
    batch = batch_of(replay, config)
    theta_P = torch.from_numpy(random_theta(config, seed + 1)).double()
    at_once = meta_gradient(theta_P, batch, config)
    leaf_P = theta_P.clone().requires_grad_()
    stepped = stepwise.objective(leaf_P, trials_of(replay, batch, config), config)
    (slope_P,) = torch.autograd.grad(stepped, leaf_P)
    return torch.tensor(at_once.figures.objective, dtype=torch.float64), at_once.vector, stepped.detach(), slope_P


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_objective_and_meta_gradient_are_those_of_one_step_after_another(case: str, estimator: Estimator) -> None:
    sections = CASES[case]
    if sections.get("outer", {}).get("exploration") and estimator == "dice":
        sections = sections | {"outer": sections["outer"] | {"exploration": 0.0}}
    config = config_of(**(sections | {"inner": {"estimator": estimator} | sections.get("inner", {})}))
    value, slope_P, stepped, stepped_slope_P = both(config, seed=2)  # attempts from which all of theta learns
    torch.testing.assert_close(value, stepped, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(slope_P, stepped_slope_P, rtol=1e-9, atol=1e-9)
    # Where a robot dreams, fast weights are of no account: with a compass everywhere, else once it knows an exit.
    silent = (
        {"keep", "credit.in", "credit.out"} if config.policy.compass else {"keep"} if config.policy.dreams else set()
    )
    assert {name for name, part in unflatten(slope_P, config).items() if not part.any()} <= silent


@pytest.mark.parametrize("objective", ["policy-gradient", "clipped"])
@pytest.mark.parametrize("rule", ["sgd", "meta-sgd", "learned"])
def test_with_maml_it_is_the_derivative_of_the_objective_for_fixed_attempts(rule: str, objective: str) -> None:
    """What phi_K is as a function of theta, maml differentiates exactly; finite differences know no estimator."""
    inner = {"rule": rule, "adapts": "all", "estimator": "maml"}
    terms = {"objective": objective, "exploration": 0.5}
    config = config_of(inner=inner, outer=terms, policy={"dreams": False})
    batch = batch_of(tried(random_theta(config, 1), MAZES, config, 1), config)
    totals, theta_P = Totals.of(batch, config), torch.from_numpy(random_theta(config, 2)).double()
    gradient_P = meta_gradient(theta_P, batch, config).vector
    rng, width = np.random.default_rng(2), 1e-6
    for group in {name.partition(".")[0] for name in shapes(config)}:
        own = [torch.full(shape, float(name.startswith(group))).flatten() for name, shape in shapes(config).items()]
        along_P = torch.cat(own) * torch.from_numpy(rng.normal(size=len(theta_P)))
        ahead, behind = (
            meta_objective(theta_P + side * width * along_P, batch, config, totals).item() for side in (1, -1)
        )
        expected = (ahead - behind) / (2 * width)
        assert abs(expected) > 1e-4
        assert float(gradient_P @ along_P) == pytest.approx(expected, rel=1e-5), group


def test_leases_add_up_to_the_batch_that_they_make() -> None:
    config = config_of(outer={"exploration": 0.5}, inner={"adapts": "all"})
    replays = [tried(random_theta(config), MAZES, config, seed) for seed in range(2)]
    theta_P = torch.from_numpy(random_theta(config, 1)).double()
    whole = Batch.of(replays, config, CPU, torch.float64)
    totals = Totals.of(whole, config)
    shares = [meta_gradient(theta_P, batch_of(replay, config), config, totals) for replay in replays]
    together = meta_gradient(theta_P, whole, config)
    torch.testing.assert_close(shares[0].vector + shares[1].vector, together.vector, rtol=1e-9, atol=1e-9)
    for name in ("objective", "success_before", "success_after", "adaptation_gain"):
        added, at_once = sum(getattr(share.figures, name) for share in shares), getattr(together.figures, name)
        assert added == pytest.approx(at_once, rel=1e-6), name


def test_first_weight_counts_the_attempts_before_adaptation() -> None:
    light, heavy = (config_of(outer={"first_weight": weight}, inner={"steps": 1}) for weight in (0.0, 1.0))
    batch = batch_of(tried(random_theta(light), MAZES, light), light)
    theta_P = torch.from_numpy(random_theta(light)).double()
    difference_P = meta_gradient(theta_P, batch, heavy).vector - meta_gradient(theta_P, batch, light).vector
    parts = unflatten(difference_P, light)
    assert parts["policy.in"].any()
    # What adaptation alone reads does not matter to attempts that nothing was learned before; dreams they have, too.
    assert not any(parts[name].any() for name in ("keep", "credit.in", "credit.out"))


def test_what_adaptation_has_gained_is_measured_against_the_best_that_there_can_be() -> None:
    config = config_of(outer={"attempts": 5})
    replay = tried(random_theta(config), MAZES, config)
    batch = batch_of(replay, config)
    trials = trials_of(replay, batch, config)
    gains = stepwise.gains([trial.drawing for trial in trials], [trial.stages[-1] for trial in trials], config)
    assert max(gains) > 0.01
    assert after_adaptation(batch, config).tolist() == pytest.approx(gains, abs=1e-6)


def test_a_move_that_was_next_to_impossible_does_not_blow_the_gradient_up() -> None:
    config = config_of(outer={"objective": "policy-gradient"})
    batch = batch_of(tried(random_theta(config), MAZES, config), config)
    last = batch.stages[-1]
    odd = replace(
        batch, stages=(*batch.stages[:-1], replace(last, behaviour_N=torch.full_like(last.behaviour_N, -200)))
    )
    theta_P = torch.from_numpy(random_theta(config, 1)).double()
    assert meta_gradient(theta_P, odd, config).vector.norm() < 100 * meta_gradient(theta_P, batch, config).vector.norm()


# The baseline


def collected(seed: int = 0) -> tuple[Config, Replay]:
    sections = {
        "maze": {"family": "perfect", "side": 7},
        "inner": {"steps": 1},
        "outer": {"attempts": 2},
        "run": {"mazes": 60, "mazes_per_lease": 60, "horizon_per_cell": 1.0},
    }
    config = Config.model_validate(sections)
    mazes, stages, _ = collect(initial_theta(config), (seed,), config)
    return config, admit(Rollouts(0, 0, 0, 0, {}, mazes, stages), config)


def test_the_baseline_is_the_ridge_regression_of_returns_to_go() -> None:
    config, replay = collected()
    batch = Batch.of([replay], config, CPU, torch.float64)
    for stage, fit_FQ in zip(batch.stages, Totals.of(batch, config).fit_KFQ, strict=True):
        (outcome,) = stage.outcomes
        known_NF, togo_N = outcome.feature_FN.T, outcome.togo_N
        weights = len(known_NF[0])
        rows = np.concatenate([known_NF, np.sqrt(1e-3) * np.eye(weights)])
        weight_F, *_ = np.linalg.lstsq(rows, np.concatenate([togo_N, np.zeros(weights)]), rcond=None)
        values_N = baseline.values(outcome, baseline.weights(fit_FQ.numpy()))
        np.testing.assert_allclose(values_N, known_NF @ weight_F, rtol=0, atol=1e-8)


def test_the_baseline_takes_most_of_the_variance_of_returns_away() -> None:
    config, replay = collected()
    batch = Batch.of([replay], config, CPU)
    (outcome,), fit_FQ = batch.stages[0].outcomes, Totals.of(batch, config).fit_KFQ[0]
    left_N = outcome.togo_N - baseline.values(outcome, baseline.weights(fit_FQ.numpy()))
    assert left_N.var() < 0.8 * outcome.togo_N.var()
    assert abs(left_N.mean()) < 0.01


def test_the_baseline_knows_time_the_true_way_and_the_way_that_the_robot_knows() -> None:
    config = config_of()
    replay = tried(random_theta(config), MAZES, config)
    batch, gamma = batch_of(replay, config), config.run.discount
    drawings = [Drawing(text) for text in TEXTS]
    pasts = [Past()] * 2
    horizons = [len(drawing.cells) for drawing in drawings]
    for k, (walk, stage) in enumerate(zip(replay.walks, batch.stages, strict=True)):
        rows = []
        told = stepwise.attempts_at(drawings, walk, replay.behaviours[k], pasts, horizons, config)
        after = []
        for drawing, past, (attempts, known) in zip(drawings, pasts, told, strict=True):
            way = past.known_way(drawing)
            after.append(known)
            for attempt in attempts:
                for time, step in enumerate(attempt.steps):
                    share, distance = time / attempt.horizon, drawing.distance(step.cell)
                    far, near = gamma**distance, gamma ** (10 * distance)
                    here = gamma ** way[step.cell] if step.cell in way else 0.0
                    reach = distance < attempt.horizon - time
                    row = [1, share, share**2, far, near, far * share, reach, here, here > 0, here * far]
                    rows.append([float(value) for value in row])
        pasts = after
        np.testing.assert_allclose(stage.outcomes[0].feature_FN.T, rows, rtol=1e-5, atol=1e-6)


def test_figures_say_what_the_attempts_did() -> None:
    config, replay = collected(1)
    batch = Batch.of([replay], config, CPU)
    figures = meta_gradient(torch.from_numpy(initial_theta(config)), batch, config).figures
    found = [stage.found_W.mean().item() for stage in batch.stages]
    assert 0 < found[0] < 1
    assert [figures.success_before, figures.success_after] == pytest.approx([found[0], found[-1]])
    steps = [
        stage.length_W.sum().item() / stage.made.attempts / batch.shortest_M.sum().item() for stage in batch.stages
    ]
    assert [figures.ratio_before, figures.ratio_after] == pytest.approx([steps[0], steps[-1]])
    assert figures.ratio_after >= 1

"""A learner of several processes: shares add up to the whole, and whatever happens, theta is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from itertools import chain, product
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from actors.actor import work_on
from deploy.command.train import train
from learner import checkpoint, parallel
from learner.admission import Replay, admit
from learner.ascent import Floats
from learner.outer import Totals, meta_gradient
from learner.parallel import RankError, Seat, Team, follow, shares
from learner.stages import Batch
from protocol.config import ClewError, Config
from protocol.learning.inner import adapt, initial_phi, initial_theta, unflatten
from protocol.learning.policy import scores
from protocol.wire.messages import Lease, Rollouts
from tests.deploy.test_cli import ENVIRONMENT, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.parties import Pace, Party, Place, new_place, place
from tests.whole.test_network import HERE, free_ports
from tests.whole.test_processes import exits, processes

__all__ = ["place"]  # a fixture

CPU = torch.device("cpu")
Followers = Callable[[int], tuple[Seat, list[ForkServerProcess]]]
UPDATES = 20
SETTINGS = [
    *("maze.family=perfect", "maze.side=5", "maze.min_distance=2", "inner.steps=1", "outer.attempts=2"),
    *("run.horizon_per_cell=1", "run.mazes=6", "run.mazes_per_lease=2"),
    *("outer.exploration=0.5", f"run.updates={UPDATES}", "run.checkpoint_every=4"),
]
LEARNER = [
    "learner",
    *(word for one in SETTINGS for word in ("--set", one)),
    "--device",
    "cpu",
    "--run-dir",
    "run",
]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]

# Shares


def make_config(
    leases: int = 3, inner: dict[str, object] | None = None, outer: dict[str, object] | None = None
) -> Config:
    return Config.model_validate(
        {
            "maze": {"family": "perfect", "side": 7},
            "run": {"mazes": 2 * leases, "mazes_per_lease": 2, "horizon_per_cell": 1},
            "inner": {"attempts": 3, "steps": 2, **(inner or {})},
            "outer": {"attempts": 2, **(outer or {})},
        }
    )


def make_parts(config: Config) -> list[Rollouts]:
    theta_P = initial_theta(config)
    leases = [Lease(0, chunk, chunk, 0, (0, chunk), 1.0) for chunk in range(config.run.leases)]
    return [work_on(lease, theta_P, config) for lease in leases]


def replays_of(parts: list[Rollouts], config: Config) -> list[Replay]:
    return [admit(part, config) for part in parts]


def batch_of(parts: list[Rollouts], config: Config, dtype: torch.dtype, device: torch.device = CPU) -> Batch:
    return Batch.of(replays_of(parts, config), config, device, dtype)


def theta_of(config: Config) -> Tensor:
    """Not where the attempts were made, so that ratios leave 1 and the clip."""
    theta_P = torch.from_numpy(initial_theta(config))
    return theta_P + 0.1 * torch.randn(theta_P.shape, generator=torch.Generator().manual_seed(1))


def total_of(totals: list[Totals]) -> Totals:
    return Totals(*(torch.stack([getattr(one, field.name) for one in totals]).sum(0) for field in fields(Totals)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("estimator", ["first-order", "maml", "lvc", "dice"])
@pytest.mark.parametrize("rule", ["sgd", "meta-sgd", "learned"])
def test_the_gradients_and_figures_of_shares_add_up_to_those_of_the_batch(
    rule: str, estimator: str, dtype: torch.dtype, tolerance: float
) -> None:
    objectives, credits = ("clipped", "policy-gradient"), ("cell-advantage", "policy-gradient")
    for objective, credit in zip(objectives, credits, strict=True):
        config = make_config(
            inner={"rule": rule, "estimator": estimator, "credit": credit},
            outer={"objective": objective, "exploration": 0.0 if estimator == "dice" else 1.0},
        )
        parts, theta_P = make_parts(config), theta_of(config).to(dtype)
        whole = meta_gradient(theta_P, batch_of(parts, config, dtype), config)
        batches = [batch_of(parts[share], config, dtype) for share in shares(len(parts), 2)]
        totals = total_of([Totals.of(batch, config) for batch in batches])
        some = [meta_gradient(theta_P, batch, config, totals) for batch in batches]
        vector = some[0].vector + some[1].vector
        assert (vector - whole.vector).norm() < tolerance * whole.vector.norm()
        for name in vars(whole.figures).keys() - {"gradient_norm"}:
            added = sum(getattr(one.figures, name) for one in some)
            assert added == pytest.approx(getattr(whole.figures, name), rel=1e-4, abs=1e-6)
        # and no share knows it all by itself
        assert (some[0].vector - whole.vector).norm() > 0.1 * whole.vector.norm()


@pytest.mark.parametrize(("parts", "ranks"), list(product((1, 2, 3, 7), (1, 2, 3, 5))))
def test_every_part_is_somebodys_and_nobody_has_two_more_than_another(parts: int, ranks: int) -> None:
    found = [list(range(parts))[share] for share in shares(parts, ranks)]
    assert list(chain(*found)) == list(range(parts))
    sizes = [len(one) for one in found]
    assert len(sizes) == ranks
    assert max(sizes) - min(sizes) <= 1
    assert sizes[0] >= 1


# Processes that only compute


PATIENCE_S = 3.0
VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "GLOO_SOCKET_IFNAME")


def seat(rank: int, ranks: int, port: int) -> Seat:
    """Makes the seat that torchrun would give."""
    values = (HERE, str(port), str(rank), str(ranks))
    os.environ |= dict(zip(VARIABLES, values, strict=False))
    return Seat(rank, ranks, rank, ranks)


def attend(rank: int, ranks: int, port: int) -> None:
    parallel.PATIENCE_S = PATIENCE_S
    torch.set_num_threads(1)
    try:
        follow(seat(rank, ranks, port), CPU)
    except RankError:
        sys.exit(1)


@pytest.fixture
def followers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Followers]:
    """Starts the other ranks, for a team whose rank 0 is this process."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # and so it is gone again in the end
        monkeypatch.delenv(name)
    started: list[ForkServerProcess] = []

    def start(ranks: int) -> tuple[Seat, list[ForkServerProcess]]:
        port = free_ports()
        for rank in range(1, ranks):
            started.append(processes.Process(target=attend, args=(rank, ranks, port)))
            started[-1].start()
        return seat(0, ranks, port), started

    yield start
    for one in started:
        one.kill()
        one.join()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("ranks", "leases"), [(2, 3), (3, 2)])
def test_a_team_has_the_gradient_of_one_process_even_where_some_have_nothing_to_do(
    followers: Followers, ranks: int, leases: int
) -> None:
    config = make_config(leases)
    parts, theta_P = make_parts(config), theta_of(config)
    replays = replays_of(parts, config)
    whole = meta_gradient(theta_P, batch_of(parts, config, torch.float32), config)
    mine, others = followers(ranks)
    with Team(mine, config, CPU) as team:
        once, again = (team.gradient(theta_P, parts, replays) for _ in range(2))
    for other in others:
        exits(other, 0)
    assert torch.equal(once.vector, again.vector)
    assert (once.vector - whole.vector).norm() < 1e-5 * whole.vector.norm()
    assert vars(once.figures) == pytest.approx(vars(whole.figures), rel=1e-5, abs=1e-6)


def test_a_follower_waits_as_long_as_there_are_signs_of_life_and_no_longer(
    followers: Followers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "BEAT_S", PATIENCE_S / 10)
    config = make_config()
    mine, [other] = followers(2)
    team = Team(mine, config, CPU)
    until = time.monotonic() + 1.5 * PATIENCE_S
    while time.monotonic() < until:
        team.beat()
        other.join(PATIENCE_S / 20)
    assert other.is_alive()
    exits(other, 1)
    parts = make_parts(config)
    with pytest.raises(RankError, match="no longer answers"):
        team.gradient(theta_of(config), parts, replays_of(parts, config))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_a_team_on_a_gpu_adds_up_over_nccl(followers: Followers) -> None:
    config = make_config()
    parts = make_parts(config)
    mine, _ = followers(1)
    device = mine.device(torch.device("cuda"))
    theta_P = theta_of(config).to(device)
    with Team(mine, config, device) as team:
        found = team.gradient(theta_P, parts, replays_of(parts, config))
    whole = meta_gradient(theta_P, batch_of(parts, config, torch.float32, device), config)
    assert (found.vector - whole.vector).norm() < 1e-5 * whole.vector.norm()


def test_clew_train_is_not_for_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ClewError, match="give torchrun `-m deploy learner`"):
        train(run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("lost", ["RANK", "LOCAL_WORLD_SIZE"])
def test_half_of_what_torchrun_says_is_refused(monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    for name in parallel.VARIABLES:
        monkeypatch.setenv(name, "2")
    assert Seat.here() == Seat(2, 2, 2, 2)
    monkeypatch.delenv(lost)
    with pytest.raises(ClewError, match="start it with torchrun, or unset WORLD_SIZE"):
        Seat.here()


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(ClewError, match="use --device cpu"):
        Seat(0, 1_000, 0, 1_000).device(torch.device("cuda"))


# Whole learners


def whole(test: Callable[..., None]) -> Callable[..., None]:
    """Marks a test that starts them."""
    for mark in (pytest.mark.slow, pytest.mark.timeout(3 * DEADLINE_S)):
        test = mark(test)
    return test


def ends(party: Party, code: int = 0) -> None:
    assert party.process.wait(DEADLINE_S) == code, party.log.read_text()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Floats:
    """Theta in the end, of a learner of one process."""
    with new_place(tmp_path_factory.mktemp("alone")) as place:
        learner = place.start(*LEARNER, "--bind", place.address)
        place.actor()
        ends(learner)
        return saved(place).theta


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A place where a learner of two processes has been that nothing happened to."""
    with new_place(tmp_path_factory.mktemp("pair")) as place:
        everyone = [rank(place, number) for number in (1, 0)]
        place.actor()
        for one in everyone:
            ends(one)
        return place


def torchrun(place: Place, *arguments: object) -> Party:
    log = place.folder / "torchrun.log"
    command = [*TORCHRUN, *map(str, arguments)]
    with log.open("w") as errors:
        process = subprocess.Popen(command, cwd=place.folder, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=errors)
    place.undo.enter_context(process)
    place.undo.callback(process.terminate)  # torchrun then ends the processes that it started
    return Party(process, log)


def rank(place: Place, number: int, *arguments: str) -> Party:
    """One of two processes, without torchrun's agent, which would end one when the other ends."""
    numbers = {"RANK": number, "WORLD_SIZE": 2, "LOCAL_RANK": number, "LOCAL_WORLD_SIZE": 2}
    master = {"MASTER_ADDR": HERE, "MASTER_PORT": place.port + 2}
    variables = {name: str(value) for name, value in (numbers | master).items()}
    return place.start(*LEARNER, "--bind", place.address, *arguments, name=f"rank-{number}", variables=variables)


def saved(place: Place) -> checkpoint.Checkpoint:
    found = checkpoint.load(place.folder / "run")
    assert found
    return found


def process_of(torchrun: Party, rank: int) -> int:
    """The process id of a rank."""
    pid = torchrun.process.pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
            return int(child)
    raise AssertionError(f"no rank {rank}")


@whole
def test_two_processes_learn_what_one_does(alone: Floats, pair: Place) -> None:
    """Theta itself may differ more: where its gradient is 0 but for rounding, Adam makes whole steps of it."""
    config = saved(pair).config
    start, one, two = (
        policies_of(torch.from_numpy(theta_P), config) for theta_P in (initial_theta(config), alone, saved(pair).theta)
    )
    for fresh_AN, one_AN, two_AN in zip(start, one, two, strict=True):
        assert (one_AN - two_AN).norm() <= 1e-4 * (one_AN - fresh_AN).norm()


def policies_of(theta_P: Tensor, config: Config) -> list[Tensor]:
    """[A, N] the probability of each move at every step of some attempts, before adaptation and after."""
    theta, batch = unflatten(theta_P, config), batch_of(make_parts(config), config, torch.float32)
    phi = initial_phi(theta, batch.cells, batch.mazes, config.inner.steps, config)
    probabilities = []
    for left, stage in zip(reversed(range(len(batch.stages))), batch.stages, strict=True):
        log_prob_AN = stage.log_prob(scores(phi.net, batch.scene), phi)
        probabilities.append(log_prob_AN.exp())
        if left:
            phi = adapt(phi, theta, log_prob_AN, stage.made, batch.scene, left - 1, config)
    return probabilities


@whole
def test_a_killed_follower_ends_the_learner_which_torchrun_starts_again_and_theta_is_the_same(
    place: Place, pair: Place
) -> None:
    pace = Pace(place)
    learner = torchrun(
        place, "--max-restarts", 1, "-m", "deploy", *LEARNER, "--begin-or-resume", "--bind", place.address
    )
    place.actor(connect=place.detour)
    wait_until(lambda: len(place.updates()) >= 6, DEADLINE_S)
    os.kill(process_of(learner, 1), signal.SIGKILL)
    pace.no_more()
    learner.says("clew: a process of the learner no longer answers")
    ends(learner)
    assert "Traceback" not in learner.log.read_text()
    assert place.hashes(UPDATES) == pair.hashes(UPDATES)


@whole
def test_when_all_are_told_to_stop_the_learner_saves_where_it_is_and_goes_on_from_there(
    place: Place, pair: Place
) -> None:
    pace = Pace(place)
    place.actor(connect=place.detour)
    everyone = [rank(place, number) for number in (1, 0)]
    wait_until(lambda: len(place.updates()) >= 6, DEADLINE_S)
    for one in everyone:  # the follower first
        one.process.terminate()
    for one in everyone:
        ends(one)
    assert saved(place).update == len(place.updates()) < UPDATES
    pace.no_more()
    everyone = [rank(place, number, "--resume") for number in (0, 1)]
    for one in everyone:
        ends(one)
    assert place.hashes(UPDATES) == pair.hashes(UPDATES)


@whole
@pytest.mark.parametrize("victim", [0, 1])
def test_whoever_is_left_ends_with_one_sentence(place: Place, victim: int) -> None:
    Pace(place)
    place.actor(connect=place.detour)
    everyone = [rank(place, number) for number in (0, 1)]
    wait_until(lambda: len(place.updates()) >= 5, DEADLINE_S)
    everyone[victim].process.kill()
    left = everyone[1 - victim]
    ends(left, 1)
    assert left.lines()[-1].startswith("clew: a process of the learner no longer answers")
    assert saved(place).update == 4

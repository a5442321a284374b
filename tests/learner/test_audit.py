"""Whoever answers anything but what its lease asks for is found, named and shut out; whoever is honest never is."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from actors.actor import work_on
from deploy.command import keys as keyring
from learner.audit import Auditor, Case, Sender
from learner.schedule import seed_of
from protocol.config import ClewError, Config
from protocol.learning.inner import initial_theta
from protocol.learning.trial import attempt_and_adapt
from protocol.wire.frames import ACTOR_LIMITS, decode
from protocol.wire.keys import ActorKeys
from protocol.wire.messages import CONTRACT, Attempts, Bye, Fetch, Lease, Rollouts, Theta, Welcome
from protocol.world import families
from protocol.world.cells import Floats
from protocol.world.maze import Mazes
from tests import ROOT
from tests.deploy.test_cli import wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.parties import Place, place
from tests.whole.test_processes import CONFIG, House, Impostor, house, impostor, quiet, with_run

__all__ = ["house", "impostor", "place", "quiet"]  # fixtures

Lie = Callable[[Lease, Floats], Rollouts]
STRICT = with_run(audit=1.0)
NOT_HERE = "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"  # what numpy does without, where this processor has it


def honest(lease: Lease, theta_P: Floats) -> Rollouts:
    return work_on(lease, theta_P, CONFIG)


def attempts(theta_P: Floats, mazes: Mazes, rng: np.random.Generator) -> tuple[Attempts, ...]:
    trial = attempt_and_adapt(theta_P, mazes, rng, CONFIG)
    told = zip(trial.walks, trial.log_probs, strict=True)
    return tuple(Attempts(walk.length_W.astype(np.int32), walk.move_N, log_prob_N) for walk, log_prob_N in told)


def elsewhere(lease: Lease, theta_P: Floats) -> Rollouts:
    """Mazes of another seed."""
    return work_on(replace(lease, seed=(99, 99)), theta_P, CONFIG)


def held_out(lease: Lease, theta_P: Floats) -> Rollouts:
    """Attempts at mazes that nobody may train on."""
    rng = np.random.default_rng(lease.seed)
    mazes = families.sample(CONFIG.maze, CONFIG.run.mazes_per_lease, rng, held_out=True)
    return replace(honest(lease, theta_P), mazes=mazes, stages=attempts(theta_P, mazes, rng))


def as_it_likes(lease: Lease, theta_P: Floats) -> Rollouts:
    """Moves that are not drawn from the policy, but with other random numbers, with true log-probabilities."""
    told = honest(lease, theta_P)
    for other in range(1, 100):
        stages = attempts(theta_P, told.mazes, np.random.default_rng((*lease.seed, other)))
        if any(not np.array_equal(one.move, two.move) for one, two in zip(stages, told.stages, strict=True)):
            return replace(told, stages=stages)
    raise AssertionError("there is one way alone")


def overrated(lease: Lease, theta_P: Floats) -> Rollouts:
    """False log-probabilities of true moves."""
    told = work_on(lease, theta_P, CONFIG)
    first, *others = told.stages
    return replace(told, stages=(replace(first, log_prob=first.log_prob - np.float32(0.01)), *others))


def truncated(lease: Lease, theta_P: Floats) -> Rollouts:
    """Makes the rollouts of a theta whose last bits are gone."""
    return work_on(lease, (theta_P.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32), CONFIG)


def replayed(lease: Lease, theta_P: Floats) -> Rollouts:
    """Makes the rollouts that another lease asked for."""
    return work_on(replace(lease, seed=(lease.seed[0], lease.seed[1], lease.seed[2] + 1)), theta_P, CONFIG)


def not_a_number(lease: Lease, theta_P: Floats) -> Rollouts:
    """Makes rollouts as if training had diverged."""
    told = work_on(lease, theta_P, CONFIG)
    *others, last = told.stages
    return replace(told, stages=(*others, replace(last, log_prob=np.full_like(last.log_prob, np.nan))))


LIES = (elsewhere, held_out, as_it_likes, overrated, truncated, replayed, not_a_number)


def verdict(liar: Impostor) -> str:
    """The learner's last word; after a refusal of what cannot count it asks the actor to start over first."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for message in (decode(frames, ACTOR_LIMITS) for frames in liar.links.receive(1.0)):
            if isinstance(message, Bye) and message.verdict != "retry":
                assert "was not what its lease asks for" in message.reason
                return message.verdict
    raise AssertionError("it was never shut out")


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_every_kind_of_liar_is_shut_out_and_changes_nothing(
    house: House, quiet: list[str], impostor: Callable[..., Impostor], lie: Lie
) -> None:
    learner = house.learner(STRICT)
    liar = impostor()
    [lease] = liar.hears(Lease)
    liar.say(Fetch(lease.version))
    [theta] = liar.hears(Theta)
    liar.say(lie(lease, theta.vector))
    assert verdict(liar) == "refused"
    again = impostor()  # with another connection, under the same name
    assert verdict(again) == "refused"
    for one in (liar, again):
        one.links.close()  # or the learner would wait for their goodbye
    house.actor()
    learner.ends()
    assert house.hashes() == quiet
    assert house.journal()[-1]["refusals"]["forged"] == 1
    assert house.journal()[-1]["refusals"]["shut_out"] >= 1


def test_who_lies_now_and_then_is_found_by_a_share(house: House, impostor: Callable[..., Impostor]) -> None:
    """One answer in 20 is forged and half of them are computed again: 30 forged ones are all missed once in 10^9."""
    learner = house.learner(with_run(audit=0.5, updates=10_000, checkpoint_every=1_000))
    liar, thetas, leases, answers = impostor(), dict[int, Floats](), list[Lease](), 0
    while answers < 600:
        for frames in liar.links.receive(1.0):
            message = decode(frames, ACTOR_LIMITS)
            if isinstance(message, Bye):
                assert message.verdict == "refused"
                assert learner.process.is_alive()
                return
            if isinstance(message, Theta):
                thetas[message.version] = message.vector
            if isinstance(message, Lease):
                leases.append(message)
                liar.say(Fetch(message.version))
        for lease in [lease for lease in leases if lease.version in thetas]:
            leases.remove(lease)
            answers += 1
            liar.say((overrated if answers % 20 == 0 else honest)(lease, thetas[lease.version]))
    raise AssertionError("it was never found")


@pytest.mark.parametrize("adapts", ["cells", "all"])
def test_honest_actors_of_another_processor_are_never_called_liars(house: House, adapts: str) -> None:
    config = STRICT.model_dump()
    config["inner"] |= {"adapts": adapts, "steps": 3}
    learner = house.learner(Config.model_validate(config))  # which computes all of it again, on its own
    environment = {"NUMBA_DISABLE_JIT": "1", "NPY_DISABLE_CPU_FEATURES": NOT_HERE, "OPENBLAS_CORETYPE": "Prescott"}
    command = [sys.executable, "-m", "deploy", "actor", "--connect", house.address]
    with subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}) as other:
        learner.ends()
        assert other.wait(DEADLINE_S) == 0
    record = house.journal()[-1]
    assert record["refusals"].keys() <= {"late", "duplicate", "stranger"}


@pytest.mark.parametrize("liar_is_first", [False, True])
def test_of_two_answers_to_one_lease_that_differ_the_false_one_is_found(
    house: House, impostor: Callable[..., Impostor], liar_is_first: bool
) -> None:
    """Nothing is computed again by chance here."""
    house.learner(with_run(audit=0.0, mazes=2, lag=0, updates=1_000))
    one = impostor(CONTRACT, 1, name="one")
    [lease] = one.hears(Lease)
    impostor(CONTRACT, 1, name="keeper").hears(Lease)
    other = impostor(CONTRACT, 1, name="other")
    [again] = other.hears(Lease)  # with nobody known yet, the oldest lease goes out twice
    assert (again.batch, again.chunk) == (lease.batch, lease.chunk)
    one.say(Fetch(lease.version))
    [theta] = one.hears(Theta)
    first, second = (overrated, honest) if liar_is_first else (honest, overrated)
    one.say(first(lease, theta.vector))
    one.hears(Lease)  # the first is filed; what is left goes out twice, too
    other.say(second(again, theta.vector))
    liar, believed = (one, other) if liar_is_first else (other, one)
    assert verdict(liar) == "refused"
    assert not any(isinstance(decode(frames, ACTOR_LIMITS), Bye) for frames in believed.links.receive(0.0))


def test_who_is_shut_out_by_its_key_comes_back_with_another_once_that_is_revoked(place: Place) -> None:
    folder = place.folder / "keys"
    keyring.new(folder)
    for name in ("ann", "bob"):
        keyring.add(name, folder)

    def comes(name: str) -> Impostor:
        one = Impostor(place.address, keys=ActorKeys.of(folder / name))
        place.undo.callback(one.links.close)
        return one

    learner = place.learner("--keys", folder / "learner", "--set", "run.audit=1.0", "--updates", 1_000_000)
    liar = comes("bob")
    welcome, lease = liar.hears(Welcome | Lease, 2)
    config = Config.model_validate_json(welcome.config)
    told = liar.works(lease, config)
    first, *others = told.stages
    liar.say(replace(told, stages=(replace(first, log_prob=first.log_prob - np.float32(0.01)), *others)))
    assert verdict(liar) == "refused"
    assert verdict(comes("bob")) == "refused"
    assert learner.says(r"an actor is shut out: .* key=bob")
    comes("ann").hears(Lease)
    keyring.revoke("bob", folder)
    learner.says("keys revoked: bob")
    keyring.add("bob", folder)

    def is_welcome() -> bool:  # the learner reads the new list in its own time
        heard = [decode(frames, ACTOR_LIMITS) for frames in comes("bob").links.receive(2.0)]
        return any(isinstance(message, Welcome) for message in heard)

    wait_until(is_welcome)


def test_an_audit_changes_no_bit_of_theta(house: House, quiet: list[str]) -> None:
    learner = house.learner(with_run(audit=0.5))
    house.actor()
    learner.ends()
    assert house.hashes() == quiet


@pytest.mark.parametrize("is_over", [False, True])
def test_a_run_is_over_where_computing_an_answer_again_gives_nothing_finite_and_not_where_somebody_says_so(
    is_over: bool,
) -> None:
    theta = np.full_like(initial_theta(CONFIG), 3e38) if is_over else initial_theta(CONFIG)
    lease = Lease(0, 0, 7, 0, seed_of(0, 0, CONFIG), 10.0)
    judged = threading.Event()
    auditor = Auditor(CONFIG, judged.set)
    auditor.examine(Case(Sender(b"liar", "liar", "", ""), not_a_number(lease, initial_theta(CONFIG)), theta))
    assert judged.wait(DEADLINE_S)
    if is_over:
        with pytest.raises(ClewError, match="training has diverged"):
            list(auditor.verdicts())
    else:
        assert [verdict.fault for verdict in auditor.verdicts()] == ["log-probabilities"]

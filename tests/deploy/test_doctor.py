"""`clew doctor` finds what is wrong on the way to a learner, says how to mend it, and disturbs nobody."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from deploy.command import keys as keyring
from protocol.config import Config
from protocol.wire.frames import Limits, decode, encode
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.messages import Bye, Hello
from tests.deploy.test_cli import CLEW, ENVIRONMENT, clew, running, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.parties import UPDATES, Pace, Party, Place, new_place, place, undisturbed
from tests.parts.proxy import Proxy
from tests.whole.test_network import HERE, THERE

__all__ = ["place", "undisturbed"]  # fixtures

LIMITS = Limits.of(Config())
REPORT = ["torch", "files", "address", "handshake", "contract", "theta", "round", "clock"]
ISSUED = 'clew_learner_leases_total{event="issued"}'


def lines(output: str) -> dict[str, tuple[str, str]]:
    """The verdict and what was found, by what it is about."""
    found = {}
    for line in output.splitlines():
        match = re.fullmatch(r"(ok|FAIL) +(\w+)( trip)? +(.*)", line)
        assert match, line
        found[match[2]] = match[1], match[4]
    return found


def assert_healthy(result: subprocess.CompletedProcess[str]) -> None:
    assert (result.returncode, result.stderr) == (0, ""), result.stdout
    found = lines(result.stdout)
    assert list(found) == REPORT
    assert {verdict for verdict, _ in found.values()} == {"ok"}


def assert_fails(output: str, about: str, fault: str, remedy: str) -> None:
    """Checks that the doctor fails at one thing, the last that it looks at; all before it is well."""
    *before, (name, (verdict, said)) = lines(output).items()
    assert (name, verdict) == (about, "FAIL")
    assert re.fullmatch(f".*{fault}.*; .*{remedy}.*", said), said
    assert {verdict for _, (verdict, _) in before} == {"ok"}


def visit(place: Place, *arguments: object) -> str:
    """What the doctor says where something is wrong."""
    result = clew("doctor", *arguments, folder=place.folder)
    assert (result.returncode, result.stderr) == (1, ""), result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Party]]:
    """A learner with keys that has no actor, in a place where the keys are."""
    with new_place(tmp_path_factory.mktemp("locked")) as one:
        keyring.new(one.folder / "keys")
        yield one, one.learner("--keys", "keys/learner")


def test_all_is_well_with_keys_and_no_lease_is_taken(locked: tuple[Place, Party]) -> None:
    place, learner = locked
    assert_healthy(clew("doctor", "--connect", place.address, "--keys", "keys/actor", folder=place.folder))
    assert learner.metric(ISSUED) == 0
    wait_until(lambda: learner.metric("clew_learner_actors") == 0)


@pytest.mark.parametrize("secure", [False, True])
def test_all_is_well_over_ipc(place: Place, secure: bool) -> None:
    keyring.new(place.folder / "keys")
    address = f"ipc://{place.folder}/learner"
    place.learner(*(["--keys", "keys/learner"] if secure else []), bind=address)
    mine = ["--keys", "keys/actor"] if secure else []
    assert_healthy(clew("doctor", "--connect", address, *mine, folder=place.folder))


def test_a_visit_changes_nothing_in_a_run_without_keys(place: Place, undisturbed: list[object]) -> None:
    pace = Pace(place)
    learner = place.learner()
    actor = place.actor(connect=place.detour)
    wait_until(lambda: len(place.updates()) > 2)
    assert_healthy(clew("doctor", "--connect", place.address, folder=place.folder))
    assert len(place.updates()) < UPDATES
    pace.no_more()
    learner.ends()
    actor.ends()
    assert place.hashes() == undisturbed
    assert learner.log.read_text().count("actor joins") == 1
    assert learner.log.read_text().count("somebody looks in") == 1
    assert {record["actors"] for record in place.updates()} <= {0, 1}


def test_nobody_listens(place: Place) -> None:
    output = visit(place, "--connect", place.address)
    assert_fails(output, "address", "cannot be reached: .*refused", "is the learner running and bound")
    output = visit(place, "--connect", f"ipc://{place.folder}/learner")
    assert_fails(output, "address", "cannot be reached: .*No such file", "is the learner running and bound")


def test_somebody_listens_who_says_nothing(place: Place) -> None:
    with socket.create_server((HERE, place.port)):
        output = visit(place, "--connect", place.address)
    assert_fails(output, "handshake", "no handshake in time", "is it a learner")


def test_the_key_is_not_allowed(locked: tuple[Place, Party], tmp_path: Path) -> None:
    place, _ = locked
    keyring.new(tmp_path / "other")
    (tmp_path / "other" / "actor" / "learner.key").write_bytes(
        (place.folder / "keys" / "actor" / "learner.key").read_bytes()
    )
    output = visit(place, "--connect", place.address, "--keys", tmp_path / "other" / "actor")
    assert_fails(output, "handshake", "the learner refused this actor's key", "clew keys add")


def test_the_key_was_revoked(locked: tuple[Place, Party]) -> None:
    place, learner = locked
    keyring.add("bob", place.folder / "keys")
    (place.folder / "keys" / "bob").rename(place.folder / "bob")
    given = ("--connect", place.address, "--keys", place.folder / "bob")
    wait_until(lambda: clew("doctor", *given, folder=place.folder).returncode == 0)  # it looks every second
    keyring.revoke("bob", place.folder / "keys")
    learner.says("keys revoked: bob")
    output = visit(place, *given)
    assert_fails(output, "handshake", "the learner refused this actor's key", "clew keys add")


def test_the_learners_key_is_another(locked: tuple[Place, Party], tmp_path: Path) -> None:
    place, _ = locked
    keyring.new(tmp_path / "other")
    output = visit(place, "--connect", place.address, "--keys", tmp_path / "other" / "actor")
    assert_fails(output, "handshake", "the learner has another key", "compare the two")


def test_the_learner_has_keys_and_the_actor_none(locked: tuple[Place, Party]) -> None:
    place, _ = locked
    output = visit(place, "--connect", place.address)
    assert_fails(output, "handshake", "one side has keys and the other none", "start both with --keys")


def test_the_learner_has_another_contract(place: Place) -> None:
    refusal = Bye("refused", "the learner runs another version of clew or numpy; install the same ones on both sides")
    with (
        closing(LearnerLinks(place.address, LIMITS)) as learner,
        running("doctor", "--connect", place.address, folder=place.folder) as doctor,
    ):
        received = learner.receive(DEADLINE_S)
        assert received
        hello = decode(received.frames, LIMITS)
        assert isinstance(hello, Hello)
        assert (hello.capacity, hello.metrics) == (0, "")
        assert learner.send(received.actor, encode(refusal))
        output, _ = doctor.communicate(timeout=DEADLINE_S)
    assert doctor.returncode == 1
    assert_fails(output, "contract", "the learner runs another version of clew or numpy", "install the same one")


def test_the_learner_is_there_but_does_not_answer(place: Place) -> None:
    with closing(LearnerLinks(place.address, LIMITS)):
        output = visit(place, "--connect", place.address)
    assert_fails(output, "contract", "no answer in 10 s", "see its log")


def test_the_port_of_theta_is_blocked(place: Place) -> None:
    """Only the other one is let through."""
    place.learner()
    with Proxy((THERE, place.port), (HERE, place.port)):
        result = clew("doctor", "--connect", place.detour, folder=place.folder)
    assert result.returncode == 1
    found = lines(result.stdout)
    failing = [about for about, (verdict, _) in found.items() if verdict == "FAIL"]
    assert (failing, list(found)) == (["theta"], REPORT)
    wanted = rf"tcp://{THERE}:{place.port + 1} cannot be reached: .*; .*firewall let it through.*"
    assert re.fullmatch(wanted, found["theta"][1])


def test_too_few_files_may_be_open(tmp_path: Path) -> None:
    result = subprocess.run(
        ["bash", "-c", 'ulimit -n 256 && exec "$@"', "bash", *CLEW, "doctor"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert_fails(result.stdout, "files", "256 may be open: enough for a learner of 103", "ulimit -n 1024")


@pytest.mark.parametrize(
    ("arguments", "fault", "remedy"),
    [
        (["--connect", "localhost"], "'localhost' is no address", "tcp://HOST:PORT"),
        (["--connect", "tcp://localhost:*"], "names no port", "the one that the learner printed"),
        (["--connect", "tcp://localhost:7", "--keys", "none"], "no actor key in none", "clew keys new"),
    ],
)
def test_the_settings_are_wrong(place: Place, arguments: list[str], fault: str, remedy: str) -> None:
    assert_fails(visit(place, *arguments), "settings", fault, remedy)


def test_a_machine_is_examined_without_a_learner(tmp_path: Path) -> None:
    result = clew("doctor", folder=tmp_path)
    assert (result.returncode, list(lines(result.stdout))) == (0, ["torch", "files"])


def test_a_name_that_nobody_knows(place: Place) -> None:
    with suppress(OSError):
        socket.getaddrinfo("learner.invalid", 7777)
        pytest.skip("here every name has an address")
    output = visit(place, "--connect", "tcp://learner.invalid:7777")
    assert_fails(output, "address", "cannot be reached", "is the learner running and bound")

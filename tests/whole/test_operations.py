"""What whoever runs clew sees of it: logs, metrics, health, and refusals of what is out of date."""

from __future__ import annotations

import json
import signal
from contextlib import closing

from protocol.config import Config
from protocol.wire.actor_links import ActorLinks
from protocol.wire.frames import ACTOR_LIMITS, Limits, decode, encode
from protocol.wire.learner_links import LearnerLinks
from protocol.wire.messages import Bye, Hello
from tests.deploy.test_cli import TINY, wait_until
from tests.parts.deadline import DEADLINE_S
from tests.parts.parties import Party, Place, metric, page, place
from tests.protocol.test_wire import packed
from tests.whole.test_network import HERE

__all__ = ["place"]  # a fixture

ENDLESS = ("--updates", 1_000_000)
JSON = ("--log-format", "json")
LIMITS = Limits.of(Config())


def targets(learner: str) -> list[str]:
    """Returns where the learner at HOST:PORT says that its actors' metrics are."""
    status, text = page(learner, "/actors")
    assert status == 200
    return [target for group in json.loads(text) for target in group["targets"]]


def entries(party: Party) -> list[dict[str, object]]:
    """Reads a log, every line of which is a JSON object."""
    return [json.loads(line) for line in party.lines()]


def events(party: Party) -> list[object]:
    return [entry["event"] for entry in entries(party)]


def test_an_actor_is_ready_while_there_is_a_learner_and_all_that_is_said_is_json(place: Place) -> None:
    actor = place.actor(*JSON, "--name", "ann")
    wait_until(lambda: bool(actor.lines()))
    assert actor.page("/healthz") == (503, "not ready\n")

    learner = place.learner(*ENDLESS, *JSON)
    wait_until(actor.works)
    wait_until(lambda: actor.metric("clew_actor_leases_total") > 0)
    assert learner.works()
    assert actor.metric("clew_actor_reconnects_total") == 0
    learner.process.kill()
    wait_until(lambda: not actor.works())

    again = place.learner(*ENDLESS, *JSON, "--resume")
    wait_until(actor.works)
    assert actor.metric("clew_actor_reconnects_total") == 1
    again.process.terminate()
    again.ends()
    way = [f"the actor is connected to {place.address}", f"the actor works for the learner at {place.address}"]
    there_and_gone = [*way, f"the actor has no connection to {place.address}"]
    # Between them, it says where it looks for a learner, and why in vain.
    wait_until(lambda: [event for event in events(actor) if event in there_and_gone] == there_and_gone * 2)
    actor.process.terminate()
    actor.ends()

    told = [*entries(learner), *entries(again), *entries(actor)]
    assert all({"time", "level", "role", "run", "actor", "event"} <= entry.keys() for entry in told)
    assert {(entry["role"], entry["actor"]) for entry in entries(actor)} == {("actor", "ann")}
    assert {entry["role"] for entry in entries(learner)} == {"learner"}
    [joins] = [entry for entry in entries(learner) if entry["event"] == "actor joins"]
    assert (joins["actor"], joins["host"]) == ("ann", HERE)
    runs = [{entry["run"] for entry in entries(party)} for party in (learner, again, actor)]
    assert len(runs[0]) == 1
    assert runs[2] == runs[0] | runs[1] | {None}  # before it is told


def test_actors_are_found_through_the_learner_as_long_as_they_live(place: Place) -> None:
    learner = place.learner(*ENDLESS, "--actor-metrics-host", "bob.example")
    ann = place.actor("--name", "ann")
    bob = place.actor("--name", "bob", "--metrics-address", "bob.example:9100")
    here = f"{HERE}:{learner.port}"
    expected = sorted([f"{HERE}:{ann.port}", "bob.example:9100"])
    wait_until(lambda: targets(here) == expected)
    wait_until(lambda: metric(f"{HERE}:{ann.port}", "clew_actor_leases_total") > 0)
    wait_until(lambda: bob.metric("clew_actor_leases_total") > 0)
    assert learner.metric("clew_learner_actors") == 2

    bob.process.send_signal(signal.SIGKILL)
    wait_until(lambda: learner.metric("clew_learner_actors") == 1)
    assert targets(here) == [f"{HERE}:{ann.port}"]
    before = learner.metric("clew_learner_updates_total")
    wait_until(lambda: learner.metric("clew_learner_updates_total") > before + 2)


def test_prometheus_is_sent_to_no_host_but_where_an_actor_is_seen(place: Place) -> None:
    learner = place.learner(*ENDLESS)
    place.actor("--name", "liar", "--metrics-address", "169.254.169.254:80")
    wait_until(lambda: targets(f"{HERE}:{learner.port}") == [f"{HERE}:80"])
    learner.says(r"names another host .* --actor-metrics-host .*actor=liar host=127.0.0.1 named=169.254.169.254:80")


def test_a_whole_fleet_is_found_at_one_port(place: Place) -> None:
    here = f"{HERE}:{place.port}"
    fleet = place.start("train", *TINY, *ENDLESS, "--run-dir", "run", "--actors", 2, "--metrics-port", place.port)
    wait_until(lambda: len(place.updates()) > 0)
    wait_until(lambda: len(targets(here)) == 2)
    assert page(here, "/healthz") == (200, "ok\n")
    for target in targets(here):
        wait_until(lambda target=target: metric(target, "clew_actor_leases_total") > 0)  # type: ignore[misc]
    wait_until(lambda: metric(here, "clew_learner_actors") == 2)
    fleet.process.terminate()
    fleet.ends()
    assert fleet.lines() == []


def test_an_actor_of_another_version_is_told_so_whatever_its_hello_looks_like(place: Place) -> None:
    learner = place.learner(*ENDLESS)
    hellos: list[dict[str, object]] = [
        {"contract": "another", "actor": "old", "capacity": 2, "metrics": ""},
        {"contract": "another", "actor": "older", "capacity": 2},
        {"contract": "another", "name": "newer", "cores": [1, 2]},
        {},
    ]
    for hello in hellos:
        bye = answer(place.address, packed("Hello", hello, []))
        assert bye.verdict == "refused"
        assert "another version of clew or numpy; install the same ones" in bye.reason
    assert learner.metric('clew_learner_refusals_total{reason="contract"}') == len(hellos)
    assert learner.metric("clew_learner_actors") == 0


def answer(address: str, header: bytes) -> Bye:
    """The Bye that a message without arrays earns."""
    byes: list[Bye] = []
    with closing(ActorLinks(address)) as links:
        assert links.send([header])

        def is_answered() -> bool:
            messages = [decode(frames, ACTOR_LIMITS) for frames in links.receive(0.1)]
            byes.extend(message for message in messages if isinstance(message, Bye))
            return bool(byes)

        wait_until(is_answered)
    return byes[0]


def test_an_actor_that_is_refused_says_why_and_ends(place: Place) -> None:
    reason = "the learner runs another version of clew or numpy; install the same ones on both sides"
    with closing(LearnerLinks(place.address, LIMITS)) as learner:
        actor = place.actor()
        received = learner.receive(DEADLINE_S)
        assert received
        assert isinstance(decode(received.frames, LIMITS), Hello)
        assert learner.send(received.actor, encode(Bye("refused", reason)))
        actor.ends(2)
    *log, last = actor.lines()
    assert last == f"clew: the learner refused this actor: {reason}"
    assert all(" INFO actor " in line for line in log)

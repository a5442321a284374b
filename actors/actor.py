"""The actor: joins a learner, does what its leases ask for, leaves. It holds nothing that matters."""

# P parameters

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress

from actors.metrics import ActorMetrics
from actors.rollout import collect
from protocol import own
from protocol.config import ClewError, Config
from protocol.wire.actor_links import ActorLinks
from protocol.wire.address import Address
from protocol.wire.contract import own_contract
from protocol.wire.frames import ACTOR_LIMITS, WireError, decode, encode
from protocol.wire.keys import ActorKeys
from protocol.wire.messages import CONTRACT, Bye, Fetch, Hello, Lease, Message, Rollouts, Theta, Welcome
from protocol.wire.reach import REMEDY, fault
from protocol.world.cells import Floats

CAPACITY = 2  # leases held: one in work, one so that there is no waiting for the next
POLL_S = 0.05  # the longest wait for a message
SILENCE_S = 2.5  # of the learner, after which an idle actor says Hello again; it pings every second
PATIENCE_S = 2.0  # without a connection, until it is said why; doubled each time
LONGEST_PATIENCE_S = 600.0
AGAIN_S = 0.5  # before a Hello that the learner asked for
LATE_S = 0.05  # that theta may come after the lease that needs it
FETCH_S = 1.0  # between two requests for the same theta

log = logging.getLogger("clew")


class Interrupted(BaseException):
    """The work on a lease was given up because the actor shall end."""


class Actor:
    """One worker. Single-threaded: hear what came, work on a lease, again."""

    def __init__(self, connect: str, name: str, keys: ActorKeys | None = None, modules: Collection[str] = ()) -> None:
        """`modules`: of the user's own, which it may import where the learner's config names them; no others."""
        self.should_exit = False
        self._modules = modules
        self.metrics_at = ""  # where its metrics are served, as Hello says it
        self._connect = connect
        self._links = ActorLinks(connect, keys)  # there as soon as there is a learner
        self._name = name
        self._log = logging.LoggerAdapter(log, {})
        self._hello_due = 0.0
        self._connection = 0  # as the links count them
        self._welcomed_on = 0  # the connection of the last Welcome
        self._trouble = ""  # as the links say it
        self._patience_s = PATIENCE_S
        self._lost_at = time.monotonic()  # since when there is no connection, or it has been said why
        self.metrics = ActorMetrics(self._wire_bytes)
        self._working = False
        self._session = ""
        self._config: Config | None = None
        self._leases: deque[Lease] = deque()
        self._thetas: dict[int, Floats] = {}  # [P] by version, the newest few
        self._wanted, self._fetch_due = -1, 0.0

    def run(self) -> None:
        """The whole life."""
        self._log.info("looks for the learner at %s", self._connect)
        try:
            with suppress(Interrupted):
                while not self.should_exit:
                    self.step()
        finally:
            self.shutdown()

    def stop(self, number: int, frame: object) -> None:
        """As a signal handler: what it holds goes back at once, whatever it is doing."""
        self.should_exit = True
        if self._working:
            self._working = False
            raise Interrupted

    @property
    def is_ready(self) -> bool:
        """Whether there is a learner that it works for."""
        return bool(self._connection) and self._welcomed_on == self._connection

    def step(self) -> None:
        """Hears all that came; then works on one lease, or asks for what it lacks."""
        self._hear_all()
        self._notice_the_connection()
        now = time.monotonic()
        if self._leases and self._config:
            lease = self._leases[0]
            if lease.version in self._thetas:
                self._work(self._leases.popleft(), self._config)
            elif lease.batch < max(self._thetas, default=0):
                self._leases.clear()
                self._say_hello(now)
            else:
                self._lack(lease.version, now)
        elif self._connection and now >= self._hello_due:
            self._say_hello(now)

    def _say_hello(self, now: float) -> None:
        """As one with empty hands. So does an actor that was too slow: its lease's batch is done, its theta is gone."""
        self._links.send(encode(Hello(CONTRACT, self._name, CAPACITY, self.metrics_at)))
        self._hello_due = now + SILENCE_S

    def shutdown(self) -> None:
        """Hands its leases back, by leaving."""
        self._links.send(encode(Bye("retry", "the actor stops")))
        self._links.close()

    def _notice_the_connection(self) -> None:
        """Over a new connection the learner, the same or another, knows nothing of this actor."""
        if self._links.trouble != self._trouble:
            self._trouble = self._links.trouble
            if self._trouble:
                self._log.warning("%s: %s; trying again", self._connect, self._trouble)
        if self._links.connection != self._connection:
            self._connection = self._links.connection
            if self._connection > 1:
                self.metrics.reconnects.inc()
            self._log.info("%s %s", "connected to" if self._connection else "no connection to", self._connect)
            self._leases.clear()
            self._hello_due = 0.0
            self._patience_s, self._lost_at = PATIENCE_S, time.monotonic()
        elif not (self._connection or self._trouble) and time.monotonic() - self._lost_at >= self._patience_s:
            self._patience_s, self._lost_at = min(2 * self._patience_s, LONGEST_PATIENCE_S), time.monotonic()
            # Looking up a name may take long, and must not keep a signal or the learner waiting.
            threading.Thread(target=self._say_why, daemon=True).start()

    def _say_why(self) -> None:
        """Why there is no connection."""
        if reason := fault(Address.of(self._connect)):
            self._log.warning("%s; %s trying again", reason, REMEDY)

    def _hear_all(self) -> None:
        can_work = self._leases and self._leases[0].version in self._thetas
        began = time.monotonic()
        received = self._links.receive(0.0 if can_work else POLL_S)
        self.metrics.observe("waiting", time.monotonic() - began)
        for frames in received:
            try:
                self._hear(decode(frames, ACTOR_LIMITS))
            except WireError:
                continue

    def _hear(self, message: Message) -> None:
        if not isinstance(message, Theta):  # theta has a link of its own, and tells nothing of this one
            self._hello_due = time.monotonic() + SILENCE_S
        match message:
            case Welcome():
                self._enter(message)
            case Theta():
                self._remember(message)
            case Lease():
                self._leases.append(message)
            case Bye():
                self._obey(message)

    def _enter(self, welcome: Welcome) -> None:
        """A learner that was started anew knows nothing of what this actor holds."""
        self._welcomed_on = self._connection
        self._links.follow(welcome.theta_port)
        if welcome.session != self._session:
            self._session = welcome.session
            self._log.extra = {"run": welcome.run}
            self._config = admitted(Config.model_validate_json(welcome.config), welcome.own, self._modules)
            self._log.info("works for the learner at %s", self._connect)
            self._leases.clear()
            self._thetas.clear()

    def _remember(self, theta: Theta) -> None:
        self._thetas[theta.version] = theta.vector
        self.metrics.version.set(max(self._thetas))
        if self._config:
            for version in sorted(self._thetas)[: -(self._config.run.lag + 2)]:
                del self._thetas[version]

    def _obey(self, bye: Bye) -> None:
        if bye.verdict == "refused":
            raise ClewError(f"the learner refused this actor: {bye.reason}")
        self.should_exit |= bye.verdict == "over"
        self._leases.clear()
        self._hello_due = time.monotonic() + AGAIN_S

    def _work(self, lease: Lease, config: Config) -> None:
        self._working = True  # from here on a signal interrupts
        if self.should_exit:
            return
        rollouts = work_on(lease, self._thetas[lease.version], config)
        self._working = False
        self._links.send(encode(rollouts))  # where there is no learner any more, nobody needs it
        self._count(rollouts)

    def _count(self, rollouts: Rollouts) -> None:
        """For Prometheus."""
        self.metrics.leases.inc()
        self.metrics.mazes.inc(len(rollouts.mazes))
        self.metrics.attempts.inc(sum(stage.length.size for stage in rollouts.stages))
        self.metrics.steps.inc(sum(len(stage.move) for stage in rollouts.stages))
        for phase, seconds in rollouts.seconds.items():
            self.metrics.observe(phase, seconds)

    def _wire_bytes(self) -> dict[str, int]:
        return {"sent": self._links.sent_bytes, "received": self._links.received_bytes}

    def _lack(self, version: int, now: float) -> None:
        """Theta is published before the leases that need it go out, but may be later, or lost."""
        if version != self._wanted:
            self._wanted, self._fetch_due = version, now + LATE_S
        elif now >= self._fetch_due:
            self._links.send(encode(Fetch(version)))
            self._fetch_due = now + FETCH_S


def admitted(config: Config, contract: str, modules: Collection[str]) -> Config:
    """A learner's config, whose functions of the user's own this actor has; ClewError where it may not, or has others.

    Nothing is imported that `modules` does not name, whatever the learner wants.
    """
    for name in config.own:
        if (module := own.module_of(name)) not in modules:
            raise ClewError(
                f"the learner's config names '{name}', and this actor may not import '{module}'; "
                f"if you trust that module, start the actor with --module {module}"
            )
    if own_contract(config.own) != contract:
        named = " or ".join(sorted(set(map(own.module_of, config.own))))
        raise ClewError(f"the source of {named} is not the learner's; bring the same one to both machines")
    own.require(config)
    return config


def work_on(lease: Lease, theta_P: Floats, config: Config) -> Rollouts:
    """What a lease asks for: a pure function, but for the seconds that it took."""
    mazes, stages, seconds = collect(theta_P, lease.seed, config)
    return Rollouts(lease.batch, lease.chunk, lease.issue, lease.version, seconds, mazes, stages)


def live(actor: Actor) -> None:
    """An actor's life, until the run is over, SIGINT or SIGTERM."""
    signal.signal(signal.SIGINT, actor.stop)
    signal.signal(signal.SIGTERM, actor.stop)
    actor.run()

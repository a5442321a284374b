"""The actor, which joins a learner, works on its leases and leaves. It holds nothing that matters."""

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
from protocol.wire.traces import Span, Tell, lease_of, part_of, trace_of
from protocol.world.cells import Floats

CAPACITY = 2  # leases held: one in work, and one so that there is no waiting for the next
POLL_S = 0.05  # the longest wait for a message
SILENCE_S = 2.5  # without a word from the learner, which pings every second; then an idle actor says Hello again
PATIENCE_S = 2.0  # without a connection; then the log says why there is none, and the time is doubled
LONGEST_PATIENCE_S = 600.0
AGAIN_S = 0.5  # before a Hello that the learner asked for
LATE_S = 0.05  # the longest that theta may usually come after the lease that needs it
FETCH_S = 1.0  # between two requests for the same theta

log = logging.getLogger("clew")


class Interrupted(BaseException):
    """Raised by a signal to give up the work on a lease, because the actor shall end."""


class Actor:
    """One worker with one thread: it hears what came, works on a lease, and begins again."""

    def __init__(self, connect: str, name: str, keys: ActorKeys | None = None, modules: Collection[str] = ()) -> None:
        """Begins to connect to a learner; raises ClewError where `connect` is of no use.

        Args:
          connect: the learner's address.
          name: the actor's name, for people.
          keys: the actor's keys; None connects without encryption.
          modules: modules of the user's own that the actor may import where the learner's config names them.
        """
        self.should_exit = False
        self._modules = modules
        self.metrics_at = ""  # HOST:PORT of the metrics, as Hello says it
        self.tell: Tell | None = None  # takes a span of every piece of work, where somebody traces it
        self._connect = connect
        self._links = ActorLinks(connect, keys)  # connected as soon as there is a learner
        self._name = name
        self._log = logging.LoggerAdapter(log, {})
        self._hello_due = 0.0
        self._connection = 0  # the number of the connection, as the links count them
        self._welcomed_on = 0  # the connection of the last Welcome
        self._trouble = ""  # why there is no connection, as the links say it
        self._patience_s = PATIENCE_S
        self._lost_at = time.monotonic()  # the time when the connection ended, or when the log last said why
        self.metrics = ActorMetrics(lambda: {"sent": self._links.sent_bytes, "received": self._links.received_bytes})
        self._working = False
        self._session = ""
        self._config: Config | None = None
        self._leases: deque[Lease] = deque()
        self._thetas: dict[int, Floats] = {}  # [P] by version, the newest few
        self._wanted, self._fetch_due = -1, 0.0

    def run(self) -> None:
        """Works until the run is over, or `stop` is called; raises ClewError where the learner refuses the actor."""
        self._log.info("the actor looks for the learner at %s", self._connect)
        try:
            with suppress(Interrupted):
                while not self.should_exit:
                    self.step()
        finally:
            self.shutdown()

    def stop(self, number: int, frame: object) -> None:
        """Ends the actor, as a signal handler; its leases go back at once, whatever it is doing."""
        self.should_exit = True
        if self._working:
            self._working = False
            raise Interrupted

    @property
    def is_ready(self) -> bool:
        """Says whether there is a learner that the actor works for."""
        return bool(self._connection) and self._welcomed_on == self._connection

    def step(self) -> None:
        """Hears all that came; then works on one lease, or asks for what it lacks."""
        self._hear_all()
        self._notice_the_connection()
        now = time.monotonic()
        if self._leases and self._config:
            version = self._leases[0].version
            if version in self._thetas:
                self._work(self._leases.popleft(), self._config)
            else:
                self._lack(version, now)
        elif self._connection and now >= self._hello_due:
            self._links.send(encode(Hello(CONTRACT, self._name, CAPACITY, self.metrics_at)))
            self._hello_due = now + SILENCE_S

    def shutdown(self) -> None:
        """Leaves the learner, which gives the actor's leases to others."""
        self._links.send(encode(Bye("retry", "the actor stops")))
        self._links.close()

    def _notice_the_connection(self) -> None:
        """Begins anew over a new connection, on which the learner, the same or another, knows nothing of this actor."""
        if self._links.trouble != self._trouble:
            self._trouble = self._links.trouble
            if self._trouble:
                self._log.warning("%s: %s; the actor tries again", self._connect, self._trouble)
        if self._links.connection != self._connection:
            self._connection = self._links.connection
            if self._connection > 1:
                self.metrics.reconnects.inc()
            state = "is connected to" if self._connection else "has no connection to"
            self._log.info("the actor %s %s", state, self._connect)
            self._leases.clear()
            self._hello_due = 0.0
            self._patience_s, self._lost_at = PATIENCE_S, time.monotonic()
        elif not (self._connection or self._trouble) and time.monotonic() - self._lost_at >= self._patience_s:
            self._patience_s, self._lost_at = min(2 * self._patience_s, LONGEST_PATIENCE_S), time.monotonic()
            # Looking up a name may take long, and must not keep a signal or the learner waiting.
            threading.Thread(target=say_why, args=(self._connect, self._log), daemon=True).start()

    def _hear_all(self) -> None:
        """Hears all messages that are there; waits for one for a moment if there is nothing to work on."""
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
        """Does what a message asks for."""
        if not isinstance(message, Theta):  # theta has a link of its own, and does not show that the work link lives
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
        """Follows a learner; drops all that the actor holds if the learner was started anew and knows nothing of it."""
        self._welcomed_on = self._connection
        self._links.follow(welcome.theta_port)
        if welcome.session != self._session:
            self._session = welcome.session
            self._log.extra = {"run": welcome.run}
            self._config = admitted(Config.model_validate_json(welcome.config), welcome.own, self._modules)
            self._log.info("the actor works for the learner at %s", self._connect)
            self._leases.clear()
            self._thetas.clear()

    def _remember(self, theta: Theta) -> None:
        """Keeps the newest few versions of theta."""
        self._thetas[theta.version] = theta.vector
        self.metrics.version.set(max(self._thetas))
        if self._config:
            for version in sorted(self._thetas)[: -(self._config.run.lag + 2)]:
                del self._thetas[version]

    def _obey(self, bye: Bye) -> None:
        """Ends or begins anew, as the learner says; raises ClewError where it refuses the actor."""
        if bye.verdict == "refused":
            raise ClewError(f"the learner refused this actor: {bye.reason}")
        self.should_exit |= bye.verdict == "over"
        self._leases.clear()
        self._hello_due = time.monotonic() + AGAIN_S

    def _work(self, lease: Lease, config: Config) -> None:
        """Works on a lease, and sends what it asks for."""
        self._working = True  # from here on a signal interrupts
        if self.should_exit:
            return
        began_s = time.time()
        rollouts = work_on(lease, self._thetas[lease.version], config)
        self._working = False
        self._links.send(encode(rollouts))  # if there is no learner any more, nobody needs them
        self.metrics.count(rollouts)
        if self.tell:
            self.tell(span_of(rollouts, self._session, self._name, began_s))

    def _lack(self, version: int, now: float) -> None:
        """Waits for a theta that a lease needs, and asks for it where it is late: on its link it may be lost."""
        if version != self._wanted:
            self._wanted, self._fetch_due = version, now + LATE_S
        elif now >= self._fetch_due:
            self._links.send(encode(Fetch(version)))
            self._fetch_due = now + FETCH_S


def admitted(config: Config, contract: str, modules: Collection[str]) -> Config:
    """Returns a learner's config once the functions of the user's own that it names are known to be the same here.

    Raises ClewError where they are not here, are others, or may not be imported: nothing is imported that `modules`
    does not name, whatever the learner wants. `contract`: what the learner says of the modules of those functions.
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
    """Computes what a lease asks for: a pure function, except for the seconds that it took."""
    mazes, stages, seconds = collect(theta_P, lease.seed, config)
    return Rollouts(lease.batch, lease.chunk, lease.issue, lease.version, seconds, mazes, stages)


def span_of(rollouts: Rollouts, session: str, name: str, began_s: float) -> Span:
    """Describes the work on a lease, which has just ended, as a part of that lease's span."""
    trace, lease = trace_of(session, rollouts.batch), lease_of(session, rollouts.issue)
    seconds = {f"{work}_s": seconds for work, seconds in rollouts.seconds.items()}
    number = part_of(session, "work", rollouts.issue)
    return Span("work", trace, number, lease, began_s, time.time(), {"actor": name, **seconds})


def say_why(connect: str, told: logging.LoggerAdapter[logging.Logger]) -> None:
    """Logs why nobody can be reached at an address; nothing where somebody listens there."""
    if reason := fault(Address.of(connect)):
        told.warning("%s; %s The actor tries again", reason, REMEDY)


def live(actor: Actor) -> None:
    """Runs an actor until the run is over, or SIGINT or SIGTERM comes."""
    signal.signal(signal.SIGINT, actor.stop)
    signal.signal(signal.SIGTERM, actor.stop)
    actor.run()

"""An actor's ends of the two links: work, on which it gets leases and sends rollouts, and theta, which it follows."""

from __future__ import annotations

import time
from contextlib import suppress

import zmq
from zmq.utils.monitor import recv_monitor_message

from protocol.config import ClewError
from protocol.wire.address import Address
from protocol.wire.frames import ACTOR_LIMITS
from protocol.wire.keys import ActorKeys
from protocol.wire.sockets import ACTOR_THETA, ACTOR_WORK, LINGER_MS, Frames, Socket, new_socket, send_all

FAILURES = (  # events of libzmq that end a handshake
    zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
NOT_ALLOWED = "the learner refused this actor's key; allow it there with `clew keys add`"
# A learner with other keys hangs up and gives no reason; so does a learner that ends, and a peer that is no learner.
OTHER_KEYS = (
    "the handshake fails: perhaps the learner has another key than learner.key says, or none; "
    "compare the two, and start both with --keys"
)
NO_KEYS = (
    "the handshake fails: perhaps one side has keys and the other none, or it is no learner; "
    "start both with --keys or neither, or change the address"
)
FIRST_PAUSE_S = 0.1  # after a handshake that failed; doubled with each further one
LONGEST_PAUSE_S = 2.0
REFUSED_PAUSE_S = 30.0  # the longest pause after the learner has refused the key
RETRY_PAUSE_S = 1.0  # the longest, between two tries to connect to a name


class ActorLinks:
    """An actor's ends of both links. Connections are made, and made again, in the background."""

    def __init__(self, connect: str, keys: ActorKeys | None = None) -> None:
        """Begins to connect to the learner at `connect`; raises ClewError where that is no address, or has no port."""
        self._address = Address.of(connect)
        if self._address.port == "*":
            raise ClewError(f"{connect} names no port; use the one that the learner printed")
        self._keys = keys
        self._context = zmq.Context()
        self._work = new_socket(self._context, zmq.DEALER, self._address, ACTOR_LIMITS.frame_bytes, ACTOR_WORK, keys)
        self._events = self._work.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | FAILURES | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED
        )
        self._work.connect(str(self._address))
        self._theta: Socket | None = None
        self._theta_port = -1
        self._poller = zmq.Poller()
        for link in (self._work, self._events):
            self._poller.register(link, zmq.POLLIN)
        self.connections = 0  # made so far
        self.connection = 0  # the number of the connection that there is; 0 while there is none
        self.trouble = ""  # why there is no connection, where the last handshake failed
        self._failures, self._again_at = 0, 0.0  # handshakes that failed in a row; when the next one begins
        self._retries = 0  # connections to a name in a row that were refused, or came to nothing
        self.sent_bytes = self.received_bytes = 0

    def follow(self, theta_port: int) -> None:
        """Listens for theta on the port that Welcome names, and nowhere else; 0 stands for ipc."""
        if theta_port == self._theta_port:
            return
        self._unfollow()
        self._theta_port = theta_port
        self._theta = new_socket(
            self._context, zmq.SUB, self._address, ACTOR_LIMITS.frame_bytes, ACTOR_THETA, self._keys
        )
        self._theta.set(zmq.IPV6, self._work.get(zmq.IPV6))
        self._theta.set(zmq.SUBSCRIBE, b"")
        self._theta.connect(str(self._address.theta(theta_port)))
        self._poller.register(self._theta, zmq.POLLIN)

    def receive(self, timeout_s: float) -> list[Frames]:
        """Returns all messages that are there, theta first; waits for one if there is none."""
        ready = dict(self._poller.poll(int(timeout_s * 1000)))
        self._watch()
        messages: list[Frames] = []
        for link in (self._theta, self._work):
            while link in ready and link and link.poll(0):
                messages.append(link.recv_multipart(zmq.NOBLOCK))
        self.received_bytes += sum(len(frame) for frames in messages for frame in frames)
        return messages

    def send(self, frames: Frames) -> bool:
        """Sends a message without blocking; says whether it is on its way, or waits for a learner."""
        try:
            send_all(self._work, frames)
        except zmq.Again:
            return False
        self.sent_bytes += sum(map(len, frames))
        return True

    def close(self) -> None:
        """Ends both links, after a moment for what is still to be sent."""
        self._context.destroy(LINGER_MS)

    def _watch(self) -> None:
        """Notices what became of the connection to the learner, and makes the next try where it is due.

        After some failures libzmq would not try again, after others it would ten times a second.
        """
        retried = False
        while self._events.poll(0):
            event = recv_monitor_message(self._events)["event"]
            retried = event == zmq.EVENT_CONNECT_RETRIED
            if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
                self.connections += 1
                self.connection, self.trouble, self._failures, self._retries = self.connections, "", 0, 0
                self._unfollow()  # until the Welcome that comes over it
            elif event & FAILURES:
                self._fail(event)
            elif event == zmq.EVENT_DISCONNECTED:
                self.connection = 0
        if retried and self._address.is_name:
            self._try_the_other_family()
        if self._again_at and time.monotonic() >= self._again_at:
            self._again_at = 0.0
            self._work.connect(str(self._address))

    def _try_the_other_family(self) -> None:
        """Changes between IPv4 and IPv6: a name may have addresses of either kind, and libzmq tries one kind alone."""
        with suppress(zmq.ZMQError):  # it has been disconnected already
            self._work.disconnect(str(self._address))
        self._work.set(zmq.IPV6, int(not self._work.get(zmq.IPV6)))
        self._again_at = time.monotonic() + min(FIRST_PAUSE_S * 2.0 ** min(self._retries, 10), RETRY_PAUSE_S)
        self._retries += 1

    def _fail(self, event: int) -> None:
        """Ends a connection whose handshake failed, and sets the time of the next try."""
        self.connection, self._failures = 0, self._failures + 1
        self._unfollow()
        with suppress(zmq.ZMQError):  # libzmq has given it up already
            self._work.disconnect(str(self._address))
        refused = event == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        longest_s = REFUSED_PAUSE_S if refused else LONGEST_PAUSE_S
        self._again_at = time.monotonic() + min(FIRST_PAUSE_S * 2.0 ** min(self._failures - 1, 10), longest_s)
        if refused:
            self.trouble = NOT_ALLOWED
        elif self._failures >= 3:  # a learner that ends fails once or twice, and looks the same
            self.trouble = OTHER_KEYS if self._keys else NO_KEYS

    def _unfollow(self) -> None:
        """Ends the theta link, if there is one."""
        if self._theta:
            self._poller.unregister(self._theta)
            self._theta.close()
        self._theta, self._theta_port = None, -1

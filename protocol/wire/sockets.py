"""ZeroMQ sockets as both sides use them: their options, their queues, and how a message is sent.

There are two links between a learner and its actors: work (DEALER -> ROUTER) and theta (PUB -> SUB). The learner's ends
are in `protocol.wire.learner_links`, an actor's in `protocol.wire.actor_links`.
"""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from protocol.wire.address import Address
from protocol.wire.door import DOMAIN
from protocol.wire.keys import ActorKeys, LearnerKeys

Frames = Sequence[bytes]
Socket = zmq.Socket[bytes]

HEARTBEAT_MS = 1_000  # between two ZMTP pings, which find a frozen or unreachable peer
DEAD_AFTER_MS = 3_000  # without an answer to a ping
# How many messages may wait to be sent and to be read. A peer that stops reading must not stop the heartbeats, which
# come behind the messages: an actor may work on a lease for minutes while it is pinged.
LEARNER_WORK = (64, 64)  # per actor, which holds no more than a few leases
ACTOR_WORK = (4, 1_000)
# Versions of theta per actor; an actor that falls further behind fetches. The learner reads two subscriptions at a
# time: at one, libzmq hears no subscription at all on a link with keys.
LEARNER_THETA = (8, 2)
ACTOR_THETA = (1, 64)
LINGER_MS = 500  # the time that the last Bye has to get out
CONNECT_MS = 1_500  # otherwise the system's attempts, seconds apart after a cut, decide when a connection is made again
MORE, LAST = int(zmq.NOBLOCK | zmq.SNDMORE), int(zmq.NOBLOCK)  # flags of a frame that others follow, and of the last


def new_socket(
    context: zmq.Context[Socket],
    kind: int,
    address: Address,
    largest_bytes: int,
    queue: tuple[int, int],
    keys: LearnerKeys | ActorKeys | None,
) -> Socket:
    """Makes a socket with the options that all sockets of clew share.

    Args:
      kind: the type of the socket, as zmq counts them.
      address: the learner's; it decides whether the socket speaks IPv6.
      largest_bytes: a frame that is larger ends its connection.
      queue: how many messages may wait to be sent and to be read.
      keys: the keys of the side that opens the socket; None leaves it without encryption.
    """
    link = context.socket(kind)
    if keys:
        link.set(zmq.CURVE_PUBLICKEY, keys.public)
        link.set(zmq.CURVE_SECRETKEY, keys.secret)
    if isinstance(keys, LearnerKeys):
        link.set(zmq.CURVE_SERVER, 1)
        link.setsockopt_string(zmq.ZAP_DOMAIN, DOMAIN)
    elif keys:
        link.set(zmq.CURVE_SERVERKEY, keys.learner)
    link.set(zmq.IPV6, int(address.place.startswith("[")))
    link.set(zmq.SNDHWM, queue[0])
    link.set(zmq.RCVHWM, queue[1])
    link.set(zmq.MAXMSGSIZE, largest_bytes)
    link.set(zmq.LINGER, LINGER_MS)
    # Only actors ping, and their pings say when the learner may take them for dead. A learner's own ping to an actor
    # that hung up while its messages found no room would abort the whole process (zeromq/libzmq #4364).
    link.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS if kind in (zmq.DEALER, zmq.SUB) else 0)
    link.set(zmq.HEARTBEAT_TIMEOUT, DEAD_AFTER_MS)
    link.set(zmq.HEARTBEAT_TTL, DEAD_AFTER_MS)
    link.set(zmq.HANDSHAKE_IVL, DEAD_AFTER_MS)
    link.set(zmq.CONNECT_TIMEOUT, CONNECT_MS)
    link.set(zmq.RECONNECT_IVL, 100)
    link.set(zmq.RECONNECT_IVL_MAX, 1_000)
    return link


def send_all(link: Socket, frames: Frames) -> None:
    """Sends one message without waiting; raises zmq.Again where there is no room for it.

    This is twice as fast as `send_multipart`, whose flags are no plain numbers.
    """
    for frame in frames[:-1]:
        link.send(frame, MORE)
    link.send(frames[-1], LAST)

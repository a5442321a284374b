"""The binding of sockets where nobody else listens, and what is in the way where that fails."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import zmq

from protocol.config import ClewError
from protocol.wire.address import Address


def bind(link: zmq.Socket[bytes], address: Address) -> Address:
    """Binds a socket, and returns the address where it is bound; raises ClewError where it cannot be."""
    numeric = str(address).replace("//localhost:", "//127.0.0.1:")  # libzmq binds no names
    if address.scheme == "ipc" and _is_served(address.place):
        raise _occupied(address)
    try:
        link.bind(numeric)
    except zmq.ZMQError as error:
        if error.errno == zmq.EADDRINUSE:
            raise _occupied(address) from None
        raise ClewError(f"cannot bind {address}: {os.strerror(error.errno or 0)}; choose another address") from None
    return Address.of(link.getsockopt_string(zmq.LAST_ENDPOINT)) if address.scheme == "tcp" else address


def bind_beside(link: zmq.Socket[bytes], work: Address) -> Address:
    """Binds the theta link next to the work link, as `bind` does: on the next port, or on any free one."""
    if work.scheme == "tcp" and int(work.port) < 65_535:
        with suppress(ClewError):  # somebody else has it
            return bind(link, work.theta(int(work.port) + 1))
    return bind(link, work.theta("*"))


def _occupied(address: Address) -> ClewError:
    """Makes the error of an address that is in use."""
    return ClewError(f"{address} is in use; end the learner that holds it, or choose another address")


def _is_served(path: str) -> bool:
    """Says whether somebody listens on a Unix socket; libzmq would take the place of that process and not say so."""
    with socket.socket(socket.AF_UNIX) as probe:
        return Path(path).exists() and probe.connect_ex(path) == 0

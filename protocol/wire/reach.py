"""A test whether anybody listens at an address: libzmq tries again and again, and never says why it fails."""

from __future__ import annotations

import socket

from protocol.wire.address import Address

TIMEOUT_S = 3.0  # the longest wait for one of the host's addresses
REMEDY = "is the learner running and bound to this address, and does a firewall let it through?"


def fault(address: Address) -> str:
    """Says why nobody can be reached at an address; returns "" where somebody listens."""
    try:
        if address.scheme == "ipc":
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(TIMEOUT_S)
                probe.connect(address.place)
        else:
            socket.create_connection((address.host, int(address.port)), TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        return f"{address} cannot be reached: {reason or error}"
    return ""

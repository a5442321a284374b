"""The address of a learner: tcp://HOST:PORT or ipc://PATH."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.config import ClewError

MAX_IPC_PATH = 107 - len(".theta")  # bytes, of a Unix socket's address
TCP = re.compile(r"tcp://(\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[!-~]+?):(\d{1,5}|\*)", re.ASCII)
NAME = re.compile(r"[^\s:/\[\]%]{1,253}")
MAX_LABEL = 63  # characters between two dots of a name


@dataclass(frozen=True)
class Address:
    """An address in parts: tcp://HOST:PORT or ipc://PATH."""

    scheme: str
    place: str  # host, an IPv6 address in brackets, or path
    port: str  # "*" stands for any free port; "" for ipc

    @staticmethod
    def of(text: str) -> Address:
        """Reads an address; raises ClewError where `text` is none."""
        tcp = TCP.fullmatch(text)
        if tcp and _is_host(tcp[1]) and (tcp[2] == "*" or int(tcp[2]) <= 65_535):
            return Address("tcp", tcp[1], "*" if tcp[2] == "0" else tcp[2])
        ipc = re.fullmatch(r"ipc://([^\0@\ud800-\udfff][^\0\ud800-\udfff]*)", text)
        if ipc and len(os.fsencode(ipc[1])) <= MAX_IPC_PATH:
            return Address("ipc", ipc[1], "")
        raise ClewError(
            f"{text!r} is no address; use tcp://HOST:PORT, tcp://[IPV6]:PORT, or ipc://PATH of {MAX_IPC_PATH} bytes "
            "at most"
        )

    def __str__(self) -> str:
        return f"tcp://{self.place}:{self.port}" if self.scheme == "tcp" else f"ipc://{self.place}"

    def theta(self, port: int | str) -> Address:
        """Returns the address at which theta is published: another port of the same host, or PATH.theta."""
        if self.scheme == "tcp":
            return Address("tcp", self.place, str(port))
        return Address("ipc", self.place + ".theta", "")

    @property
    def host(self) -> str:
        """Returns the host without brackets."""
        return self.place.strip("[]")

    @property
    def is_name(self) -> bool:
        """Says whether the host is a name, whose addresses may be IPv4, IPv6, or both."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return self.scheme == "tcp"
        return False

    @property
    def is_local(self) -> bool:
        """Says whether nobody on another machine can reach the address."""
        if self.scheme == "ipc" or self.place == "localhost":
            return True
        return not self.is_name and ipaddress.ip_address(self.host).is_loopback


def host_port(host: str, port: int | str) -> str:
    """Writes HOST:PORT, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_host(place: str) -> bool:
    """Says whether `place` is an IPv6 address in brackets, or can be a name or an IPv4 address."""
    if place.startswith("["):
        try:
            return ipaddress.ip_address(place[1:-1]).version == 6
        except ValueError:
            return False
    labels = place.removesuffix(".").split(".")
    return bool(NAME.fullmatch(place)) and all(0 < len(label) <= MAX_LABEL for label in labels)


def metrics_target(told: str, seen: str, is_ipc: bool, allowed: Sequence[str] = ()) -> tuple[str, bool]:
    """Returns HOST:PORT of an actor's metrics, or "", and whether the actor named a host that does not count.

    Args:
      told: what the actor says: HOST:PORT, :PORT or "". Its port counts, and its host if it is one of `allowed`.
      seen: the host where the learner sees the actor, which counts otherwise.
      is_ipc: all actors are on this machine.
      allowed: hosts that an actor may name although it is seen at another.
    """
    named, _, port = told.rpartition(":")
    named, host = named.strip("[]"), "127.0.0.1" if is_ipc else seen
    is_allowed = named in [other.strip("[]") for other in allowed]
    is_foreign = bool(named) and named != host and not is_allowed
    if is_allowed:
        host = named
    return (host_port(host, port) if host and port and 0 < int(port) <= 65_535 else ""), is_foreign

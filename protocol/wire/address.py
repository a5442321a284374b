"""Where a learner is: tcp://HOST:PORT or ipc://PATH."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from protocol.config import ClewError

MAX_IPC_PATH = 107 - len(".theta")  # bytes, of a Unix socket's address


@dataclass(frozen=True)
class Address:
    """tcp://HOST:PORT or ipc://PATH."""

    scheme: str
    place: str  # host or path
    port: str  # "*": any free one; "" for ipc

    @staticmethod
    def of(text: str) -> Address:
        """The address that `text` says, or ClewError."""
        tcp = re.fullmatch(r"tcp://(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):(\d{1,5}|\*)", text)
        if tcp and (tcp[2] == "*" or int(tcp[2]) <= 65_535):
            return Address("tcp", tcp[1], "*" if tcp[2] == "0" else tcp[2])
        ipc = re.fullmatch(r"ipc://([^\0@][^\0]*)", text)
        if ipc and len(os.fsencode(ipc[1])) <= MAX_IPC_PATH:
            return Address("ipc", ipc[1], "")
        raise ClewError(f"{text!r} is no address; use tcp://HOST:PORT, or ipc://PATH of {MAX_IPC_PATH} bytes at most")

    def __str__(self) -> str:
        return f"tcp://{self.place}:{self.port}" if self.scheme == "tcp" else f"ipc://{self.place}"

    def theta(self, port: int | str) -> Address:
        """Where theta is published: another port of the same host, or PATH.theta."""
        if self.scheme == "tcp":
            return Address("tcp", self.place, str(port))
        return Address("ipc", self.place + ".theta", "")

    @property
    def is_local(self) -> bool:
        """Whether nobody on another machine can reach it."""
        if self.scheme == "ipc" or self.place == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.place.strip("[]")).is_loopback
        except ValueError:
            return False


def metrics_target(told: str, seen: str, is_ipc: bool, allowed: Sequence[str] = ()) -> tuple[str, bool]:
    """HOST:PORT of an actor's metrics, "" where there are none; and whether it named a host in vain.

    The port is what it told; the host is where the learner sees it, unless it told one of `allowed`.
    """
    named, _, port = told.rpartition(":")
    host = "127.0.0.1" if is_ipc else written(seen)
    is_foreign = bool(named) and named != host and named not in allowed
    if named in allowed:
        host = named
    return (f"{host}:{port}" if host and port and 0 < int(port) <= 65_535 else ""), is_foreign


def written(host: str) -> str:
    """As a part of HOST:PORT: a numeric address as short as it can be, in brackets where it has colons."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    plain = getattr(address, "ipv4_mapped", None) or address
    return f"[{plain}]" if plain.version == 6 else str(plain)

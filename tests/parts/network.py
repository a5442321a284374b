"""Two network namespaces, joined by a cable that can be cut."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Side:
    """A namespace: as far as its processes see, a machine of its own."""

    name: str
    link: str  # its end of the cable
    address: str

    @property
    def prefix(self) -> list[str]:
        """Goes before a command, to run it there."""
        return ["ip", "netns", "exec", self.name]


@dataclass(frozen=True)
class Cable:
    """A cable that joins two namespaces."""

    near: Side
    far: Side

    def cut(self) -> None:
        """Whatever is sent is lost, and nobody is told: `far` sees silence."""
        ip("-n", self.near.name, "link", "set", self.near.link, "down")

    def heal(self) -> None:
        ip("-n", self.near.name, "link", "set", self.near.link, "up")


@contextmanager
def joined_namespaces() -> Iterator[Cable]:
    """Two of them, with names of their own; gone in the end. Skips the test where that is not allowed."""
    name = f"clew{secrets.token_hex(3)}"
    near, far = (Side(f"{name}{end}", f"{name}{end}", f"10.99.0.{end}") for end in (1, 2))
    with ExitStack() as undo:
        for side in (near, far):
            try:
                ip("netns", "add", side.name)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f"only root can make network namespaces, where they are allowed at all: {error}")
            undo.callback(ip, "netns", "del", side.name)  # and its end of the cable, and so the other
        create = f"link add {near.link} netns {near.name} type veth peer name {far.link} netns {far.name}"
        ip(*create.split())
        for side in (near, far):
            ip("-n", side.name, "address", "add", f"{side.address}/24", "dev", side.link)
            for link in ("lo", side.link):
                ip("-n", side.name, "link", "set", link, "up")
        yield Cable(near, far)


def ip(*command: str) -> None:
    subprocess.run(["ip", *command], check=True, capture_output=True, text=True)

"""`python -m deploy.health [PORT]`: exit code 0 where /healthz says 200. An image's health check.

Without a port it asks the one on which this container's processes listen: an actor may serve its metrics on any
free one. It imports next to nothing, since it runs every few seconds.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

LISTENING = "0A"  # https://docs.kernel.org/networking/proc_net_tcp.html
TIMEOUT_S = 4.0


def main() -> None:
    ports = [int(port) for port in sys.argv[1:]] or listening()
    sys.exit(not any(is_well(port) for port in ports))


def is_well(port: int) -> bool:
    """Whether who listens there says so."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.settimeout(TIMEOUT_S)
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        return connection.recv(64).split()[1:2] == [b"200"]
    return False


def listening() -> list[int]:
    """The ports of the processes that can be seen: those of this container, even in the host's network."""
    ours = {f"socket:[{line[9]}]": int(line[1].rpartition(":")[2], 16) for line in sockets()}
    files = [file for folder in Path("/proc").glob("[0-9]*/fd") for file in contents(folder)]
    return sorted({ours[file] for file in files if file in ours})


def sockets() -> list[list[str]]:
    """The fields of every socket of TCP that listens."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return [fields for line in lines if (fields := line.split())[3] == LISTENING]


def contents(folder: Path) -> list[str]:
    """What a process has open, as far as one may know."""
    found = []
    with suppress(OSError):
        for file in os.listdir(folder):
            with suppress(OSError):  # closed in the meantime
                found.append(os.readlink(folder / file))
    return found


if __name__ == "__main__":
    main()

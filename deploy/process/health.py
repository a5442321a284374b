"""The health check of the images: `python -m deploy.process.health [PORT]` has exit code 0 where /healthz says 200.

Without a port it asks every port on which this container's processes listen, since an actor may serve its metrics on
any free one. It imports very little, since it runs every few seconds.
"""

from __future__ import annotations

import os
import socket
import sys
from contextlib import suppress

LISTENING = "0A"  # https://docs.kernel.org/networking/proc_net_tcp.html
TIMEOUT_S = 4.0


def main() -> None:
    """Ends the process with exit code 0 where one of the ports is well, and 1 where none is."""
    ports = [int(port) for port in sys.argv[1:]] or listening()
    sys.exit(not any(is_well(port) for port in ports))


def is_well(port: int) -> bool:
    """Asks /healthz on a port of this machine, and returns whether it says 200."""
    for host in ("127.0.0.1", "::1"):
        with suppress(OSError), socket.create_connection((host, port), TIMEOUT_S) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
            return connection.recv(64).split()[1:2] == [b"200"]
    return False


def listening() -> list[int]:
    """Returns the ports of all processes that can be seen: those of this container, even in the host's network."""
    fields = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError), open(table) as lines:  # a kernel without IPv6 has but one
            fields += [line.split() for line in lines][1:]
    ports = {f"socket:[{line[9]}]": int(line[1].rpartition(":")[2], 16) for line in fields if line[3] == LISTENING}
    processes = [name for name in os.listdir("/proc") if name.isdigit()]
    return sorted({ports[file] for process in processes for file in open_files(process) if file in ports})


def open_files(process: str) -> list[str]:
    """Returns what files a process has open, as far as this user may know."""
    found = []
    with suppress(OSError):
        for name in os.listdir(f"/proc/{process}/fd"):
            with suppress(OSError):  # closed in the meantime
                found.append(os.readlink(f"/proc/{process}/fd/{name}"))
    return found


if __name__ == "__main__":
    main()

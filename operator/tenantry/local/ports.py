"""Free TCP ports on the loopback address."""

from __future__ import annotations

import random
import socket
from contextlib import suppress
from pathlib import Path

LOOPBACK = "127.0.0.1"

LOWEST = 10_000
"""Below this are the ports that well-known servers have."""

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nothing listens on.

    Not those that the kernel gives to whoever asks for any: while a server is down, its port would soon be
    another's. A program may still take one before it is used, so a caller must be ready to ask again.
    """
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(LOWEST, _first_ephemeral())
        if is_free(port):
            found.add(port)
    return list(found)


def _first_ephemeral() -> int:
    first = 49152  # of IANA, and of other kernels
    with suppress(OSError, ValueError, IndexError):
        first = int(_EPHEMERAL.read_text().split()[0])
    return first if first > 2 * LOWEST else 2**16


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` now."""
    with socket.socket() as probe:
        # As servers do: a port whose old connections linger in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True

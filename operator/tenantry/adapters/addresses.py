"""Addresses of servers that are spoken to by HTTP, and by gRPC on a second port."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from tenantry.reconcile.ports import Refused

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is, and the operator's key there, which is never shown."""

    scheme: str
    host: str
    port: int
    grpc_port: int
    key: str = field(repr=False)

    @property
    def url(self) -> str:
        """Return the address without the key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse(text: str, grpc_port: int, no_address: str) -> Address:
    """Return what an address says. Raises Refused with `no_address`, which does not repeat it.

    grpc_port: where it says none.
    """
    try:
        split = urlsplit(text)
        port = split.port or _PORTS[split.scheme]
        options = dict(part.partition("=")[::2] for part in split.query.split("&") if part)
        grpc_port = int(options.pop("grpc_port", grpc_port))
    except (ValueError, KeyError):
        raise Refused(no_address) from None
    key = unquote(split.password or "")
    if not (split.hostname and key) or options or split.path.strip("/") or not 0 < grpc_port < 65536:
        raise Refused(no_address)
    return Address(split.scheme, split.hostname, port, grpc_port, key)

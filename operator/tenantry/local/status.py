"""What `tenantry status` knows about an environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Part:
    """One daemon of an environment."""

    name: str
    pid: int | None
    """None while it is not running."""
    log: Path


@dataclass(frozen=True)
class TenantRow:
    """What the table shows of one Tenant."""

    name: str
    plan: str
    phase: str
    namespace: str
    ready: str
    """Of the condition: True, False or Unknown."""
    created: datetime
    ready_since: datetime | None
    message: str
    shard: str = ""
    """Where its vectors are."""

    @classmethod
    def of(cls, tenant: Mapping[str, Any]) -> TenantRow:
        """Read a Tenant object, which the operator may not have seen yet."""
        status = tenant.get("status", {})
        conditions = {each["type"]: each for each in status.get("conditions", [])}
        ready = conditions.get("Ready", {})
        is_ready = ready.get("status") == "True"
        since = ready.get("lastTransitionTime")
        return cls(
            name=tenant["metadata"]["name"],
            plan=status.get("plan") or tenant["spec"].get("plan") or "",
            phase=status.get("phase") or "Pending",
            namespace=status.get("namespace") or "",
            ready=ready.get("status") or "Unknown",
            created=datetime.fromisoformat(tenant["metadata"]["creationTimestamp"]),
            ready_since=datetime.fromisoformat(since) if is_ready and since else None,
            message="" if is_ready else ready.get("message", ""),
            shard=(status.get("placement") or {}).get("shard", ""),
        )


@dataclass(frozen=True)
class Status:
    """An environment at one moment."""

    state_dir: Path
    kubeconfig: Path
    kubectl: Path | None
    """The program; None while none was found or built."""
    url: str | None
    """The API server's address, None before the first start."""
    operator_port: int | None
    """Where the operator serves /healthz, /readyz and /metrics."""
    parts: tuple[Part, ...]
    api_ready: bool
    tenants: tuple[TenantRow, ...]

    @property
    def running(self) -> bool:
        """Whether every part runs and the API answers."""
        return self.api_ready and all(part.pid is not None for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """Return what `-o json` prints; times in UTC as RFC 3339, paths as strings."""
        now = datetime.now(UTC)
        return {
            "running": self.running,
            "stateDir": str(self.state_dir),
            "kubeconfig": str(self.kubeconfig),
            "kubectl": str(self.kubectl) if self.kubectl else None,
            "url": self.url,
            "operatorUrl": f"http://127.0.0.1:{self.operator_port}" if self.operator_port else None,
            "apiReady": self.api_ready,
            "parts": [{**asdict(part), "log": str(part.log)} for part in self.parts],
            "tenants": [
                {
                    "name": row.name,
                    "plan": row.plan,
                    "phase": row.phase,
                    "namespace": row.namespace,
                    "shard": row.shard,
                    "ready": row.ready,
                    "ageSeconds": int((now - row.created).total_seconds()),
                    "message": row.message,
                }
                for row in self.tenants
            ],
        }

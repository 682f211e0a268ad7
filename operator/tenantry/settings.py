"""Settings of the operator: environment variables with the prefix TENANTRY_, each also a value of the chart."""

from __future__ import annotations

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tenantry.domain.rebalance import THETA
from tenantry.domain.rebalancing import RebalanceTerms


def _words(value: object) -> object:
    """Let a list be written as words with commas between them."""
    return [word.strip() for word in value.split(",") if word.strip()] if isinstance(value, str) else value


def _network(text: str) -> str:
    return str(ipaddress.ip_network(text))


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], NoDecode, BeforeValidator(_words)]


def default_state_dir() -> Path:
    """Return the folder for the ledger where no database is named: that of `tenantry up` in its own default."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "tenantry" / "operator"


class Settings(BaseSettings):
    """What `tenantry run` can be told; it needs none of it."""

    model_config = SettingsConfigDict(env_prefix="TENANTRY_", extra="ignore", use_attribute_docstrings=True)

    state_dir: Path = Field(default_factory=default_state_dir)
    """Folder of the SQLite ledger, where `database_url` names no other."""
    database_url: str | None = None
    """The ledger, such as postgresql://user:password@host/tenantry. A secret."""
    default_plan: str = "free"
    """Plan of a Tenant that names none."""
    plan_grace_seconds: float = Field(default=120.0, ge=0)
    """How long a Tenant waits for a Plan that is not there yet before it counts as a mistake (Stalled)."""
    http_host: str = "0.0.0.0"
    """Address of the probes and metrics."""
    http_port: int = 8080
    """Port of the probes and metrics."""
    workers: int = Field(default=16, ge=1, le=256)
    """How many tenants are reconciled side by side."""
    relist_seconds: float = Field(default=600.0, gt=0)
    """How often everything is listed anew, to find what watches missed."""
    lease_namespace: str = "default"
    """Namespace of the Lease that decides which replica leads; in a pod, its own."""
    lease_seconds: int = Field(default=15, ge=2)
    """How long another replica waits before it takes over from one that went silent."""
    own_namespace: str = "tenantry-system"
    """Namespace of the Secrets that VectorShards refer to; in a pod, its own."""
    default_dimensions: int = Field(default=1536, ge=1, le=16000)
    """Dimensions of the vectors of a Tenant that says nothing of them."""
    credential_age_days: int = Field(default=90, ge=1, le=36_500)
    """After how many days a tenant's credentials of its vector store are replaced."""
    credential_grace_seconds: float = Field(default=3600.0, ge=0)
    """How long the credentials before may still be used."""
    shard_seconds: float = Field(default=30.0, ge=1)
    """How often a vector shard is looked at."""
    rebalance: bool = True
    """On or Off: whether the operator plans moves of tenants between shards."""
    rebalance_theta: float = Field(default=THETA, gt=0, le=1)
    """How far above its share a shard may be: 0.05 is five percent."""
    rebalance_over_seconds: float = Field(default=300.0, ge=0)
    """For how long a shard must be over its share before tenants are moved off it."""
    rebalance_tenant_seconds: float = Field(default=3600.0, ge=0)
    """How long a tenant that was moved is not moved again to even out shards."""
    rebalance_shard_seconds: float = Field(default=60.0, ge=0)
    """How long a shard rests after a move before another one evens it out."""
    dns_namespace: str = "kube-system"
    """Namespace of the cluster's DNS, which every tenant may ask."""
    scraper_namespaces: Words = ()
    """Namespaces from which tenants' metrics may be scraped, with commas between them."""
    api_server_cidrs: Networks = ()
    """Addresses of the API server that tenants' applications may reach, with commas between them."""
    export_url: str = ""
    """Where the vectors of deleted tenants are exported to when they are purged, such as s3://bucket/prefix or
    file:///exports. Empty: purges wait. The store's own variables have its credentials."""
    archive_history_days: int = Field(default=30, ge=0)
    """How long a purged or restored TenantArchive stays as a record."""
    log_level: str = "INFO"
    """DEBUG, INFO, WARNING or ERROR."""

    @property
    def rebalance_terms(self) -> RebalanceTerms:
        """Return how tenants are moved between shards."""
        return RebalanceTerms(
            enabled=self.rebalance,
            theta=self.rebalance_theta,
            over=timedelta(seconds=self.rebalance_over_seconds),
            tenant_pause=timedelta(seconds=self.rebalance_tenant_seconds),
            shard_pause=timedelta(seconds=self.rebalance_shard_seconds),
        )

    @property
    def ledger_url(self) -> str:
        """Return the database of the ledger."""
        return self.database_url or f"sqlite:///{self.state_dir / 'ledger.db'}"

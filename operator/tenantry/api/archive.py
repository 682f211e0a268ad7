"""TenantArchive: what is kept of a deleted tenant until its retention ends."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tenantry.api.common import AGE, ApiModel, Column, Count, Definition, Resource, Status, Timestamp
from tenantry.api.schema import Rule, Schema, list_map
from tenantry.api.tenant import NAMESPACE_PREFIX, Owner, Placement


class ArchivePhase(StrEnum):
    """The life of an archive."""

    KEPT = "Kept"
    RESTORED = "Restored"
    PURGED = "Purged"


def _immutable(field: str) -> Rule:
    path = f"__{field}__" if field == "namespace" else field  # a reserved word in CEL
    return Rule(
        f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || self.{path} == oldSelf.{path})",
        f"{field} cannot be changed, it says how the deleted tenant was; only purgeAfter can be changed",
        field_path=f".{field}",
        reason="FieldValueForbidden",
    )


class TenantArchiveSpec(ApiModel):
    """The deleted tenant, as it was."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                _immutable(field)
                for field in ("tenant", "tenantUID", "owner", "tenantSpec", "namespace", "placement")
            ]
        ).keywords
    )

    tenant: Annotated[str, Schema(minLength=1, maxLength=56)]
    """The name of the deleted Tenant."""
    tenant_uid: Annotated[str, Schema(minLength=1, maxLength=64)] = Field(alias="tenantUID")
    """The UID of the deleted Tenant: tells it from a later one of the same name."""
    owner: Owner
    """The deleted tenant's contact. A Tenant re-applied with the same address gets its data back."""
    tenant_spec: Annotated[dict[str, Any], Schema(kubernetes={"preserve-unknown-fields": True})] = Field(
        default_factory=dict
    )
    """The spec of the deleted Tenant, as it was."""
    namespace: Annotated[str, Schema(maxLength=63)] | None = None
    """The namespace that is kept."""
    placement: Placement | None = None
    """Where the deleted tenant's vectors are kept."""
    purge_after: Annotated[
        Timestamp,
        Schema(
            rules=[
                Rule(
                    "self.getFullYear() >= 1970 && self.getFullYear() < 9999",
                    "purgeAfter must be a time of the years 1970 to 9998, such as 2030-01-31T00:00:00Z",
                )
            ]
        ),
    ]
    """When namespace and data are removed for good. May be changed; deleting the TenantArchive means now."""


class Export(ApiModel):
    """Where the vectors of a place went before they were removed."""

    shard: Annotated[str, Schema(maxLength=63)]
    """The VectorShard that they were on."""
    epoch: Annotated[int, Schema(minimum=0, format="int64")]
    """The placement that they had there."""
    url: Annotated[str, Schema(maxLength=1024)]
    """The folder of the export: a manifest, and the file that it names."""
    rows: Count
    """How many vectors."""
    bytes: Count
    """Size of the file."""
    sha256: Annotated[str, Schema(maxLength=64)]
    """Checksum of the file as it is stored."""
    finished_at: Timestamp
    """When it was complete and read back."""


def _known_phase(value: object) -> object:
    """A phase that a newer operator wrote is no reason to stop reading the object."""
    return value if value is None or value in list(ArchivePhase) else None


class TenantArchiveStatus(Status):
    """What has become of it."""

    phase: Annotated[ArchivePhase | None, BeforeValidator(_known_phase)] = None
    """Kept until purgeAfter, Restored by a Tenant that took the data back, or Purged."""
    exports: Annotated[list[Export], list_map("url", max_items=16)] = Field(default_factory=list)
    """Where the vectors went that are purged: `tenantry restore <url> --tenant <name>` brings them back."""


class TenantArchive(Resource):
    """A TenantArchive is what is kept of a deleted Tenant until its retention ends. The operator writes it. Apply
    the Tenant again to take the data back; delete the TenantArchive to purge the data now."""

    DEFINITION: ClassVar[Definition] = Definition(
        plural="tenantarchives",
        short_names=["ta"],
        columns=[
            Column(name="Tenant", type="string", path=".spec.tenant", description="The deleted tenant"),
            Column(name="Phase", type="string", path=".status.phase", description="Kept, Restored or Purged"),
            Column(
                name="Purge-After",
                type="string",
                path=".spec.purgeAfter",
                description="When everything is removed",
            ),
            AGE,
            Column(
                name="Namespace",
                type="string",
                path=".spec.namespace",
                description="The namespace that is kept",
                priority=1,
            ),
            Column(
                name="Owner",
                type="string",
                path=".spec.owner.email",
                description="Who may take the data back",
                priority=1,
            ),
            Column(
                name="Message",
                type="string",
                path='.status.conditions[?(@.type=="Ready")].message',
                description="How it stands, and the next step",
                priority=1,
            ),
        ],
        selectable=[".spec.tenant", ".status.phase"],
    )

    kind: Literal["TenantArchive"] = "TenantArchive"
    spec: TenantArchiveSpec
    """The deleted tenant, as it was."""
    status: TenantArchiveStatus = Field(default_factory=TenantArchiveStatus)
    """What has become of it, as the operator last saw it. Written by the operator alone."""

    @property
    def namespace_name(self) -> str:
        """The name of the namespace that is kept."""
        return self.spec.namespace or f"{NAMESPACE_PREFIX}{self.spec.tenant}"

"""Tenant: one customer; who owns it, what it may do, where its data lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tenantry.api.common import (
    AGE,
    LABEL_VALUE_PATTERN,
    PENDING_STATUS,
    ApiModel,
    Column,
    Definition,
    DnsLabel,
    Resource,
    Status,
    Text,
)
from tenantry.api.namespace import Adoption as Adoption
from tenantry.api.namespace import NamespaceSpec as NamespaceSpec
from tenantry.api.presets import Model, RateLimits, Retrieval
from tenantry.api.schema import Emptied, Rule, Schema, list_map, list_set

NAMESPACE_PREFIX = "tenant-"

_NAMESPACE_OF = (
    "(has({0}.spec.__namespace__) && has({0}.spec.__namespace__.name) ? {0}.spec.__namespace__.name"
    f" : '{NAMESPACE_PREFIX}' + {{0}}.metadata.name)"
)
RULES = [
    Rule(
        "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,54}[a-z0-9])?$')",
        "metadata.name must be at most 56 characters of a-z, 0-9 and '-' and start and end with a letter or "
        "digit: it becomes part of the namespace's name",
        field_path=".metadata.name",
    ),
    Rule(
        f"{_NAMESPACE_OF.format('self')} == {_NAMESPACE_OF.format('oldSelf')}",
        "spec.namespace.name cannot be changed: keep it as it was (unset means tenant-<name>), "
        "or create another Tenant",
        offending="'spec.namespace.name cannot be changed: keep ' + "
        f"{_NAMESPACE_OF.format('oldSelf')} + ', or create another Tenant'",
        field_path=".spec.namespace",
        reason="FieldValueForbidden",
    ),
    Rule(
        "!has(self.spec.members) || self.spec.members.all(m, m.__namespace__ == '' || "
        f"m.__namespace__ == {_NAMESPACE_OF.format('self')})",
        "spec.members: a ServiceAccount must be of the tenant's own namespace; remove its namespace",
        field_path=".spec.members",
    ),
]


class Role(StrEnum):
    """What a member may do in the tenant's namespace."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"


class MemberKind(StrEnum):
    """The kinds of RBAC subjects."""

    USER = "User"
    GROUP = "Group"
    SERVICE_ACCOUNT = "ServiceAccount"


class Metric(StrEnum):
    """How the distance of two vectors is measured."""

    COSINE = "cosine"
    L2 = "l2"
    INNER_PRODUCT = "innerProduct"


class VectorType(StrEnum):
    """How a vector is stored: 4 or 2 bytes per dimension."""

    VECTOR = "vector"
    HALFVEC = "halfvec"


class DeletionPolicy(StrEnum):
    """What happens to namespace and data when the Tenant is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class Phase(StrEnum):
    """The one word for people; programs look at conditions."""

    PENDING = "Pending"
    PROVISIONING = "Provisioning"
    READY = "Ready"
    SUSPENDED = "Suspended"
    DEGRADED = "Degraded"
    DELETING = "Deleting"


class Owner(ApiModel):
    """The customer's contact."""

    email: Annotated[
        str,
        Schema(
            maxLength=254,
            rules=[
                Rule(
                    r"""self.matches('^[^@\\s<>,;"]+@[^@\\s.<>,;"]+(\\.[^@\\s.<>,;"]+)+$')""",
                    "email must be an address such as ops@acme.example",
                    offending="'email must be an address such as ops@acme.example, not \"' + self + '\"'",
                )
            ],
        ),
    ]
    """Where bills and notices go. Whoever re-applies a deleted Tenant with the same address gets its data
    back."""


class Member(ApiModel):
    """A user, group or service account with access to the tenant's namespace."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                Rule(
                    "self.kind == 'ServiceAccount' || !self.name.startsWith('system:')",
                    "name must not start with 'system:': Kubernetes' own users and groups cannot be members; "
                    "for a service account of the tenant's namespace use kind ServiceAccount and its "
                    "plain name",
                    field_path=".name",
                    reason="FieldValueForbidden",
                ),
                Rule(
                    "self.kind != 'ServiceAccount' || self.name.matches("
                    r"'^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
                    "name of a ServiceAccount must be its plain name in the tenant's namespace, "
                    "such as dashboard",
                    field_path=".name",
                ),
                Rule(
                    "self.kind == 'ServiceAccount' || self.__namespace__ == ''",
                    "namespace is only for kind ServiceAccount; remove it",
                    field_path=".namespace",
                    reason="FieldValueForbidden",
                ),
            ]
        ).keywords
    )

    kind: MemberKind
    """What the name names: User, Group or ServiceAccount."""
    name: Annotated[str, Schema(minLength=1, maxLength=253)]
    """The name as the cluster's authentication gives it. Names that start with system: are refused."""
    namespace: Annotated[str, Schema(maxLength=63)] = ""
    """Of a ServiceAccount: empty or the tenant's own namespace. Empty for users and groups."""
    role: Role
    """What the member may do in the namespace: a viewer may look at everything but Secrets, an editor may also
    run workloads, write Secrets and enter pods, an owner may also create ServiceAccounts and see who has which
    role. Quotas, network policies and role bindings are the operator's."""


class Overrides(ApiModel):
    """Settings that differ from the plan's; only those that the effective plan lists as overridable."""

    model: Annotated[Model, Emptied()] = Field(default_factory=Model)
    """Settings of the language model that differ from the plan's."""
    retrieval: Annotated[Retrieval, Emptied()] = Field(default_factory=Retrieval)
    """Settings of retrieval that differ from the plan's."""
    limits: Annotated[RateLimits, Emptied()] = Field(default_factory=RateLimits)
    """Rate limits that differ from the plan's."""


def _immutable(name: str) -> Rule:
    return Rule(
        "self == oldSelf",
        f"{name} cannot be changed once set, the stored vectors have it; "
        "put it back or create another Tenant",
        reason="FieldValueForbidden",
    )


class VectorStore(ApiModel):
    """The shape of the tenant's vectors."""

    dimensions: Annotated[int, Schema(minimum=1, maximum=16000, rules=[_immutable("dimensions")])]
    """How many dimensions the embeddings have, for example 1536. It cannot be changed later."""
    metric: Annotated[Metric, Schema(rules=[_immutable("metric")])] = Metric.COSINE
    """How distance is measured: cosine, l2 or innerProduct. It cannot be changed later."""
    type: Annotated[VectorType, Schema(rules=[_immutable("type")])] = VectorType.VECTOR
    """How vectors are stored: vector (4 bytes per dimension) or halfvec (2). It cannot be changed later."""
    shard: Annotated[str, Schema(maxLength=63)] = ""
    """Pins the tenant to the VectorShard of that name; a change moves it there. Empty: the operator decides."""


CostCenter = Annotated[
    str,
    Schema(
        maxLength=63,
        rules=[
            Rule(
                f"self != '' && self.matches('{LABEL_VALUE_PATTERN}')",
                "a cost center must be letters, digits, '-', '_' and '.' that start and end with a letter or "
                "digit, such as research",
            )
        ],
    ),
]


class TenantSpec(ApiModel):
    """What the tenant should be."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                Rule(
                    "!has(oldSelf.vectorStore) || has(self.vectorStore)",
                    "vectorStore cannot be removed once set, the stored vectors have its shape; put it back",
                    field_path=".vectorStore",
                    reason="FieldValueForbidden",
                )
            ]
        ).keywords
    )

    display_name: Text | None = None
    """The customer's name for people. To rename a tenant, change this."""
    owner: Owner
    """The customer's contact for billing and notices, who may also restore the tenant after deletion."""
    plan: DnsLabel | None = None
    """The Plan's name, used while no Subscription decides. Unset: the operator's default plan."""
    cost_centers: Annotated[list[CostCenter], list_set(max_items=100)] = Field(default_factory=list)
    """The customer's known departments, for chargeback."""
    members: Annotated[list[Member], list_map("kind", "namespace", "name", max_items=200)] = Field(
        default_factory=list
    )
    """Who has access to the tenant's namespace, and as what."""
    namespace: NamespaceSpec = Field(default_factory=NamespaceSpec)
    """The tenant's namespace: its name, whether an existing one may be used, and labels of your own."""
    overrides: Annotated[Overrides, Emptied()] = Field(default_factory=Overrides)
    """Settings that differ from the plan's; only those that the effective plan lists as overridable."""
    config_revision: Annotated[int, Schema(minimum=1, format="int64", nullable=True)] | None = None
    """Pins the configuration to an earlier revision (kubectl get controllerrevisions in the tenant's
    namespace lists them): a rollback. Unset or null: the newest."""
    vector_store: VectorStore | None = None
    """The shape of the tenant's vectors. Once set it cannot be changed or removed."""
    suspended: bool = False
    """Cuts the tenant off: no new pods, no network, members may only read. Data is kept."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What deleting the Tenant does: Retain keeps namespace and data for retentionDays under a
    TenantArchive, Delete removes them at once."""
    retention_days: Annotated[int, Schema(minimum=0, maximum=3650)] = 30
    """How many days a deleted tenant's data is kept under deletionPolicy Retain."""


PLACEMENT_MANAGER = "tenantry-placement"
"""The field manager that alone writes placements."""


class Placement(ApiModel):
    """Where the tenant's vectors are."""

    shard: Annotated[str, Schema(maxLength=253)]
    """The name of the VectorShard."""
    epoch: Annotated[int, Schema(minimum=0, format="int64")]
    """Counts the placements of this tenant; the highest one is the true one."""


def _known_phase(value: object) -> object:
    """A phase that a newer operator wrote is no reason to stop reading the object."""
    return value if value is None or value in list(Phase) else None


class TenantStatus(Status):
    """What the tenant is."""

    phase: Annotated[Phase | None, BeforeValidator(_known_phase)] = None
    """One word for people: Pending, Provisioning, Ready, Suspended, Degraded or Deleting."""
    namespace: Annotated[str, Schema(maxLength=63)] | None = None
    """The tenant's namespace."""
    plan: Annotated[str, Schema(maxLength=253)] | None = None
    """The plan in effect."""
    placement: Placement | None = None
    """Where the tenant's vectors are."""
    config_revision: Annotated[int, Schema(format="int64")] | None = None
    """The revision of the configuration in effect."""


class Tenant(Resource):
    """A Tenant is one customer. The operator gives it a namespace with quotas, network policies, access for its
    members and the configuration of its plan, and puts back what others change there. Its name has at most 56
    characters of a-z, 0-9 and '-'."""

    DEFINITION: ClassVar[Definition] = Definition(
        plural="tenants",
        short_names=["tn"],
        columns=[
            Column(name="Plan", type="string", path=".status.plan", description="The plan in effect"),
            Column(name="Phase", type="string", path=".status.phase", description="One word for people"),
            Column(
                name="Namespace",
                type="string",
                path=".status.namespace",
                description="The tenant's namespace",
            ),
            Column(
                name="Shard",
                type="string",
                path=".status.placement.shard",
                description="Where the vectors are",
            ),
            Column(
                name="Ready",
                type="string",
                path='.status.conditions[?(@.type=="Ready")].status',
                description="Whether everything is in place and verified",
            ),
            AGE,
            Column(
                name="Message",
                type="string",
                path='.status.conditions[?(@.type=="Ready")].message',
                description="What is missing, and the next step",
                priority=1,
            ),
        ],
        selectable=[".spec.plan", ".status.plan", ".status.phase", ".status.placement.shard"],
        rules=RULES,
        status_default={**PENDING_STATUS, "phase": str(Phase.PENDING)},
    )

    kind: Literal["Tenant"] = "Tenant"
    spec: TenantSpec
    """What the tenant should be: its owner, its plan, its members and settings of its own."""
    status: TenantStatus = Field(default_factory=TenantStatus)
    """What the tenant is, as the operator last saw it. Written by the operator alone."""

    @property
    def placement(self) -> Placement | None:
        """Where its vectors are, as we wrote it; what others write there counts for nothing."""
        return self.status.placement if is_our_placement(self.metadata.managed_fields) else None

    @property
    def namespace_name(self) -> str:
        """The name of the tenant's namespace, chosen or by default."""
        return self.spec.namespace.name or f"{NAMESPACE_PREFIX}{self.metadata.name}"


def is_our_placement(managed_fields: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the placement in a status is all of our manager's; it is where no managers are told."""
    parts = {"f:shard", "f:epoch"}
    for entry in managed_fields:
        if entry.get("manager") == PLACEMENT_MANAGER and entry.get("subresource") == "status":
            fields = ((entry.get("fieldsV1") or {}).get("f:status") or {}).get("f:placement") or {}
            return parts <= fields.keys()
    return not managed_fields

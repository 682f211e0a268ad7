"""VectorShard: one vector database server, on which tenants have a place each."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from tenantry.api.common import (
    AGE,
    DNS_LABEL_PATTERN,
    PENDING_STATUS,
    ApiModel,
    Column,
    Definition,
    Quantity,
    Resource,
    Status,
)
from tenantry.api.network import Cidr, Namespaces
from tenantry.api.schema import Emptied, Rule, Schema, list_map, list_set


class EngineKind(StrEnum):
    """The vector databases that tenants can be placed on."""

    PGVECTOR = "pgvector"
    WEAVIATE = "weaviate"
    QDRANT = "qdrant"


class SecretKeyRef(ApiModel):
    """A key of a Secret in the operator's own namespace."""

    name: Annotated[str, Schema(minLength=1, maxLength=253)]
    """The name of the Secret, which is in the operator's own namespace."""
    key: Annotated[
        str,
        Schema(
            minLength=1,
            maxLength=253,
            rules=[
                Rule(
                    "self.matches('^[-._a-zA-Z0-9]+$')",
                    "key must be a key of the Secret's data, of letters, digits, '-', '_' and '.', such as dsn",
                )
            ],
        ),
    ] = "dsn"
    """The key in it, a URL: postgresql://user:password@host:5432/database for pgvector,
    https://user:api-key@host:8080?grpc_port=50051 for weaviate, https://user:api-key@host:6333?grpc_port=6334 for
    qdrant."""


class Connection(ApiModel):
    """How the operator reaches the server."""

    secret_ref: SecretKeyRef
    """The Secret with the server's address, user and password."""


class Capacity(ApiModel):
    """What the server holds at most."""

    storage: (
        Annotated[
            Quantity,
            Schema(
                rules=[
                    Rule(
                        "!isQuantity(self) || quantity(self).compareTo(quantity('1')) >= 0",
                        "storage must be more than nothing, such as 100Gi; for no more tenants set cordoned: true",
                    )
                ]
            ),
        ]
        | None
    ) = None
    """Bytes of tenants' vectors and their indexes, such as 100Gi. Unset: no limit."""


class ShardNetwork(ApiModel):
    """Where tenants' pods find the server; their network policies let them out to it."""

    cidrs: Annotated[list[Cidr], list_set(max_items=16)] = Field(default_factory=list)
    """Addresses of the server as pods see it. Unset: the address itself, where the connection names one."""
    namespaces: Namespaces = Field(default_factory=list)
    """Namespaces of the server. Unset: that of the service, where the connection names one (db.data.svc)."""


class VectorShardSpec(ApiModel):
    """The server, and who may be placed there."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                Rule(
                    "self.engine == oldSelf.engine",
                    "engine cannot be changed, the vectors are in it: add a VectorShard of the other engine",
                    field_path=".engine",
                    reason="FieldValueForbidden",
                )
            ]
        ).keywords
    )

    engine: EngineKind
    """What the server is: pgvector, weaviate or qdrant. It cannot be changed."""
    connection: Connection
    """How the operator reaches the server."""
    weight: Annotated[int, Schema(minimum=1, maximum=1000)] = 1
    """Its share of all tenants and bytes, compared with other shards' weights."""
    capacity: Annotated[Capacity, Emptied()] = Field(default_factory=Capacity)
    """What the server holds at most."""
    cordoned: bool = False
    """No new tenants; those that are there stay."""
    drain: bool = False
    """No new tenants, and those that are there are moved to other shards."""
    dedicated: bool = False
    """Only for tenants whose plan asks for a shard of their own (spec.vectorStore.dedicated), one tenant at most."""
    network: Annotated[ShardNetwork, Emptied()] = Field(default_factory=ShardNetwork)
    """Where tenants' pods find the server."""


class LeftoverPlace(ApiModel):
    """A place on the server that no tenant uses."""

    place: Annotated[str, Schema(minLength=1, maxLength=80)]
    """The tenant and the epoch of the place, such as acme@2: what it is removed by."""
    state: Annotated[str, Schema(maxLength=32)]
    """What the server has on record of it: owner, importing, blocked, moved or archived."""
    rows: Annotated[int, Schema(minimum=0, format="int64")]
    """About how many vectors are in it."""
    storage: Annotated[str, Schema(maxLength=32)]
    """Bytes of them and their indexes, as a quantity."""
    reason: Annotated[str, Schema(maxLength=300)]
    """Why no tenant uses it."""


class VectorShardStatus(Status):
    """How the server stands, as last measured."""

    tenants: Annotated[int, Schema(minimum=0)] = 0
    """How many tenants are placed there."""
    storage: Annotated[str, Schema(maxLength=32)] | None = None
    """Bytes of their vectors and indexes, as a quantity."""
    share: Annotated[str, Schema(maxLength=32)] | None = None
    """What it holds as a part of what it should by its weight: "1.00" is exactly its share."""
    server: Annotated[str, Schema(maxLength=253)] | None = None
    """What the server says that it is."""
    endpoint: Annotated[str, Schema(maxLength=300)] | None = None
    """Host and port of the server; tenants' network policies let them out to it."""
    more_ports: Annotated[list[Annotated[int, Schema(minimum=1, maximum=65535)]], list_set(max_items=4)] = (
        Field(default_factory=list)
    )
    """Further ports there that applications need, such as Weaviate's for gRPC."""
    leftovers: Annotated[list[LeftoverPlace], list_map("place", max_items=20)] = Field(default_factory=list)
    """Places that no tenant uses, at most 20 of them. The annotation tenantry.dev/remove-leftovers removes those that
    it names, with all that is in them."""
    leftovers_removed: Annotated[str, Schema(maxLength=1024)] | None = None
    """The value of that annotation that was carried out last; another value is carried out anew."""


class VectorShard(Resource):
    """A VectorShard is one vector database server. Tenants are spread over the shards, moved when one is added,
    drained or too full, and isolated from each other on it."""

    DEFINITION: ClassVar[Definition] = Definition(
        plural="vectorshards",
        short_names=["vs"],
        columns=[
            Column(name="Engine", type="string", path=".spec.engine", description="What the server is"),
            Column(
                name="Tenants",
                type="integer",
                path=".status.tenants",
                description="Tenants that are placed there",
            ),
            Column(
                name="Storage",
                type="string",
                path=".status.storage",
                description="Bytes of their vectors and indexes",
            ),
            Column(
                name="Share",
                type="string",
                path=".status.share",
                description="What it holds as a part of what it should: 1.00 is its share",
            ),
            Column(
                name="Ready",
                type="string",
                path='.status.conditions[?(@.type=="Ready")].status',
                description="Whether it can be reached and is fit for tenants",
            ),
            AGE,
            Column(
                name="Weight",
                type="integer",
                path=".spec.weight",
                description="Its share compared with others'",
                priority=1,
            ),
            Column(
                name="Cordoned",
                type="string",
                path=".spec.cordoned",
                description="No new tenants",
                priority=1,
            ),
            Column(
                name="Drain",
                type="string",
                path=".spec.drain",
                description="Its tenants are moved away",
                priority=1,
            ),
            Column(
                name="Server",
                type="string",
                path=".status.server",
                description="What the server says that it is",
                priority=1,
            ),
            Column(
                name="Message",
                type="string",
                path='.status.conditions[?(@.type=="Ready")].message',
                description="What is wrong, and the next step",
                priority=1,
            ),
        ],
        selectable=[".spec.engine"],
        rules=[
            Rule(
                f"self.metadata.name.size() <= 63 && self.metadata.name.matches('{DNS_LABEL_PATTERN}')",
                "metadata.name must be at most 63 characters of a-z, 0-9 and '-' and start and end with a "
                "letter or digit",
                field_path=".metadata.name",
            )
        ],
        status_default=PENDING_STATUS,
    )

    kind: Literal["VectorShard"] = "VectorShard"
    spec: VectorShardSpec
    """The server, and who may be placed there."""
    status: VectorShardStatus = Field(default_factory=VectorShardStatus)
    """How the server stands, as the operator last saw it. Written by the operator alone."""

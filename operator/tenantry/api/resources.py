"""What a tenant's namespace and its containers may use."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from tenantry.api.common import ApiModel, Quantity
from tenantry.api.schema import Rule, Schema

_COUNTED = (
    *("requests.cpu", "requests.memory", "requests.storage", "requests.ephemeral-storage"),
    *("limits.cpu", "limits.memory", "limits.ephemeral-storage"),
    *("pods", "services", "services.loadbalancers", "services.nodeports", "persistentvolumeclaims"),
    *("configmaps", "secrets", "serviceaccounts", "resourcequotas", "replicationcontrollers"),
)
"""Keys of a ResourceQuota without a domain. Not `cpu` and `memory`, second names of `requests.cpu` and
`requests.memory`: a plan should say each thing once."""

_OURS = (
    r"^(configmaps|resourcequotas|serviceaccounts|count/(configmaps|limitranges|resourcequotas|serviceaccounts"
    r"|controllerrevisions\\.apps|networkpolicies\\.networking\\.k8s\\.io"
    r"|rolebindings\\.rbac\\.authorization\\.k8s\\.io))$"
)
"""Keys that count kinds which the operator writes."""

_QUOTA_KEYS = (
    r"^(count/[a-z0-9.-]+|requests\\.[a-z0-9.-]+/[A-Za-z0-9._-]+"
    r"|[a-z0-9.-]+\\.storageclass\\.storage\\.k8s\\.io/(requests\\.storage|persistentvolumeclaims))$"
)


def _not_above(given: str, smaller: str, larger: str, message: str) -> Rule:
    """Where the CEL condition `given` holds, the amounts of the map `smaller` are at most those of `larger`.

    What is no quantity at all is left to the rule about that: one mistake, one message.
    """
    one, other = f"{smaller}[k]", f"{larger}[k]"
    return Rule(
        f"!({given}) || {smaller}.all(k, !(k in {larger}) || !isQuantity({one}) || !isQuantity({other}) || "
        f"quantity({one}).compareTo(quantity({other})) <= 0)",
        f"{message}; lower the one or raise the other",
    )


def _requests_not_above_limits(resource: str) -> Rule:
    smaller, larger = f"self['requests.{resource}']", f"self['limits.{resource}']"
    return Rule(
        f"!('requests.{resource}' in self && 'limits.{resource}' in self) || "
        f"!isQuantity({smaller}) || !isQuantity({larger}) || "
        f"quantity({smaller}).compareTo(quantity({larger})) <= 0",
        f"requests.{resource} must not be more than limits.{resource}; lower the one or raise the other",
    )


Quota = Annotated[
    dict[str, Quantity],
    Schema(
        minProperties=1,
        maxProperties=32,
        rules=[
            Rule(
                f"!self.exists(k, k.matches('{_OURS}'))",
                "quota must not count configmaps, serviceaccounts or other kinds that the operator writes into "
                "the namespace: once used up, it could not put back what is deleted",
                reason="FieldValueForbidden",
            ),
            Rule(
                f"self.all(k, k in {list(_COUNTED)} || k.matches('{_QUOTA_KEYS}'))",
                "quota must have keys that a ResourceQuota knows, such as pods, requests.cpu (not cpu), "
                "limits.memory, requests.storage, count/jobs.batch or requests.nvidia.com/gpu",
            ),
            *(_requests_not_above_limits(resource) for resource in ("cpu", "memory", "ephemeral-storage")),
        ],
    ),
]
"""Hard limits of the namespace's ResourceQuota by its keys."""

ResourceAmounts = Annotated[
    dict[str, Quantity],
    Schema(
        maxProperties=8,
        rules=[
            Rule(
                "self.all(k, k in ['cpu', 'memory', 'ephemeral-storage'] || k.contains('/'))",
                "keys must be cpu, memory, ephemeral-storage or an extended resource such as nvidia.com/gpu",
            ),
        ],
    ),
]
"""Amounts of a container by resource."""


class ContainerDefaults(ApiModel):
    """What a container gets that asks for nothing."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                _not_above(
                    "has(self.requests) && has(self.limits)",
                    "self.requests",
                    "self.limits",
                    "containerDefaults.requests must not be more than its limits",
                )
            ]
        ).keywords
    )

    limits: ResourceAmounts = Field(default_factory=dict)
    """Limits of a container that names none."""
    requests: ResourceAmounts = Field(default_factory=dict)
    """Requests of a container that names none."""


class Resources(ApiModel):
    """What the tenant's namespace may use."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                _not_above(
                    "has(self.containerMax) && has(self.containerDefaults) && "
                    f"has(self.containerDefaults.{part})",
                    f"self.containerDefaults.{part}",
                    "self.containerMax",
                    f"containerDefaults.{part} must not be more than containerMax",
                )
                for part in ("limits", "requests")
            ]
        ).keywords
    )

    quota: Quota
    """Keys and values of the namespace's ResourceQuota, such as pods, requests.cpu, limits.memory."""
    container_defaults: ContainerDefaults = Field(default_factory=ContainerDefaults)
    """Requests and limits of containers that name none."""
    container_max: ResourceAmounts = Field(default_factory=dict)
    """The largest limits that one container may name."""

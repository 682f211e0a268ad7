"""What a tenant's namespace and its containers may use."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from tenantry.api.common import DNS_SUBDOMAIN, QUALIFIED_NAME, ApiModel, Quantity, is_quantity
from tenantry.api.schema import Rule, Schema, every_key

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
    rf"^(count/[a-z0-9]([-a-z0-9.]{{0,61}}[a-z0-9])?|requests\\.{DNS_SUBDOMAIN}/{QUALIFIED_NAME}"
    rf"|{DNS_SUBDOMAIN}\\.storageclass\\.storage\\.k8s\\.io/(requests\\.storage|persistentvolumeclaims))$"
)

_WHOLE = (
    r"^(pods|secrets|replicationcontrollers|services(\\.loadbalancers|\\.nodeports)?|count/.*"
    r"|(.*/)?persistentvolumeclaims)$"
)
"""Keys whose amounts are whole numbers."""


def _not_above(given: str, smaller: str, larger: str, message: str) -> Rule:
    """Where the CEL condition `given` holds, the amounts of the map `smaller` are at most those of `larger`.

    What is no quantity at all is left to the rule about that: one mistake, one message.
    """
    one, other = f"{smaller}[k]", f"{larger}[k]"
    return Rule(
        f"!({given}) || {smaller}.all(k, !(k in {larger}) || !{is_quantity(one)} || !{is_quantity(other)} || "
        f"quantity({one}).compareTo(quantity({other})) <= 0)",
        f"{message}; lower the one or raise the other",
    )


def _requests_not_above_limits(resource: str) -> Rule:
    smaller, larger = f"self['requests.{resource}']", f"self['limits.{resource}']"
    return Rule(
        f"!('requests.{resource}' in self && 'limits.{resource}' in self) || "
        f"!{is_quantity(smaller)} || !{is_quantity(larger)} || "
        f"quantity({smaller}).compareTo(quantity({larger})) <= 0",
        f"requests.{resource} must not be more than limits.{resource}; lower the one or raise the other",
    )


Quota = Annotated[
    dict[str, Quantity],
    Schema(
        minProperties=1,
        maxProperties=32,
        rules=[
            every_key(
                f"!k.matches('{_OURS}')",
                "quota must not count configmaps, serviceaccounts or other kinds that the operator writes into "
                "the namespace: once used up, it could not put back what is deleted",
                reason="FieldValueForbidden",
            ),
            every_key(
                f"k in {list(_COUNTED)} || k.indexOf('/') <= 253 && k.matches('{_QUOTA_KEYS}')",
                "quota must have keys that a ResourceQuota knows, such as pods, requests.cpu (not cpu), "
                "limits.memory, requests.storage, count/jobs.batch or requests.nvidia.com/gpu",
            ),
            every_key(
                f"!k.matches('{_WHOLE}') || !{is_quantity('self[k]')} || quantity(self[k]).isInteger()",
                "quota must have whole numbers for what is counted, such as pods, services, "
                "persistentvolumeclaims or count/jobs.batch",
                found="self.filter(k, !({})).map(k, k + ': ' + self[k])[0]",
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
            every_key(
                # Kubernetes writes `requests.` before them, and takes 253 characters for a domain with that.
                "k in ['cpu', 'memory', 'ephemeral-storage'] || k.indexOf('/') <= 244 && "
                f"k.matches('^{DNS_SUBDOMAIN}/{QUALIFIED_NAME}$')",
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


def _not_overcommitted(given: str, limits: str, unless: str = "false") -> Rule:
    """Where the CEL condition `given` holds, default requests of extended resources are those of the map `limits`.

    unless: a CEL condition on `k`.
    """
    requests = "self.containerDefaults.requests"
    one, other = f"{requests}[k]", f"{limits}[k]"
    return Rule(
        f"!({given}) || {requests}.all(k, !k.contains('/') || !(k in {limits}) || {unless} || "
        f"!{is_quantity(one)} || !{is_quantity(other)} || quantity({one}).compareTo(quantity({other})) == 0)",
        f"containerDefaults.requests of an extended resource such as nvidia.com/gpu must equal {limits[5:]}, for "
        "Kubernetes shares no part of it; leave the request out or make both the same",
    )


_HAS_REQUESTS = "has(self.containerDefaults) && has(self.containerDefaults.requests)"
_HAS_LIMITS = "has(self.containerDefaults.limits)"


class Resources(ApiModel):
    """What the tenant's namespace may use."""

    model_config = ConfigDict(
        json_schema_extra=Schema(
            rules=[
                *(
                    _not_above(
                        "has(self.containerMax) && has(self.containerDefaults) && "
                        f"has(self.containerDefaults.{part})",
                        f"self.containerDefaults.{part}",
                        "self.containerMax",
                        f"containerDefaults.{part} must not be more than containerMax",
                    )
                    for part in ("limits", "requests")
                ),
                _not_overcommitted(f"{_HAS_REQUESTS} && {_HAS_LIMITS}", "self.containerDefaults.limits"),
                _not_overcommitted(
                    f"{_HAS_REQUESTS} && has(self.containerMax)",
                    "self.containerMax",
                    unless=f"{_HAS_LIMITS} && k in self.containerDefaults.limits",
                ),
            ]
        ).keywords
    )

    quota: Quota
    """Keys and values of the namespace's ResourceQuota, such as pods, requests.cpu, limits.memory."""
    container_defaults: ContainerDefaults = Field(default_factory=ContainerDefaults)
    """Requests and limits of containers that name none."""
    container_max: ResourceAmounts = Field(default_factory=dict)
    """The largest limits that one container may name."""

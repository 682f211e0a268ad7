"""The part of a Tenant that is about its namespace."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tenantry.api.common import DNS_SUBDOMAIN, LABEL_VALUE_PATTERN, QUALIFIED_NAME, ApiModel, DnsLabel
from tenantry.api.schema import Emptied, Rule, Schema, every_key

_LABEL_KEY_PATTERN = f"^({DNS_SUBDOMAIN}/)?{QUALIFIED_NAME}$"


class Adoption(StrEnum):
    """Whether a namespace that exists already may become the tenant's."""

    NEVER = "Never"
    IF_MARKED = "IfMarked"


LabelValue = Annotated[
    str,
    Schema(
        maxLength=63,
        rules=[
            Rule(
                f"self.matches('{LABEL_VALUE_PATTERN}')",
                "a label's value must be letters, digits, '-', '_' and '.' that start and end with a letter or digit",
            )
        ],
    ),
]


class NamespaceSpec(ApiModel):
    """The tenant's namespace."""

    name: (
        Annotated[
            DnsLabel,
            Schema(
                rules=[
                    Rule(
                        "!(self in ['default', 'openshift', 'tenantry-system'] || "
                        "self.startsWith('kube-') || self.startsWith('openshift-'))",
                        "namespace.name must not be a namespace of the cluster or the operator (default, "
                        "kube-*, openshift-*, tenantry-system); choose another or leave it out",
                        offending="'namespace.name must not be ' + self + ', a namespace of the cluster or "
                        "the operator; choose another or leave it out'",
                        reason="FieldValueForbidden",
                    )
                ]
            ),
        ]
        | None
    ) = None
    """The namespace's name; tenant-<name of the Tenant> where unset. It cannot be changed later."""
    adoption: Adoption = Adoption.NEVER
    """Whether an existing namespace may be used: Never, or IfMarked, where its owner has annotated it with
    tenantry.dev/adoptable-by: <name of the Tenant>. An adopted namespace is released at the end, never
    deleted."""
    labels: Annotated[
        dict[str, LabelValue],
        Schema(
            maxProperties=32,
            rules=[
                every_key(
                    r"!k.matches('^([^/]*\\.)?(kubernetes\\.io|k8s\\.io|tenantry\\.dev)/')",
                    "labels must not use keys of kubernetes.io, k8s.io or tenantry.dev, which control the "
                    "namespace's isolation; use a domain of your own",
                    reason="FieldValueForbidden",
                ),
                every_key(
                    f"k.indexOf('/') <= 253 && k.matches('{_LABEL_KEY_PATTERN}')",
                    "labels must have keys such as team or example.com/team, of at most 63 characters after a "
                    "domain of at most 253",
                ),
            ],
        ),
        Emptied(),
    ] = Field(default_factory=dict)
    """Labels of your own for the namespace."""

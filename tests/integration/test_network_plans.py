"""Whatever a plan and the settings say, no tenant reaches another one, or where clouds give credentials."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tenantry.adapters.kubernetes.client import APPLY
from tenantry.adapters.kubernetes.kinds import KINDS
from tenantry.api.network import CREDENTIALS
from tenantry.api.plan import PlanSpec
from tenantry.desired.network import Surroundings, policies
from tenantry.desired.owner import Access, Owner
from tenantry.reconcile.ports import Refused
from tests.integration.conftest import Api, Object, OperatorProcess, is_ready, tenant
from tests.integration.cyclonus import Connection, Peer, allowed
from tests.integration.network_matrix import translated

pytestmark = pytest.mark.tool("cyclonus")

PLAN: Object = {
    "apiVersion": "tenantry.dev/v1alpha1",
    "kind": "Plan",
    "metadata": {"name": "any"},
    "spec": {"displayName": "Any", "rank": 1, "currency": "usd", "resources": {"quota": {"pods": "1"}}},
}
TENANTS = ("reaching", "reached")
NAMESPACES = tuple(f"tenant-{name}" for name in TENANTS)
FORBIDDEN = (*CREDENTIALS, *translated(*(each for each in CREDENTIALS if "." in each)))
PORTS = ((53, "UDP"), (53, "TCP"), (80, "TCP"), (443, "TCP"), (8080, "TCP"))
PODS = (("10.244.0.1", "10.244.0.2"), ("fd00:244::1", "fd00:244::2"))

named = st.lists(st.sampled_from(["ingress-system", "kube-system", *NAMESPACES]), unique=True)
cidrs = st.one_of(
    st.sampled_from(["10.0.0.0/8", "10.244.0.0/16", "fd00:244::/32", "0.0.0.0/0", "::/0", "128.0.0.0/1"]),
    st.sampled_from(["169.254.0.0/16", "100.64.0.0/10", "fd00::/8", "64:ff9b::/96", "64:ff9b::a9fe:0/112"]),
    st.builds(
        lambda address, length: str(ipaddress.ip_network((address, length), strict=False)),
        st.ip_addresses(v=4),
        st.integers(0, 32),
    ),
)
networks = st.fixed_dictionaries(
    {
        "ingress": st.fixed_dictionaries({"namespaces": named}),
        "egress": st.fixed_dictionaries(
            {
                "internetPorts": st.lists(st.sampled_from([53, 80, 443, 8080]), unique=True),
                "namespaces": named,
                "cidrs": st.lists(cidrs, unique=True, max_size=2),
            }
        ),
    }
)
surroundings = st.builds(
    Surroundings,
    dns_namespace=st.sampled_from(["kube-system", *NAMESPACES]),
    scraper_namespaces=named.map(tuple),
    api_server_cidrs=st.sampled_from([(), ("10.0.0.0/8", "fd00:244::/32")]),
)


@pytest.fixture(scope="module")
async def namespaces(api: Api, operator: OperatorProcess) -> list[Object]:
    """The namespaces of two tenants, as the operator has made them."""
    for name in TENANTS:
        await api.apply(tenant(name, plan="pro", deletionPolicy="Delete"))
    for name in TENANTS:
        await api.until("Tenant", name, is_ready)
    found = [(await api.get("Namespace", name) or {})["metadata"] for name in NAMESPACES]
    return [{"metadata": {"name": each["name"], "labels": each["labels"]}} for each in found]


async def dry_run(api: Api, manifest: Object) -> Object:
    """Return what the API server makes of an object that the operator applies; raises Refused."""
    kind, metadata = KINDS[manifest["kind"]], manifest["metadata"]
    path = kind.path(metadata["name"], metadata.get("namespace", ""))
    query = {"fieldManager": "tenantry", "force": "true", "dryRun": "All"}
    return await api.client.send("PATCH", path, query=query, body=manifest, content_type=APPLY)


@settings(
    max_examples=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example is a dozen requests: no time to shrink
    suppress_health_check=[HealthCheck.too_slow],
)
@given(networks, surroundings)
async def test_no_plan_opens_another_tenant_or_the_metadata_service(
    api: Api, namespaces: list[Object], network: dict[str, Any], around: Surroundings
) -> None:
    try:
        taken = await dry_run(api, {**PLAN, "spec": {**PLAN["spec"], "network": network}})
    except Refused:
        return
    spec = PlanSpec.model_validate(taken["spec"])
    owners = [Owner(name, "uid", namespace) for name, namespace in zip(TENANTS, NAMESPACES, strict=True)]
    built = [each for owner in owners for each in policies(owner, spec, Access.OPEN, around)]
    written = await asyncio.gather(*(dry_run(api, each) for each in built))
    asked: list[Connection] = []
    for addresses in PODS:
        ours, theirs = (Peer(pod, each) for pod, each in zip(addresses, namespaces, strict=True))
        for other in (theirs, *map(Peer, FORBIDDEN)):
            asked.extend(Connection(ours, other, port, protocol) for port, protocol in PORTS)
    reached = [each for each, answer in zip(asked, allowed(written, asked), strict=True) if answer]
    assert [(each.destination.address, each.port, each.protocol) for each in reached] == []

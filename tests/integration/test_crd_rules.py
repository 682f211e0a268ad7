"""What a real API server refuses of our kinds, what it accepts, and how it says so."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tenantry.api.crds import KINDS, crd_document
from tenantry.api.plan import Plan
from tenantry.api.shard import VectorShard
from tenantry.api.tenant import Tenant
from tests.integration.kind_objects import (
    Change,
    Kubectl,
    Object,
    apply,
    assert_accepted,
    assert_refused,
    drop,
    move,
    plan,
    put,
    shard,
    tenant,
    try_out,
)

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "manifests" / "samples"
REFUSED = ROOT / "tests" / "data" / "refused.yaml"
SHARED = ROOT.parent / "shared" / "examples"

# What the message of a refused document must say, so that one mistake is not refused for another.
REASONS = {
    "no-owner": "spec.owner: Required value",
    "steals-kube-system": "spec.namespace.name: Forbidden: namespace.name must not be kube-system",
    "bad-role": 'spec.members[0].role: Unsupported value: "admin": supported values: "owner", "editor", "viewer"',
    "unknown-field": ".spec.colour: field not declared in schema",
    "system-group": "spec.members[0].name: Forbidden: name must not start with 'system:'",
    "dotted.name": "metadata.name must be at most 56 characters",
    "privileged-label": "spec.namespace.labels: Forbidden: labels must not use keys of kubernetes.io",
    "a-name-that-is-much-too-long-for-a-namespace-with-its-prefix": "metadata.name must be at most 56 characters",
    "not-an-address": "email must be an address such as ops@acme.example",
    "negative-price": "amount must be a decimal of at least 0",
    "half-a-cent": "prices must have amounts with at most 2 decimals in usd",
    "tiers-out-of-order": "spec.usage[0].tiers: Invalid value: tiers must have an upTo that increases",
    "volume-with-included": "included must be 0 with mode volume",
    "requests-over-limits": "requests.cpu must not be more than limits.cpu",
    "zero-weight": "spec.weight: Invalid value: 0: spec.weight in body should be greater than or equal to 1",
    "negative-capacity": "spec.capacity.storage: Invalid value: ",
}


REFUSED_KINDS = {kind.__name__ for kind in KINDS}
"""Others of the file come with kinds that are not there yet."""


def refused_documents() -> list[Object]:
    documents = yaml.safe_load_all(REFUSED.read_text(encoding="utf-8"))
    return [document for document in documents if document["kind"] in REFUSED_KINDS]


@pytest.mark.parametrize("file", ["plans.yaml", "shards.yaml", "acme.yaml", "small.yaml"])
def test_samples_are_accepted(kubectl: Kubectl, file: str) -> None:
    assert_accepted(
        kubectl("apply", "--server-side", "--dry-run=server", "-f", str(SAMPLES / file), check=False)
    )


@pytest.mark.parametrize("document", refused_documents(), ids=lambda document: document["metadata"]["name"])
def test_refused(kubectl: Kubectl, document: Object) -> None:
    assert_refused(try_out(kubectl, document), REASONS[document["metadata"]["name"]])


@pytest.mark.parametrize(
    ("copied", "file"),
    [
        (REFUSED, "refused.yaml"),
        *((SAMPLES / name, name) for name in ("plans.yaml", "shards.yaml", "acme.yaml", "small.yaml")),
    ],
)
def test_copies_of_the_shared_examples_are_current(copied: Path, file: str) -> None:
    if not (SHARED / file).exists():
        pytest.skip("the shared examples are not beside this checkout")
    assert copied.read_bytes() == (SHARED / file).read_bytes()


def member(**fields: str) -> Change:
    return put("spec.members", [{"kind": "User", "name": "alice", "role": "viewer", **fields}])


def usage(**fields: Any) -> Change:
    return put("spec.usage", [{"meter": "queries", "tiers": [{"unitAmount": "1"}], **fields}])


def tiers(*up_to: int | None) -> list[Object]:
    return [{"unitAmount": "1"} if end is None else {"upTo": end, "unitAmount": "1"} for end in up_to]


class Case(NamedTuple):
    """A document, a change to it, and the message that refuses it; no message where it is fine."""

    document: Object
    change: Change
    message: str | None = None


LABEL = "spec.namespace.labels"
QUOTA = "spec.resources.quota"
DEFAULTS = "spec.resources.containerDefaults"
CIDRS = "spec.network.egress.cidrs"

SECRET = "spec.connection.secretRef"

CASES = {
    "shard-smallest": Case(shard(), drop("spec.connection.secretRef.key")),
    "shard-name-of-63": Case(shard("a" * 63), put("metadata.labels", {})),
    "shard-name-of-64": Case(shard("a" * 64), put("metadata.labels", {}), "metadata.name must be at most 63"),
    "shard-name-dotted": Case(shard("a.b"), put("metadata.labels", {}), "metadata.name must be at most 63"),
    "shard-no-secret": Case(shard(), drop("spec.connection"), "spec.connection: Required value"),
    "shard-no-secret-name": Case(shard(), drop(f"{SECRET}.name"), f"{SECRET}.name: Required value"),
    "shard-empty-key": Case(shard(), put(f"{SECRET}.key", ""), f"{SECRET}.key"),
    "shard-key-with-slash": Case(
        shard(), put(f"{SECRET}.key", "a/b"), "key must be a key of the Secret's data"
    ),
    "shard-secret-elsewhere": Case(
        shard(), put(f"{SECRET}.namespace", "default"), f"{SECRET}.namespace: field not declared in schema"
    ),
    "shard-engine": Case(shard(), put("spec.engine", "faiss"), 'spec.engine: Unsupported value: "faiss"'),
    "shard-weight-of-1000": Case(shard(), put("spec.weight", 1000)),
    "shard-weight-of-1001": Case(shard(), put("spec.weight", 1001), "spec.weight"),
    "shard-storage-number": Case(shard(), put("spec.capacity.storage", 5), "spec.capacity.storage"),
    "shard-storage-zero": Case(
        shard(), put("spec.capacity.storage", "0"), "storage must be more than nothing"
    ),
    "shard-storage-words": Case(shard(), put("spec.capacity.storage", "much"), "spec.capacity.storage"),
    "shard-cidr": Case(shard(), put("spec.network.cidrs", ["10.1.0.0/16", "fd00::1/128"])),
    "shard-cidr-host-bits": Case(
        shard(), put("spec.network.cidrs", ["10.1.0.1/16"]), "must be a network in CIDR notation"
    ),
    "shard-cidr-metadata": Case(
        shard(), put("spec.network.cidrs", ["169.254.0.0/16"]), "must not contain 169.254"
    ),
    "shard-namespace": Case(shard(), put("spec.network.namespaces", ["databases"])),
    "move-smallest": Case(move(), put("metadata.labels", {})),
    "move-no-target": Case(move(), drop("spec.targetShard"), "spec.targetShard: Required value"),
    "move-target-dotted": Case(move(), put("spec.targetShard", "a.b"), "spec.targetShard: Invalid value"),
    "move-reason": Case(move(), put("spec.reason", "Whim"), 'spec.reason: Unsupported value: "Whim"'),
    "plan-dedicated": Case(plan(), put("spec.vectorStore", {"dedicated": True})),
    "plan-dedicated-word": Case(
        plan(), put("spec.vectorStore.dedicated", "yes"), "spec.vectorStore.dedicated"
    ),
    "pin-long": Case(
        tenant(),
        put("spec.vectorStore", {"dimensions": 8, "shard": "a" * 64}),
        "spec.vectorStore.shard: Too long",
    ),
    "name-of-56": Case(tenant("a" * 56), put("metadata.labels", {})),
    "name-of-57": Case(tenant("a" * 57), put("metadata.labels", {}), "metadata.name must be at most 56"),
    "email-unicode": Case(tenant(), put("spec.owner.email", "ops@müller.example")),
    "email-without-domain": Case(
        tenant(), put("spec.owner.email", "ops@localhost"), "email must be an address"
    ),
    "email-with-name": Case(
        tenant(), put("spec.owner.email", "Ops <ops@a.example>"), "email must be an address"
    ),
    "email-two": Case(
        tenant(), put("spec.owner.email", "a@b.example,c@d.example"), "email must be an address"
    ),
    "display-name-empty": Case(tenant(), put("spec.displayName", ""), "spec.displayName"),
    "display-name-long": Case(tenant(), put("spec.displayName", "x" * 101), "spec.displayName: Too long"),
    "plan-no-name": Case(tenant(), put("spec.plan", "Pro Plan"), "spec.plan: Invalid value"),
    "cost-center": Case(tenant(), put("spec.costCenters", ["R.D_1-a"])),
    "cost-center-space": Case(tenant(), put("spec.costCenters", ["a b"]), "a cost center must be letters"),
    "cost-center-empty": Case(tenant(), put("spec.costCenters", [""]), "a cost center must be letters"),
    "cost-center-twice": Case(tenant(), put("spec.costCenters", ["a", "a"]), "uplicate"),
    "service-account": Case(tenant(), member(kind="ServiceAccount", name="dash.board")),
    "service-account-own": Case(tenant(), member(kind="ServiceAccount", namespace="tenant-valid")),
    "service-account-other": Case(
        tenant(),
        member(kind="ServiceAccount", namespace="elsewhere"),
        "must be of the tenant's own namespace",
    ),
    "service-account-as-user": Case(
        tenant(), member(name="system:serviceaccount:kube-system:x"), "name must not start with 'system:'"
    ),
    "service-account-bad-name": Case(
        tenant(),
        member(kind="ServiceAccount", name="system:x"),
        "name of a ServiceAccount must be its plain name",
    ),
    "user-system": Case(tenant(), member(name="system:admin"), "name must not start with 'system:'"),
    "user-with-namespace": Case(tenant(), member(namespace="x"), "namespace is only for kind ServiceAccount"),
    "member-kind": Case(tenant(), member(kind="Robot"), 'Unsupported value: "Robot"'),
    "member-twice": Case(
        tenant(),
        put("spec.members", [{"kind": "User", "name": "bob", "role": role} for role in ("owner", "viewer")]),
        "uplicate",
    ),
    "namespace": Case(tenant(), put("spec.namespace.name", "customers-acme")),
    "namespace-default": Case(tenant(), put("spec.namespace.name", "default"), "must not be default"),
    "namespace-kube": Case(tenant(), put("spec.namespace.name", "kube-public"), "must not be kube-public"),
    "namespace-openshift": Case(
        tenant(), put("spec.namespace.name", "openshift-x"), "must not be openshift-x"
    ),
    "namespace-own": Case(
        tenant(), put("spec.namespace.name", "tenantry-system"), "must not be tenantry-system"
    ),
    "namespace-dots": Case(tenant(), put("spec.namespace.name", "a.b"), "must be a name of a-z"),
    "namespace-long": Case(tenant(), put("spec.namespace.name", "a" * 64), "spec.namespace.name: Too long"),
    "adoption": Case(tenant(), put("spec.namespace.adoption", "Always"), 'Unsupported value: "Always"'),
    "label": Case(tenant(), put(LABEL, {"example.com/team": "Red_1", "plain": ""})),
    "label-like-kubernetes": Case(
        tenant(), put(LABEL, {"notkubernetes.io/x": "y", "k8s.io.example.com/x": "y"})
    ),
    "label-managed-by": Case(
        tenant(), put(LABEL, {"app.kubernetes.io/managed-by": "x"}), "use a domain of your"
    ),
    "label-kubernetes": Case(
        tenant(), put(LABEL, {"kubernetes.io/metadata.name": "x"}), "use a domain of your"
    ),
    "label-k8s": Case(tenant(), put(LABEL, {"a.b.k8s.io/x": "y"}), "use a domain of your own"),
    "label-tenantry": Case(
        tenant(), put(LABEL, {"tenantry.dev/tenant": "rival"}), "use a domain of your own"
    ),
    "label-key": Case(tenant(), put(LABEL, {"a b": "c"}), "labels must have keys such as team"),
    "label-value": Case(tenant(), put(LABEL, {"team": "-x"}), "a label's value must be letters"),
    "label-of-254": Case(
        tenant(), put(LABEL, {"a" * 254 + "/k": "v"}), "after a domain of at most 253; found aaa"
    ),
    "label-of-253": Case(tenant(), put(LABEL, {"a" * 253 + "/" + "k" * 63: "v"})),
    "label-33": Case(
        tenant(), put(LABEL, {f"k{n}": "v" for n in range(33)}), "spec.namespace.labels: Too many"
    ),
    "temperature-2": Case(tenant(), put("spec.overrides.model.temperature", "2.0")),
    "temperature-3": Case(tenant(), put("spec.overrides.model.temperature", "2.1"), "from 0 to 2"),
    "temperature-minus": Case(tenant(), put("spec.overrides.model.temperature", "-0.1"), "from 0 to 2"),
    "temperature-word": Case(tenant(), put("spec.overrides.model.temperature", "warm"), "from 0 to 2"),
    "revision-null": Case(tenant(), put("spec.configRevision", None)),
    "revision-0": Case(tenant(), put("spec.configRevision", 0), "spec.configRevision"),
    "dimensions-0": Case(tenant(), put("spec.vectorStore.dimensions", 0), "spec.vectorStore.dimensions"),
    "dimensions-16001": Case(
        tenant(), put("spec.vectorStore.dimensions", 16001), "spec.vectorStore.dimensions"
    ),
    "dimensions-missing": Case(tenant(), put("spec.vectorStore.metric", "l2"), "dimensions: Required value"),
    "metric": Case(tenant(), put("spec.vectorStore", {"dimensions": 1, "metric": "l1"}), "Unsupported value"),
    "retention": Case(tenant(), put("spec.retentionDays", 3651), "spec.retentionDays"),
    "deletion-policy": Case(tenant(), put("spec.deletionPolicy", "Orphan"), 'Unsupported value: "Orphan"'),
    "plan-name-63": Case(plan("p" * 63), put("spec.rank", 0)),
    "plan-name-64": Case(plan("p" * 64), put("spec.rank", 0), "metadata.name must be at most 63"),
    "plan-without-prices": Case(plan(), drop("spec.prices")),
    "plan-without-quota": Case(plan(), drop("spec.resources.quota"), "spec.resources.quota: Required value"),
    "plan-empty-quota": Case(plan(), put(QUOTA, {}), "spec.resources.quota"),
    "currency-upper": Case(plan(), put("spec.currency", "USD"), "ISO 4217 code in lower case"),
    "currency-unknown": Case(plan(), put("spec.currency", "xyz"), "not xyz"),
    "yen": Case(
        plan(), lambda p: p["spec"].update(currency="jpy", prices=[{"interval": "month", "amount": "9"}])
    ),
    "yen-decimals": Case(plan(), put("spec.currency", "jpy"), "amounts with no decimals in jpy"),
    "dinar": Case(
        plan(), lambda p: p["spec"].update(currency="kwd", prices=[{"interval": "year", "amount": "1.005"}])
    ),
    "dinar-four": Case(
        plan(),
        lambda p: p["spec"].update(currency="kwd", prices=[{"interval": "year", "amount": "1.0005"}]),
        "at most 3 decimals in kwd",
    ),
    "price-exponent": Case(plan(), put("spec.prices", [{"interval": "month", "amount": "1e3"}]), "such as"),
    "price-twice": Case(plan(), put("spec.prices", [{"interval": "month", "amount": "1"}] * 2), "uplicate"),
    "interval": Case(plan(), put("spec.prices", [{"interval": "week", "amount": "1"}]), "Unsupported value"),
    "unit-amount-12": Case(plan(), usage(tiers=[{"unitAmount": "0.000000000001"}])),
    "unit-amount-13": Case(plan(), usage(tiers=[{"unitAmount": "0.0000000000001"}]), "at most 12 places"),
    "unit-amount-minus": Case(plan(), usage(tiers=[{"unitAmount": "-1"}]), "unitAmount must be a decimal"),
    "tiers": Case(plan(), usage(included=9, tiers=tiers(10, 20, None))),
    "tiers-none": Case(plan(), usage(tiers=[]), "spec.usage[0].tiers"),
    "tiers-equal": Case(plan(), usage(tiers=tiers(10, 10, None)), "upTo that increases"),
    "tiers-closed": Case(plan(), usage(tiers=tiers(10, 20)), "must end with one tier without upTo"),
    "tiers-open-first": Case(plan(), usage(tiers=tiers(None, 20)), "must end with one tier without upTo"),
    "tiers-two-open": Case(plan(), usage(tiers=tiers(10, None, None)), "must end with one tier without upTo"),
    "tiers-in-included": Case(plan(), usage(included=10, tiers=tiers(10, None)), "upTo above included"),
    "volume": Case(plan(), usage(mode="volume", tiers=tiers(10, None))),
    "usage-twice": Case(
        plan(), put("spec.usage", [{"meter": "q", "tiers": [{"unitAmount": "1"}]}] * 2), "uplicate"
    ),
    "quota-kinds": Case(
        plan(),
        put(
            QUOTA,
            {
                "requests.cpu": "500m",
                "limits.cpu": "0.5",
                "requests.memory": "1Gi",
                "limits.memory": "1Gi",
                "count/jobs.batch": "5",
                "requests.nvidia.com/gpu": "1",
                "gold.storageclass.storage.k8s.io/requests.storage": "1Ti",
            },
        ),
    ),
    "quota-word": Case(plan(), put(QUOTA, {"pods": "many"}), "must be a quantity of at least 0"),
    "quota-minus": Case(plan(), put(QUOTA, {"pods": "-1"}), "must be a quantity of at least 0"),
    "quota-number": Case(plan(), put(QUOTA, {"pods": 1}), "spec.resources.quota.pods: expected string"),
    "quota-of-ours": Case(plan(), put(QUOTA, {"configmaps": "9"}), "must not count configmaps"),
    "quota-count-of-ours": Case(
        plan(),
        put(QUOTA, {"count/rolebindings.rbac.authorization.k8s.io": "9"}),
        "must not count configmaps, serviceaccounts or other kinds that the operator writes",
    ),
    "quota-key": Case(plan(), put(QUOTA, {"cpu": "1"}), "quota must have keys that a ResourceQuota knows"),
    "quota-memory": Case(
        plan(),
        put(QUOTA, {"requests.memory": "1025Mi", "limits.memory": "1Gi"}),
        "requests.memory must not be more than limits.memory",
    ),
    "quota-half": Case(plan(), put(QUOTA, {"pods": "1.5"}), "such as pods, services, persistentvolumeclaims"),
    "quota-half-count": Case(
        plan(), put(QUOTA, {"count/jobs.batch": "1500m"}), "found count/jobs.batch: 1500m"
    ),
    "quota-whole": Case(plan(), put(QUOTA, {"pods": "2k", "services": "3", "requests.cpu": "1.5"})),
    "quota-exponent": Case(plan(), put(QUOTA, {"requests.cpu": "1e99"})),
    # Compared as it stands, this would keep an API server busy for minutes.
    "quota-digits": Case(
        plan(), put(QUOTA, {"requests.cpu": "1e999999999"}), "must be a quantity of at least"
    ),
    "quota-digits-both": Case(
        plan(),
        put(QUOTA, {"requests.cpu": "1E+999999999", "limits.cpu": "1e-999999999"}),
        "must be a quantity of at least",
    ),
    "quota-count-name": Case(plan(), put(QUOTA, {"count/-": "1"}), "found count/-"),
    "quota-count-63": Case(plan(), put(QUOTA, {"count/" + "a" * 63: "1"})),
    "quota-count-64": Case(plan(), put(QUOTA, {"count/" + "a" * 64: "1"}), "found count/aaa"),
    "quota-domain-253": Case(plan(), put(QUOTA, {"requests." + "a" * 244 + "/x": "1"})),
    "quota-domain-254": Case(plan(), put(QUOTA, {"requests." + "a" * 245 + "/x": "1"}), "found requests.aaa"),
    "defaults": Case(
        plan(), put(DEFAULTS, {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}, "requests": {"cpu": "1000m"}})
    ),
    "defaults-key": Case(plan(), put(DEFAULTS, {"limits": {"pods": "1"}}), "keys must be cpu, memory"),
    "defaults-key-odd": Case(plan(), put(DEFAULTS, {"limits": {"a b/c": "1"}}), "found a b/c"),
    "defaults-domain-244": Case(
        plan(), put(DEFAULTS, {"limits": {"a" * 244 + "/x": "1"}, "requests": {"a" * 244 + "/x": "1"}})
    ),
    "defaults-domain-245": Case(
        plan(), put(DEFAULTS, {"limits": {"a" * 245 + "/x": "1"}}), "keys must be cpu, memory"
    ),
    "defaults-digits": Case(
        plan(),
        put(DEFAULTS, {"limits": {"cpu": "1e999999999"}, "requests": {"cpu": "1e999999999"}}),
        "must be a quantity",
    ),
    "defaults-extended": Case(
        plan(), put(DEFAULTS, {"limits": {"a.b/c": "2"}, "requests": {"a.b/c": "2000m", "a.b/d": "1"}})
    ),
    "defaults-extended-less": Case(
        plan(),
        put(DEFAULTS, {"limits": {"a.b/c": "2"}, "requests": {"a.b/c": "1"}}),
        "must equal containerDefaults.limits",
    ),
    "max-extended": Case(
        plan(),
        lambda p: p["spec"]["resources"].update(
            containerDefaults={"limits": {"a.b/c": "1"}, "requests": {"a.b/c": "1"}},
            containerMax={"a.b/c": "4"},
        ),
    ),
    "max-extended-less": Case(
        plan(),
        lambda p: p["spec"]["resources"].update(
            containerDefaults={"requests": {"a.b/c": "1"}}, containerMax={"a.b/c": "4"}
        ),
        "must equal containerMax",
    ),
    "defaults-word": Case(plan(), put(DEFAULTS, {"limits": {"cpu": "one"}}), "must be a quantity"),
    "defaults-order": Case(
        plan(),
        put(DEFAULTS, {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
        "must not be more than its limits",
    ),
    "max": Case(plan(), put("spec.resources.containerMax", {"cpu": "4"})),
    "max-under-limits": Case(
        plan(),
        lambda p: p["spec"]["resources"].update(
            containerDefaults={"limits": {"cpu": "2"}}, containerMax={"cpu": "1"}
        ),
        "containerDefaults.limits must not be more than containerMax",
    ),
    "max-under-requests": Case(
        plan(),
        lambda p: p["spec"]["resources"].update(
            containerDefaults={"requests": {"memory": "2Gi"}}, containerMax={"memory": "1Gi"}
        ),
        "containerDefaults.requests must not be more than containerMax",
    ),
    "port-0": Case(plan(), put("spec.network.egress.internetPorts", [0]), "internetPorts[0]"),
    "port-65536": Case(plan(), put("spec.network.egress.internetPorts", [65536]), "internetPorts[0]"),
    "ingress-name": Case(plan(), put("spec.network.ingress.namespaces", ["a.b"]), "must be a name of a-z"),
    "cidrs": Case(plan(), put(CIDRS, ["203.0.113.0/24", "10.0.0.0/8", "2001:db8::/32"])),
    "cidr-address": Case(plan(), put(CIDRS, ["203.0.113.1"]), "must be a network in CIDR notation"),
    "cidr-host-bits": Case(plan(), put(CIDRS, ["203.0.113.1/24"]), "no bits set after the prefix"),
    "cidr-word": Case(plan(), put(CIDRS, ["internet"]), "must be a network in CIDR notation"),
    "cidr-everything": Case(plan(), put(CIDRS, ["0.0.0.0/0"]), "must not contain 169.254.169.254"),
    "cidr-everything-6": Case(plan(), put(CIDRS, ["::/0"]), "must not contain"),
    "cidr-nat64": Case(plan(), put(CIDRS, ["64:ff9b::808:800/120"])),
    "cidr-nat64-metadata": Case(plan(), put(CIDRS, ["64:ff9b::a9fe:a9fe/128"]), "nor these behind NAT64"),
    "privileged": Case(plan(), put("spec.podSecurity", "privileged"), 'Unsupported value: "privileged"'),
    "priority": Case(plan(), put("spec.priority", "urgent"), 'Unsupported value: "urgent"'),
    "rate-0": Case(plan(), put("spec.limits.requestsPerSecond", 0), "spec.limits.requestsPerSecond"),
    "period": Case(plan(), put("spec.limits.perPeriod", [{"meter": "q", "soft": 5, "hard": 5}])),
    "period-soft": Case(
        plan(),
        put("spec.limits.perPeriod", [{"meter": "q", "soft": 6, "hard": 5}]),
        "soft must not be more than",
    ),
    "period-empty": Case(
        plan(), put("spec.limits.perPeriod", [{"meter": "q"}]), "must give soft, hard or both"
    ),
    "overridable": Case(plan(), put("spec.overridable", ["limits.burst", "model.systemPrompt"])),
    "overridable-unknown": Case(plan(), put("spec.overridable", ["resources.quota"]), "Unsupported value"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rules(kubectl: Kubectl, case: Case) -> None:
    document = copy.deepcopy(case.document)
    case.change(document)
    result = try_out(kubectl, document)
    if case.message is None:
        assert_accepted(result)
    else:
        assert_refused(result, case.message)


PURGE_AFTER = {
    "2030-01-31T00:00:00.5+02:00": None,
    "9998-12-31T00:00:00Z": None,
    "0000-01-01T00:00:00Z": "purgeAfter must be a time of the years 1970 to 9998",
    "0001-01-01T00:00:00+14:00": "purgeAfter must be a time of the years 1970 to 9998",
    "9999-12-31T23:59:59-14:00": "purgeAfter must be a time of the years 1970 to 9998",
    "2030-01-01T00:00:00+99:99": "purgeAfter must be a time of the years 1970 to 9998",
    "2030-01-31": "must be of type date-time",
    "never": "must be of type date-time",
}


@pytest.mark.parametrize("moment", PURGE_AFTER)
def test_purge_after_is_a_time_that_everybody_can_read(kubectl: Kubectl, moment: str) -> None:
    archive = {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "TenantArchive",
        "metadata": {"name": "valid-1f0c9a2e"},
        "spec": {
            "tenant": "valid",
            "tenantUID": "1f0c9a2e",
            "owner": {"email": "ops@acme.example"},
            "purgeAfter": moment,
        },
    }
    message = PURGE_AFTER[moment]
    if message is None:
        assert_accepted(try_out(kubectl, archive))
    else:
        assert_refused(try_out(kubectl, archive), message)


EMPTIED = [
    ("Tenant", "namespace.labels", {"team": "search"}),
    ("Tenant", "overrides", {"model": {"name": "gpt-4o"}}),
    ("Tenant", "overrides.model", {"name": "gpt-4o"}),
    ("Tenant", "overrides.retrieval", {"topK": 8}),
    ("Tenant", "overrides.limits", {"requestsPerSecond": 40}),
    ("Plan", "network", {"egress": {"internetPorts": [443]}}),
    ("Plan", "network.ingress", {"namespaces": ["monitoring"]}),
    ("Plan", "network.egress", {"internetPorts": [443]}),
    ("Plan", "limits", {"requestsPerSecond": 20}),
    ("Plan", "model", {"name": "gpt-4o"}),
    ("Plan", "retrieval", {"topK": 5}),
    ("Plan", "vectorStore", {"engine": "pgvector"}),
    ("VectorShard", "capacity", {"storage": "1Gi"}),
    ("VectorShard", "network", {"namespaces": ["databases"]}),
]


def test_every_block_that_may_be_empty_is_tried() -> None:
    found = {
        (kind.__name__, path)
        for kind in (Tenant, Plan, VectorShard)
        for path in nullable(crd_document(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    }
    assert found == {(kind, f"spec.{path}") for kind, path, _ in EMPTIED}


def nullable(schema: Object, path: str = "") -> Iterator[str]:
    """Yield the paths of objects that may be null."""
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}".removeprefix(".")
        if field.get("nullable") and field["type"] == "object":
            yield where
        yield from nullable(field, where)


@pytest.mark.parametrize(
    ("kind", "path", "content"), EMPTIED, ids=[f"{kind}-{path}" for kind, path, _ in EMPTIED]
)
def test_a_block_that_somebody_empties_is_as_one_that_was_never_there(
    kubectl: Kubectl, kind: str, path: str, content: Object
) -> None:
    """Server-side apply makes null of it."""
    model = {"Tenant": Tenant, "Plan": Plan, "VectorShard": VectorShard}[kind]
    name = "emptied"
    document = {"Tenant": tenant, "Plan": plan, "VectorShard": shard}[kind](name)
    never = model.model_validate(document).spec
    put(f"spec.{path}", content)(document)
    assert_accepted(apply(kubectl, document))
    try:
        put(f"spec.{path}", {})(document)
        assert_accepted(apply(kubectl, document))
        stored = json.loads(kubectl("get", kind.lower(), name, "-o", "json").stdout)
        assert model.model_validate(stored).spec == never
    finally:
        kubectl("delete", kind.lower(), name)

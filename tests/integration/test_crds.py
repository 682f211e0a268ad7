"""The definitions on a real API server: what it accepts, what it refuses and how it says so."""

from __future__ import annotations

import copy
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tenantry.api.crds import crd_documents

Object = dict[str, Any]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
Change = Callable[[Object], None]

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
}


def refused_documents() -> list[Object]:
    documents = yaml.safe_load_all(REFUSED.read_text(encoding="utf-8"))
    return [document for document in documents if document["kind"] in ("Tenant", "Plan")]


def apply(kubectl: Kubectl, document: Object, *flags: str) -> subprocess.CompletedProcess[str]:
    return kubectl("apply", "--server-side", *flags, "-f", "-", input=json.dumps(document), check=False)


def try_out(kubectl: Kubectl, document: Object) -> subprocess.CompletedProcess[str]:
    return apply(kubectl, document, "--dry-run=server")


def assert_refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode != 0, f"accepted: {result.stdout}"
    assert message in result.stderr


def assert_accepted(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", ["plans.yaml", "acme.yaml", "small.yaml"])
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
        *((SAMPLES / name, name) for name in ("plans.yaml", "acme.yaml", "small.yaml")),
    ],
)
def test_copies_of_the_shared_examples_are_current(copied: Path, file: str) -> None:
    if not (SHARED / file).exists():
        pytest.skip("the shared examples are not beside this checkout")
    assert copied.read_bytes() == (SHARED / file).read_bytes()


def tenant(name: str = "valid") -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"owner": {"email": "ops@acme.example"}},
    }


def plan(name: str = "valid") -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Plan",
        "metadata": {"name": name},
        "spec": {
            "displayName": "Valid",
            "rank": 1,
            "currency": "usd",
            "prices": [{"interval": "month", "amount": "1.00"}],
            "resources": {"quota": {"pods": "1"}},
        },
    }


def put(path: str, value: Any) -> Change:
    """A change that sets `value` at the dotted path below the object, and makes the objects on the way."""

    def change(document: Object) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document.setdefault(parent, {})
        document[last] = value

    return change


def drop(path: str) -> Change:
    """A change that removes what is at the dotted path below the object."""

    def change(document: Object) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document[parent]
        del document[last]

    return change


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

CASES = {
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
    "quota-key": Case(plan(), put(QUOTA, {"cpu": "1"}), "quota must have keys that a ResourceQuota knows"),
    "quota-memory": Case(
        plan(),
        put(QUOTA, {"requests.memory": "1025Mi", "limits.memory": "1Gi"}),
        "requests.memory must not be more than limits.memory",
    ),
    "defaults": Case(
        plan(), put(DEFAULTS, {"limits": {"cpu": "1", "nvidia.com/gpu": "1"}, "requests": {"cpu": "1000m"}})
    ),
    "defaults-key": Case(plan(), put(DEFAULTS, {"limits": {"pods": "1"}}), "keys must be cpu, memory"),
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


Stored = Callable[[Object], Object]


@pytest.fixture
def stored(kubectl: Kubectl) -> Iterator[Stored]:
    """Applies an object for the time of a test and returns what the API server made of it."""
    applied: list[str] = []

    def store(document: Object) -> Object:
        kind = f"{document['kind']}.{document['apiVersion'].split('/')[0]}".lower()
        applied.append(f"{kind}/{document['metadata']['name']}")
        assert_accepted(apply(kubectl, document))
        read: Object = json.loads(kubectl("get", applied[-1], "-o", "json").stdout)
        return read

    yield store
    for reference in reversed(applied):
        kubectl("delete", reference, "--ignore-not-found")


def with_spec(document: Object, **spec: Any) -> Object:
    return {**document, "spec": {**document["spec"], **spec}}


VECTORS = {"dimensions": 1536, "metric": "l2", "type": "halfvec"}
TRANSITIONS = {
    "namespace-set-later": (tenant("moving"), {"namespace": {"name": "other"}}, "keep tenant-moving"),
    "namespace-default-spelled-out": (tenant("moving"), {"namespace": {"name": "tenant-moving"}}, None),
    "namespace-changed": (
        with_spec(tenant("moving"), namespace={"name": "one"}),
        {"namespace": {"name": "two"}},
        "spec.namespace: Forbidden: spec.namespace.name cannot be changed: keep one",
    ),
    "namespace-removed": (
        with_spec(tenant("moving"), namespace={"name": "one"}),
        {"namespace": {}},
        "keep one",
    ),
    "vectors-set-later": (tenant("moving"), {"vectorStore": VECTORS}, None),
    "vectors-removed": (
        with_spec(tenant("moving"), vectorStore=VECTORS),
        {"vectorStore": None},
        "vectorStore cannot be removed once set",
    ),
    **{
        f"vectors-{field}": (
            with_spec(tenant("moving"), vectorStore=VECTORS),
            {"vectorStore": {**VECTORS, field: value}},
            f"spec.vectorStore.{field}: Forbidden: {field} cannot be changed once set",
        )
        for field, value in {"dimensions": 8, "metric": "cosine", "type": "vector"}.items()
    },
    "display-name": (with_spec(tenant("moving"), displayName="Old"), {"displayName": "New"}, None),
    "currency": (plan("moving"), {"currency": "eur"}, "put usd back or create another Plan"),
    "prices": (plan("moving"), {"prices": [{"interval": "month", "amount": "2.00"}]}, None),
}


@pytest.mark.parametrize(("before", "change", "message"), TRANSITIONS.values(), ids=TRANSITIONS.keys())
def test_transitions(
    kubectl: Kubectl, stored: Stored, before: Object, change: Object, message: str | None
) -> None:
    stored(before)
    spec = {key: value for key, value in {**before["spec"], **change}.items() if value is not None}
    result = try_out(kubectl, {**before, "spec": spec})
    if message is None:
        assert_accepted(result)
    else:
        assert_refused(result, message)


def archive() -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "TenantArchive",
        "metadata": {"name": "acme-1f0c9a2e"},
        "spec": {
            "tenant": "acme",
            "tenantUID": "1f0c9a2e-0000-0000-0000-000000000000",
            "owner": {"email": "ops@acme.example"},
            "tenantSpec": {
                "owner": {"email": "ops@acme.example"},
                "members": [{"name": "alice"}],
                "new": {"er": 1},
            },
            "namespace": "tenant-acme",
            "placement": {"shard": "shard-a", "epoch": 4},
            "purgeAfter": "2030-01-01T00:00:00Z",
        },
    }


ARCHIVE_CHANGES = {
    "tenant": put("spec.tenant", "rival"),
    "tenantUID": put("spec.tenantUID", "another"),
    "owner": put("spec.owner.email", "rival@rival.example"),
    "tenantSpec": put("spec.tenantSpec.new.er", 2),
    "namespace": put("spec.namespace", "tenant-rival"),
    "placement": drop("spec.placement"),
}


@pytest.mark.parametrize("field", ARCHIVE_CHANGES)
def test_of_an_archive_only_purge_after_changes(kubectl: Kubectl, stored: Stored, field: str) -> None:
    assert stored(archive())["spec"] == archive()["spec"], "nothing is pruned"
    later = archive()
    later["spec"]["purgeAfter"] = "2031-01-01T00:00:00Z"
    assert_accepted(try_out(kubectl, later))
    ARCHIVE_CHANGES[field](later)
    assert_refused(try_out(kubectl, later), f"spec.{field}: Forbidden: {field} cannot be changed")


@pytest.mark.parametrize("document", [tenant("fresh"), plan("fresh")], ids=["tenant", "plan"])
def test_a_new_object_waits_for_the_operator(stored: Stored, document: Object) -> None:
    status = stored(document)["status"]
    assert status["observedGeneration"] == -1
    (ready,) = status["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")
    assert ready["message"] == "Waiting for the operator"


def test_defaults(stored: Stored) -> None:
    document = with_spec(
        tenant("fresh"),
        members=[{"kind": "User", "name": "alice", "role": "viewer"}],
        vectorStore={"dimensions": 8},
        namespace={},
    )
    spec = stored(document)["spec"]
    assert (spec["suspended"], spec["deletionPolicy"], spec["retentionDays"]) == (False, "Retain", 30)
    assert spec["members"][0]["namespace"] == ""
    assert spec["vectorStore"] == {"dimensions": 8, "metric": "cosine", "type": "vector"}
    assert spec["namespace"] == {"adoption": "Never"}
    of_plan = stored(plan("fresh"))["spec"]
    assert (of_plan["trialDays"], of_plan["podSecurity"], of_plan["priority"]) == (0, "restricted", "normal")


def test_a_tenant_is_told_apart_by_its_members_keys(kubectl: Kubectl, stored: Stored) -> None:
    """Two writers each own their own members: a list-map, not a list."""
    stored(with_spec(tenant("shared"), members=[{"kind": "User", "name": "alice", "role": "owner"}]))
    second = with_spec(tenant("shared"), members=[{"kind": "User", "name": "bob", "role": "viewer"}])
    assert_accepted(apply(kubectl, second, "--field-manager=portal"))
    names = kubectl("get", "tenant/shared", "-o", "jsonpath={.spec.members[*].name}").stdout
    assert sorted(names.split()) == ["alice", "bob"]


def test_columns(kubectl: Kubectl, stored: Stored) -> None:
    stored(tenant("shown"))
    stored(
        with_spec(
            plan("shown"),
            prices=[{"interval": "year", "amount": "10.00"}, {"interval": "month", "amount": "1.00"}],
        )
    )
    header, line = kubectl("get", "tn", "shown").stdout.splitlines()
    assert header.split() == ["NAME", "PLAN", "PHASE", "NAMESPACE", "SHARD", "READY", "AGE"]
    assert line.split()[:2] == ["shown", "Unknown"]
    assert "Waiting for the operator" in kubectl("get", "tn", "shown", "-o", "wide").stdout
    header, line = kubectl("get", "pl", "shown").stdout.splitlines()
    assert header.split() == ["NAME", "PRICE", "TENANTS", "AGE"]
    assert line.split()[:3] == ["shown", "1.00", "0"]
    assert "tenant.tenantry.dev/shown" in kubectl("get", "tenantry", "-o", "name").stdout


def test_explain(kubectl: Kubectl) -> None:
    shown = kubectl("explain", "tenant.spec.members").stdout
    assert "Who has access to the tenant's namespace" in shown
    assert "enum: owner, editor, viewer" in shown


def test_every_definition_is_accepted_with_room(kubectl: Kubectl) -> None:
    """Twice the sizes still fit what an API server allows rules to cost."""

    def twice(node: Any) -> Any:
        if isinstance(node, list):
            return [twice(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        sizes = ("maxItems", "maxLength", "maxProperties")
        return {
            key: value * 2 if key in sizes and isinstance(value, int) else twice(value)
            for key, value in node.items()
        }

    for document in crd_documents().values():
        assert_accepted(apply(kubectl, twice(document), "--dry-run=server", "--force-conflicts"))


def test_an_object_of_an_older_laxer_schema_can_still_be_changed(kubectl: Kubectl, stored: Stored) -> None:
    """Ratcheting: only what a change touches must satisfy the rules of today."""
    strict = copy.deepcopy(crd_documents()["plans.yaml"])
    strict["spec"]["group"] = "ratcheting.example"
    strict["spec"]["names"].pop("categories")
    strict["spec"]["names"]["shortNames"] = []
    strict["metadata"]["name"] = "plans.ratcheting.example"
    lax = copy.deepcopy(strict)
    properties = lax["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    del properties["resources"]["properties"]["quota"]["additionalProperties"]["x-kubernetes-validations"]
    stored(lax)
    kubectl("wait", "--for=condition=Established", "crd/plans.ratcheting.example", "--timeout=30s")
    old = {
        **with_spec(plan("old"), resources={"quota": {"pods": "many"}}),
        "apiVersion": "ratcheting.example/v1alpha1",
    }
    _eventually(lambda: apply(kubectl, old).returncode == 0)

    assert_accepted(apply(kubectl, strict))
    fresh = {**old, "metadata": {"name": "new"}}
    _eventually(lambda: try_out(kubectl, fresh).returncode != 0)
    assert_refused(try_out(kubectl, fresh), "must be a quantity")
    assert_accepted(try_out(kubectl, with_spec(old, displayName="Renamed")))
    worse = with_spec(old, resources={"quota": {"pods": "lots"}})
    assert_refused(try_out(kubectl, worse), "must be a quantity")


def _eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Waits for what an API server does in its own time: it serves a changed definition shortly after."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.1)

"""Drift: what the API server only spells differently is the same, whatever anybody adds is not."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kubernetes.utils.quantity import parse_quantity

from tenantry.desired import children
from tenantry.desired.access import cluster_roles
from tenantry.desired.configuration import controller_revision
from tenantry.desired.fingerprint import fingerprint, quantity
from tenantry.desired.network import Surroundings
from tenantry.desired.observe import observe
from tenantry.desired.owner import Access, Manifest, Owner
from tenantry.desired.resources import limit_range, quota
from tenantry.domain.configuration import Revision, canonical, configure, resolve
from tests.unit.builders import plan, sample, tenant

ACME = Owner("acme", "uid-of-acme", "tenant-acme")
AROUND = Surroundings(scraper_namespaces=("monitoring",), api_server_cidrs=("10.0.0.1/32",))
SUFFIXES = [
    "",
    "n",
    "u",
    "m",
    "k",
    "M",
    "G",
    "T",
    "P",
    "E",
    "Ki",
    "Mi",
    "Gi",
    "Ti",
    "Pi",
    "Ei",
    "e3",
    "E-2",
    "e+1",
]


def all_children() -> list[Manifest]:
    spec = tenant(**sample("acme.yaml", "acme")["spec"]).spec
    enterprise = plan("enterprise")
    decided = configure(resolve(None, enterprise).config, None, [], None, None)
    return [
        *children.policy_group(ACME, spec, enterprise, Access.OPEN, AROUND).manifests,
        *children.policy_group(ACME, spec, enterprise, Access.SUSPENDED, AROUND).manifests,
        *children.config_group(ACME, spec, "enterprise", "high", decided, "uid").manifests,
        *children.shard_group(ACME, {"url": "postgresql://", "tenant": "1"}).manifests,
        *cluster_roles(),
    ]


CHILDREN = {
    f"{item['kind']}-{item['metadata']['name']}-{index}": item for index, item in enumerate(all_children())
}
EVERY_CHILD = pytest.mark.parametrize("name", CHILDREN)


def as_stored(value: Any) -> Any:
    """Return a manifest as the API server answers it: empty fields left out, its own added."""
    stored = deepcopy(value)
    stored["metadata"] |= {
        "uid": "u",
        "resourceVersion": "5",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "generation": 1,
        "managedFields": [{"manager": "tenantry"}],
    }
    stored["status"] = {"hard": {"pods": "1"}}
    for field in ("ingress", "egress"):
        if stored.get("spec", {}).get(field) == []:
            del stored["spec"][field]
    if stored.get("subjects") == []:
        del stored["subjects"]
    return stored


@EVERY_CHILD
def test_an_object_as_stored_is_the_one_that_was_written(name: str) -> None:
    manifest = CHILDREN[name]
    assert fingerprint(as_stored(manifest)) == fingerprint(manifest)


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a manifest that is ours to decide."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        if path or key not in ("apiVersion", "kind", "metadata"):
            yield from paths(item, (*path, key))
    if not path:
        for part in {"labels", "annotations", "ownerReferences"} & value["metadata"].keys():
            yield from paths(value["metadata"][part], ("metadata", part))


def at(manifest: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        manifest = manifest[step]
    return manifest


OTHERS: list[Any] = ["other", 123456789, [{}], {"x": "y"}]
MAPS = ("labels", "annotations")
"""Of strings to strings, and nothing else can be in their place."""


@EVERY_CHILD
def test_every_value_that_is_changed_emptied_or_taken_out_shows(name: str) -> None:
    manifest = CHILDREN[name]
    wanted, prints = fingerprint(manifest), 0
    for path in paths(manifest):
        *outer, last = path
        old = at(manifest, path)
        for new in OTHERS:
            if new == old or (last in MAPS and not isinstance(new, dict)):
                continue
            changed = deepcopy(manifest)
            at(changed, tuple(outer))[last] = new
            assert fingerprint(changed) != wanted, f"{path}: {old!r} -> {new!r}"
            prints += 1
        removed = deepcopy(manifest)
        del at(removed, tuple(outer))[last]
        if old != []:
            assert fingerprint(removed) != wanted, f"{path} removed"
    assert prints


ADDITIONS: dict[str, list[tuple[tuple[Any, ...], Any]]] = {
    "NetworkPolicy": [
        (("spec", "ingress"), [{}]),
        (("spec", "egress"), [{}]),
        (("spec", "ingress"), [{"from": [{"namespaceSelector": {}}]}]),
        (("spec", "ingress"), [{"from": [{"podSelector": {}}]}]),
        (("spec", "ingress"), [{"from": [{"namespaceSelector": {}, "podSelector": {}}]}]),
        (("spec", "ingress"), [{"ports": [{}]}]),
        (("spec", "ingress"), [{"ports": [{"protocol": "UDP"}]}]),
        (("spec", "podSelector", "matchLabels"), {"app": "x"}),
        (("spec", "podSelector", "matchExpressions"), [{"key": "x", "operator": "Exists"}]),
        (("spec", "policyTypes"), ["Ingress"]),
        (("spec", "policyTypes"), ["Egress"]),
    ],
    "ResourceQuota": [
        (("spec", "hard", "count/pods"), "0"),
        (("spec", "hard", "pods"), "1000"),
        (("spec", "scopes"), ["BestEffort"]),
        (
            ("spec", "scopeSelector"),
            {"matchExpressions": [{"scopeName": "Terminating", "operator": "Exists"}]},
        ),
    ],
    "LimitRange": [
        (("spec", "limits", 0, "min"), {"cpu": "1"}),
        (("spec", "limits", 0, "maxLimitRequestRatio"), {"cpu": "1"}),
        (("spec", "limits", 0, "max", "nvidia.com/gpu"), "1"),
    ],
    "RoleBinding": [
        (
            ("subjects",),
            [{"kind": "Group", "name": "system:authenticated", "apiGroup": "rbac.authorization.k8s.io"}],
        ),
        (("roleRef", "kind"), "Role"),
        (("roleRef", "name"), "cluster-admin"),
    ],
    "Secret": [
        (("data", "url"), "eA=="),
        (("data", "surplus"), "eA=="),
        (("type",), "kubernetes.io/basic-auth"),
        (("immutable",), True),
    ],
    "ServiceAccount": [
        (("secrets",), [{"name": "x"}]),
        (("imagePullSecrets",), [{"name": "x"}]),
        (("automountServiceAccountToken",), False),
    ],
    "ConfigMap": [
        (("data", "extra"), ""),
        (("binaryData",), {"extra": ""}),
        (("immutable",), True),
    ],
    "ControllerRevision": [
        (("revision",), 99),
        (("data", "extra"), []),
        (("data", "extra"), {}),
        (("data", "extra"), ""),
    ],
    "ClusterRole": [
        (("aggregationRule",), {"clusterRoleSelectors": [{}]}),
        (("rules", 0, "nonResourceURLs"), ["*"]),
        (("rules", 0, "resourceNames"), ["x"]),
    ],
}
MARKS: list[tuple[tuple[Any, ...], Any]] = [
    (("metadata", "finalizers"), ["example.com/keep"]),
    (("metadata", "labels", "extra"), ""),
    (("metadata", "annotations", "extra"), ""),
    (("metadata", "ownerReferences"), [{"kind": "Pod", "name": "x", "uid": "y"}]),
]


@EVERY_CHILD
def test_every_meaningful_addition_shows(name: str) -> None:
    manifest = CHILDREN[name]
    seen = {fingerprint(manifest)}
    # Of a ClusterRole's metadata only our own label counts: the rest is of whoever installed it.
    marks = [] if manifest["kind"] == "ClusterRole" else MARKS
    for path, value in (*ADDITIONS[manifest["kind"]], *marks):
        *outer, last = path
        if manifest.get("spec", {}).get(last) == value:
            continue
        changed = deepcopy(manifest)
        changed["metadata"].setdefault("annotations", {})
        at(changed, tuple(outer))[last] = value
        print_ = fingerprint(changed)
        assert print_ not in seen, f"{path} = {value!r}"
        seen.add(print_)


@pytest.mark.parametrize(("path", "value"), MARKS)
def test_marks_of_who_installed_a_cluster_role_are_no_drift(path: tuple[Any, ...], value: Any) -> None:
    role = cluster_roles()[0]
    changed = deepcopy(role)
    changed["metadata"].setdefault("annotations", {})
    at(changed, path[:-1])[path[-1]] = value
    assert fingerprint(changed) == fingerprint(role)
    del changed["metadata"]["labels"]["tenantry.dev/role"]
    assert fingerprint(changed) != fingerprint(role)


NUMBERS = st.one_of(
    st.integers(0, 10**12).map(str),
    st.tuples(st.integers(0, 10**6), st.integers(0, 999)).map(lambda parts: f"{parts[0]}.{parts[1]:03d}"),
    st.integers(0, 999).map(lambda number: f".{number:03d}"),
)
QUANTITIES = st.builds(lambda number, suffix: number + suffix, NUMBERS, st.sampled_from(SUFFIXES))


def at_api_server(text: str) -> Decimal:
    """Return what the API server makes of a quantity: kubernetes' own parser, then its rounding and its cap."""
    value: Decimal = parse_quantity(text)
    if int(value.as_tuple().exponent) < -3:
        value = value.quantize(Decimal("1e-3"), "ROUND_UP")
    return min(value, Decimal(2**63 - 1)) if text.endswith("i") else value


@given(QUANTITIES)
@example("1.5Gi")
@example("8Ei")
@example("0.1n")
@example("5.")
@example("-0")
def test_a_quantity_is_the_number_that_the_api_server_takes_it_for(text: str) -> None:
    assert quantity(text) == at_api_server(text)


@given(QUANTITIES, QUANTITIES)
@example("1", "1000m")
@example("1Gi", "1073741824")
@example("0.5", "500m")
@example("2e3", "2k")
@example("0.1n", "1m")
@example("1.0000001", "1001m")
@example("16Ei", "9223372036854775807")
@example("-0", "0")
def test_two_spellings_of_one_amount_are_no_drift_and_two_amounts_are(one: str, other: str) -> None:
    same = at_api_server(one) == at_api_server(other)
    resources = sample("plans.yaml", "pro")["spec"]["resources"]
    for field, builder in (("quota", quota), ("containerMax", limit_range)):
        prints = []
        for amount in (one, other):
            spec = plan(
                "pro", resources={**resources, field: {"limits.cpu" if field == "quota" else "cpu": amount}}
            )
            prints.append(fingerprint(builder(ACME, spec) or {}))
        assert (prints[0] == prints[1]) == same


@pytest.mark.parametrize(
    "text", ["", ".", "1.2.3", "1 Gi", "Gi", "1gi", "1mm", "0x1", "--1", "1e", "1ee3", "NaN", "1K"]
)
def test_what_is_no_quantity_is_refused_as_such(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity(text)


def test_an_amount_that_is_no_quantity_still_tells_one_from_another() -> None:
    broken = [
        {"kind": "ResourceQuota", "metadata": {}, "spec": {"hard": {"pods": text}}} for text in ("1.2.3", "x")
    ]
    assert fingerprint(broken[0]) != fingerprint(broken[1])


def test_text_that_looks_like_a_quantity_is_not_one_elsewhere() -> None:
    maps = [{"kind": "ConfigMap", "metadata": {}, "data": {"max": text}} for text in ("1", "1000m")]
    assert fingerprint(maps[0]) != fingerprint(maps[1])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["model", "labels", "status", "data"]), JSON, max_size=3)


@given(OBJECTS, OBJECTS)
def test_two_revisions_are_the_same_only_where_their_content_is(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    prints = [
        fingerprint(controller_revision(ACME, "uid", Revision(1, canonical(content))))
        for content in (one, other)
    ]
    assert (prints[0] == prints[1]) == (canonical(one) == canonical(other))


def test_a_secret_counts_by_its_type_and_its_data_and_nothing_of_it_can_be_read() -> None:
    (secret,) = children.shard_group(ACME, {"url": "postgresql://secret"}).manifests
    (other,) = children.shard_group(ACME, {"url": "postgresql://changed"}).manifests
    changes = [
        other,
        {**secret, "type": "kubernetes.io/tls"},
        {**secret, "immutable": True},
        {**secret, "data": {}},
    ]
    assert len({fingerprint(each) for each in (secret, *changes)}) == 5
    assert fingerprint(as_stored(secret)) == fingerprint(secret)
    kept = observe({**as_stored(secret), "kind": "Secret"})
    assert not any(part in repr(kept) for part in ("postgresql", secret["data"]["url"]))

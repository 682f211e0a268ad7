"""Attacks on what the operator has made, and on its names and marks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tenantry.domain import names
from tests.integration.attacks.actors import Request
from tests.integration.attacks.catalogue import (
    MEMBERS,
    OUTSIDE,
    OWNER,
    RBAC,
    READERS,
    VIEWER,
    WRITERS,
    Attack,
    Place,
    policy,
)
from tests.integration.attacks.requests import (
    WORKLOADS,
    delete,
    get,
    patch,
    pod_spec,
    post,
    workload,
)

Object = dict[str, Any]

OURS: Object = {names.MANAGED_BY: names.MANAGER}
SELECTOR = f"{names.MANAGED_BY}={names.MANAGER}"
HELD: Object = {"finalizers": ["attack.example/hold"]}
OWNED = {
    "ownerReferences": [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "gone",
            "uid": "00000000-0000-4000-8000-000000000000",
        }
    ]
}
CHANGES: tuple[Object, ...] = (
    {"metadata": {"annotations": {"attack.example/note": "x"}}},
    {"metadata": {"labels": {names.MANAGED_BY: None}}},
    {"metadata": {"labels": {names.TENANT: "globex"}}},
    {"metadata": {"labels": None, "annotations": None}},
    {"metadata": HELD},
    {"metadata": OWNED},
)
"""Of metadata, which is alike in every kind; what else is in a child is changed by replacing it."""

WRITABLE = {"configmaps": WRITERS, "secrets": WRITERS, "serviceaccounts": OWNER}
"""Kinds of children that members may write, and which."""


def of_kind(place: Place, *wanted: str) -> Iterator[tuple[str, Object]]:
    return ((resource, item) for resource, item in place.children if resource in wanted)


def others(place: Place) -> Iterator[tuple[str, Object]]:
    return ((resource, item) for resource, item in place.children if resource not in WRITABLE)


def _changes(place: Place, children: Iterator[tuple[str, Object]]) -> Iterator[Request]:
    for resource, item in children:
        name = item["metadata"]["name"]
        for change in CHANGES:
            yield patch(resource, place.namespace, name, change)
        body = {**item, "metadata": {**item["metadata"], "annotations": {}}}
        yield Request("PUT", patch(resource, place.namespace, name, {}).path, body=body)


def _deletions(place: Place, children: Iterator[tuple[str, Object]]) -> Iterator[Request]:
    resources = set()
    for resource, item in children:
        resources.add(resource)
        yield delete(resource, place.namespace, item["metadata"]["name"])
    for resource in sorted(resources):
        yield delete(resource, place.namespace, labelSelector=SELECTOR)


def _look_alikes(place: Place) -> Iterator[Request]:
    for resource, item in others(place):
        body = {
            key: value
            for key, value in item.items()
            if key not in ("metadata", "status", "apiVersion", "kind")
        }
        labels = item["metadata"]["labels"]
        yield post(resource, place.namespace, "attack", body, labels=labels)
        yield post(resource, place.namespace, "attack", body)


def _forged(place: Place) -> Iterator[Request]:
    for resource, content in (
        ("configmaps", {"data": {}}),
        ("secrets", {"stringData": {}}),
        ("services", {"spec": {"ports": [{"port": 80}]}}),
        ("persistentvolumeclaims", _claim()),
    ):
        yield post(resource, place.namespace, "attack", content, labels=OURS)
    for resource, name in (
        ("configmaps", "own"),
        ("secrets", "own"),
        ("deployments", "web"),
        ("pods", "solo"),
    ):
        yield patch(resource, place.namespace, name, {"metadata": {"labels": OURS}})


def _claim() -> Object:
    return {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}


def _marked(place: Place) -> Iterator[Request]:
    for mark in ({names.TENANT: "globex"}, {"tenantry.dev/anything": "x"}):
        yield post("configmaps", place.namespace, "attack", {"data": {}}, labels=mark)
        yield patch("pods", place.namespace, "solo", {"metadata": {"labels": mark}})


def _templates(place: Place) -> Iterator[Request]:
    for resource in set(WORKLOADS) - {
        "jobs"
    }:  # a Job has the labels of its template itself: it is forged, see above
        yield workload(resource, place.namespace, pod_spec(), labels=OURS)
    yield workload("statefulsets", place.namespace, pod_spec(), labels={names.TENANT: "globex"})
    yield workload("statefulsets", place.namespace, pod_spec(), annotations={names.TENANT_UID: "x"})
    template = {"spec": {"template": {"metadata": {"labels": OURS}}}}
    yield patch("deployments", place.namespace, "web", template)


def _held(place: Place) -> Iterator[Request]:
    for resource, content in (
        ("configmaps", {"data": {}}),
        ("secrets", {"stringData": {}}),
        ("services", {"spec": {"ports": [{"port": 80}]}}),
        ("persistentvolumeclaims", _claim()),
        ("pods", {"spec": pod_spec()}),
    ):
        yield post(resource, place.namespace, "attack", content, **HELD)
    for resource in WORKLOADS:
        yield workload(resource, place.namespace, pod_spec(), **HELD)
    for resource, name in (
        ("configmaps", "own"),
        ("secrets", "own"),
        ("deployments", "web"),
        ("pods", "solo"),
    ):
        yield patch(resource, place.namespace, name, {"metadata": HELD})
    # A controller takes this one off claims; from a ConfigMap nobody ever would.
    kept = {"finalizers": ["kubernetes.io/pvc-protection"]}
    yield post("configmaps", place.namespace, "attack", {"data": {}}, **kept)


NAMESPACE_MARKS: tuple[Object, ...] = (
    {"labels": {names.TENANT: "globex"}},
    {"labels": {names.TENANT: None}},
    {"labels": {f"{names.POD_SECURITY}enforce": "privileged"}},
    {"labels": {f"{names.POD_SECURITY}enforce": None}},
    {"labels": {f"{names.POD_SECURITY}exempt": "yes"}},
    {"labels": {names.MANAGED_BY: None}},
)
NAMESPACE_NOTES: tuple[Object, ...] = (
    {"annotations": {names.TENANT_UID: None}},
    {"annotations": {names.ORIGIN: "adopted"}},
    {"annotations": {"tenantry.dev/anything": "x"}},
)


def _namespace(place: Place, *changes: Object) -> Iterator[Request]:
    return (patch("namespaces", "", place.namespace, {"metadata": change}) for change in changes)


def _finalized(place: Place) -> Iterator[Request]:
    yield delete("namespaces", "", place.namespace)
    body = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": place.namespace},
        "spec": {"finalizers": []},
    }
    yield Request("PUT", f"/api/v1/namespaces/{place.namespace}/finalize", body=body)


ATTACKS = (
    Attack(
        "Change, unlabel, hold or replace `tenant-config`",
        policy("children"),
        "ConfigMap tenant-config is managed by Tenantry and cannot be changed. Your application reads its settings "
        "from it: ask your platform team to change them in Tenant acme",
        lambda place: _changes(place, of_kind(place, "configmaps")),
    ),
    Attack(
        "Delete `tenant-config`, by name or with all of its kind",
        policy("children"),
        "ConfigMap tenant-config is managed by Tenantry and cannot be deleted.",
        lambda place: _deletions(place, of_kind(place, "configmaps")),
    ),
    Attack(
        "Change, unlabel, hold or replace `vector-store`, such as its address",
        policy("children"),
        "Secret vector-store is managed by Tenantry and cannot be changed. Keep what is yours in another Secret.",
        lambda place: [
            *_changes(place, of_kind(place, "secrets")),
            patch("secrets", place.namespace, names.VECTOR_STORE, {"stringData": {"url": "x"}}),
            patch("secrets", place.namespace, names.VECTOR_STORE, {"data": None}),
            patch("secrets", place.namespace, names.VECTOR_STORE, {"immutable": True}),
        ],
    ),
    Attack(
        "Delete `vector-store`, by name or with all of its kind",
        policy("children"),
        "Secret vector-store is managed by Tenantry and cannot be deleted.",
        lambda place: _deletions(place, of_kind(place, "secrets")),
    ),
    Attack(
        "Read `vector-store` as somebody who only looks",
        RBAC,
        "cannot",
        lambda place: [
            get("secrets", place.namespace, names.VECTOR_STORE),
            get("secrets", place.namespace),
            get("secrets", place.namespace, fieldSelector=f"metadata.name={names.VECTOR_STORE}"),
            get("secrets", place.namespace, watch="true"),
        ],
        who=VIEWER,
        free=READERS,
    ),
    Attack(
        "Change, unlabel, hold or replace ServiceAccount `app`, such as its imagePullSecrets",
        policy("children"),
        "ServiceAccount app is managed by Tenantry and cannot be changed. Use a ServiceAccount of your own",
        lambda place: [
            *_changes(place, of_kind(place, "serviceaccounts")),
            patch("serviceaccounts", place.namespace, "app", {"imagePullSecrets": [{"name": "own"}]}),
        ],
        who=OWNER,
    ),
    Attack(
        "Delete ServiceAccount `app`, by name or with all of its kind",
        policy("children"),
        "ServiceAccount app is managed by Tenantry and cannot be deleted.",
        lambda place: _deletions(place, of_kind(place, "serviceaccounts")),
        who=OWNER,
    ),
    Attack(
        "Change, unlabel, hold or replace any other child: a quota, limit, network policy, role binding, revision",
        RBAC,
        "cannot",
        lambda place: _changes(place, others(place)),
        who=MEMBERS,
    ),
    Attack(
        "Delete any other child, by name or with all of its kind",
        RBAC,
        "cannot delete",
        lambda place: _deletions(place, others(place)),
        who=MEMBERS,
    ),
    Attack(
        "Make another quota, limit, network policy, role binding or revision, with our labels or without",
        RBAC,
        "cannot create resource",
        _look_alikes,
        who=MEMBERS,
    ),
    Attack(
        "The same by a controller of another namespace that may write everything: change a child",
        policy("children"),
        "is managed by Tenantry and cannot be changed.",
        lambda place: _changes(place, iter(place.children)),
        who=OUTSIDE,
    ),
    Attack(
        "The same controller deletes a child",
        policy("children"),
        "is managed by Tenantry and cannot be deleted.",
        lambda place: _deletions(place, iter(place.children)),
        who=OUTSIDE,
    ),
    Attack(
        "Label an object of one's own as one of ours",
        policy("children"),
        "the label app.kubernetes.io/managed-by: tenantry is only for what Tenantry makes itself. Leave it out of",
        _forged,
    ),
    Attack(
        "Make `vector-store`, `tenant-config` or `app` before the operator does",
        policy("marks"),
        "is kept for what Tenantry makes itself. Choose another name.",
        lambda place: [
            post("secrets", place.namespace, "vector-store", {"stringData": {"dsn": "x"}}),
            post("configmaps", place.namespace, "tenant-config", {"data": {}}),
        ],
        elsewhere=True,
    ),
    Attack(
        "Pass objects off as another tenant's, by labels of tenantry.dev",
        policy("marks"),
        "the label tenantry.dev/",
        _marked,
    ),
    Attack(
        "Set annotations of tenantry.dev",
        policy("marks"),
        "is set only by Tenantry. Leave it out.",
        lambda place: [
            post("configmaps", place.namespace, "attack", {"data": {}}, annotations={names.TENANT_UID: "x"}),
            patch("configmaps", place.namespace, "own", {"metadata": {"annotations": {names.ORIGIN: "x"}}}),
        ],
    ),
    Attack(
        "Have a controller of the cluster make objects with our marks, by a template",
        policy("pods"),
        "is a mark of what Tenantry makes itself. Leave it out.",
        _templates,
    ),
    Attack(
        "Hold the namespace's deletion by a finalizer",
        policy("marks"),
        "is not allowed: it would keep the namespace from ever being deleted. "
        "Leave it out; if a controller needs it, ask your platform team to allow it.",
        _held,
    ),
    Attack(
        "Relabel or annotate the namespace, such as its Pod Security level",
        RBAC,
        'cannot patch resource "namespaces"',
        lambda place: _namespace(place, *NAMESPACE_MARKS, *NAMESPACE_NOTES, OWNED),
        who=MEMBERS,
    ),
    Attack(
        "Delete the namespace, or empty its finalizers",
        RBAC,
        'resource "namespaces',
        _finalized,
        who=MEMBERS,
    ),
    Attack(
        "A controller that may write namespaces relabels it",
        policy("namespaces"),
        "is set only by Tenantry, because it keeps tenants apart. Leave it as it is, or ask your platform team.",
        lambda place: _namespace(place, *NAMESPACE_MARKS),
        who=OUTSIDE,
    ),
    Attack(
        "That controller annotates it",
        policy("namespaces"),
        "is set only by Tenantry, because it says whose the namespace is.",
        lambda place: _namespace(place, *NAMESPACE_NOTES),
        who=OUTSIDE,
    ),
    Attack(
        "That controller gives it an owner, so that garbage collection deletes it",
        policy("namespaces"),
        "belongs to Tenant acme and cannot have metadata.ownerReferences",
        lambda place: _namespace(place, OWNED),
        who=OUTSIDE,
    ),
    Attack(
        "That controller deletes it",
        policy("namespaces"),
        "Namespace tenant-acme holds everything of Tenant acme and cannot be deleted by itself.",
        _finalized,
        who=OUTSIDE,
    ),
    Attack(
        "That controller makes a namespace that looks like a tenant's",
        policy("namespaces"),
        "is set only by Tenantry",
        lambda place: [
            post("namespaces", "", "attack", labels={names.TENANT: place.tenant}),
            post("namespaces", "", "attack", annotations={names.TENANT_UID: "x"}),
        ],
        who=OUTSIDE,
    ),
)

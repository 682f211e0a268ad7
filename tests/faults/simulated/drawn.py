"""What the acts of users are drawn from: fields of Tenants, edits of Plans, how much time the operator gets."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies

Object = dict[str, Any]

TENANTS = ("acme", "bolt", "coil")
PLACES = ("legacy", "tenant-acme", "tenant-bolt", "tenant-coil")
STRANGER = "new@stranger.example"
MANAGERS = strategies.sampled_from(["kubectl", "argocd-controller", "kubectl-edit"])
CHILD = strategies.integers(0, 30)
"""Which of the children that are there, counted round and round."""

MEMBERS: list[Object] = [
    {"kind": "User", "name": "ann@acme.example", "role": "owner"},
    {"kind": "Group", "name": "developers", "role": "editor"},
    {"kind": "ServiceAccount", "name": "dashboard", "role": "viewer"},
]
OVERRIDES: list[Object] = [
    {},
    {"model": {"name": "gpt-4o"}},
    {"retrieval": {"topK": 8}},
    {"model": {"maxTokens": 9}},
]
"""The last two are not allowed on every plan, the first two of them on none but some."""

LABELS: list[Object] = [{}, {"team": "a"}, {"team": "b", "shop.example/tier": "1"}]
FIELDS: dict[str, strategies.SearchStrategy[Any]] = {
    "plan": strategies.sampled_from([None, "free", "pro", "enterprise", "nowhere"]),
    "members": strategies.lists(strategies.sampled_from(MEMBERS), max_size=3, unique_by=str),
    "overrides": strategies.sampled_from(OVERRIDES),
    "suspended": strategies.booleans(),
    "deletionPolicy": strategies.sampled_from(["Retain", "Delete"]),
    "retentionDays": strategies.sampled_from([30, 1, 0]),
    "configRevision": strategies.sampled_from([None, 1, 2, 3, 9]),
    "displayName": strategies.sampled_from([None, "A Name"]),
}
CHANGES = strategies.one_of(
    *(strategies.tuples(strategies.just(field), values) for field, values in FIELDS.items())
)
SPECS = strategies.fixed_dictionaries({}, optional=FIELDS)
PLAN_EDITS: dict[str, list[Object]] = {
    "free": [{}, {"overridable": ["model.name"]}],
    "pro": [
        {},
        {"podSecurity": "baseline", "priority": "high"},
        {"network": {}},
        {"overridable": [], "model": {"provider": "openai", "name": "gpt-5"}},
        {"resources": {"quota": {"pods": "7"}}},
    ],
    "enterprise": [{}, {"retrieval": {"topK": 4}}],
}
PACES = strategies.one_of(
    strategies.just(-1),
    strategies.sampled_from([0, 1, 3, 8]),
)
"""How many steps the operator does after an act; -1: all there are."""

"""Twelve invented companies as tenants, the same every time."""

from __future__ import annotations

from typing import Any

# name, display name, plan, how many members, overrides that the plan allows
_COMPANIES: tuple[tuple[str, str, str, int, dict[str, Any]], ...] = (
    ("initech", "Initech", "pro", 3, {"retrieval": {"topK": 8}}),
    (
        "globex",
        "Globex Corporation",
        "enterprise",
        5,
        {"model": {"maxTokens": 8192}, "retrieval": {"topK": 20}},
    ),
    ("hooli", "Hooli", "enterprise", 6, {"limits": {"requestsPerSecond": 500, "tokensPerMinute": 2000000}}),
    ("pied-piper", "Pied Piper", "pro", 4, {"limits": {"requestsPerSecond": 40}}),
    ("vandelay", "Vandelay Industries", "free", 1, {}),
    ("wonka", "Wonka Industries", "pro", 2, {"model": {"temperature": "0.9"}}),
    ("tyrell", "Tyrell Corporation", "enterprise", 4, {"model": {"systemPrompt": "More human than human."}}),
    (
        "cyberdyne",
        "Cyberdyne Systems",
        "pro",
        3,
        {"model": {"temperature": "0.0"}, "retrieval": {"topK": 12}},
    ),
    ("soylent", "Soylent Corporation", "free", 2, {}),
    ("dunder-mifflin", "Dunder Mifflin", "free", 3, {}),
    ("gringotts", "Gringotts", "pro", 2, {}),
    ("bluth", "Bluth Company", "free", 1, {}),
)


def showcase_tenants() -> list[dict[str, Any]]:
    """Return the Tenant objects, over the sample plans free, pro and enterprise."""
    return [_tenant(*company) for company in _COMPANIES]


def _tenant(name: str, title: str, plan: str, members: int, overrides: dict[str, Any]) -> dict[str, Any]:
    domain = f"{name}.example"
    # Whom a company has first: an owner, then the engineers, then the rest.
    subjects = [
        {"kind": "User", "name": f"admin@{domain}", "role": "owner"},
        {"kind": "Group", "name": f"{name}-engineering", "role": "editor"},
        {"kind": "ServiceAccount", "name": "dashboard", "role": "viewer"},
        {"kind": "Group", "name": f"{name}-support", "role": "viewer"},
        {"kind": "User", "name": f"cto@{domain}", "role": "owner"},
        {"kind": "Group", "name": f"{name}-data", "role": "editor"},
    ]
    spec: dict[str, Any] = {
        "displayName": title,
        "owner": {"email": f"billing@{domain}"},
        "plan": plan,
        "members": subjects[:members],
    }
    if plan != "free":
        spec["costCenters"] = ["research", "support"]
    if overrides:
        spec["overrides"] = overrides
    return {"apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name}, "spec": spec}

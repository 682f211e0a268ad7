"""What an edit did, as Events and the audit log say it."""

from __future__ import annotations

from typing import Any

import pytest

from tenantry.domain.edits import in_words

Spec = dict[str, Any]

BEFORE: Spec = {
    "plan": "free",
    "suspended": False,
    "owner": {"email": "ops@acme.example"},
    "displayName": "Acme Corp",
    "members": [{"kind": "User", "name": "alice@acme.example", "role": "owner"}],
    "overrides": {"model": {"temperature": "0.2"}},
}

EDITS: dict[str, tuple[Spec, str]] = {
    "name": ({"plan": "pro"}, "changed spec.plan from free to pro"),
    "boolean": ({"suspended": True}, "changed spec.suspended from false to true"),
    "set": ({"configRevision": 3}, "set spec.configRevision to 3"),
    "removed": ({"plan": None}, "removed spec.plan"),
    "within": (
        {"overrides": {"model": {"temperature": "0.5"}, "retrieval": {"topK": 12}}},
        "changed spec.overrides.model.temperature from 0.2 to 0.5 and set spec.overrides.retrieval.topK to 12",
    ),
    "emptied": ({"overrides": {}}, "removed spec.overrides.model.temperature"),
    "nothing but an empty object": ({"namespace": {}}, "set spec.namespace"),
    "an address is not told": ({"owner": {"email": "eve@acme.example"}}, "changed spec.owner.email"),
    "nor is prose": ({"displayName": "Acme & Sons"}, "changed spec.displayName"),
    "nor a list": ({"members": []}, "changed spec.members"),
    "null is unset": ({"configRevision": None}, "changed the spec"),
    "three": (
        {"plan": "pro", "members": None, "configRevision": 2},
        "set spec.configRevision to 2, removed spec.members and changed spec.plan from free to pro",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_in_words(edit: str) -> None:
    changes, words = EDITS[edit]
    assert in_words(BEFORE, {**BEFORE, **changes}) == words


def test_many_changes_are_not_all_told() -> None:
    words = in_words({}, {f"f{number}": number for number in range(9)})
    assert words == (
        "set spec.f0 to 0, set spec.f1 to 1, set spec.f2 to 2, set spec.f3 to 3 and changed 5 more fields"
    )

"""Who did it, and what stands for a value in the audit log."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenantry.domain.audit import actor_of, digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def _exactly(value: Any) -> Any:
    """Tell True from 1, which Python calls equal and JSON does not."""
    if isinstance(value, dict):
        return {key: _exactly(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_exactly(item) for item in value]
    return (type(value).__name__, value)


def _turned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _turned(value[key]) for key in reversed(value)}
    return [_turned(item) for item in value] if isinstance(value, list) else value


@given(JSON, JSON)
def test_a_digest_is_the_same_for_the_same_value_only(one: Any, other: Any) -> None:
    assert (digest(one) == digest(other)) == (_exactly(one) == _exactly(other))
    assert digest(_turned(one)) == digest(one)


def entry(manager: str, second: int, **more: str) -> dict[str, Any]:
    return {"manager": manager, "time": f"2026-01-01T00:00:{second:02d}Z", **more}


WRITERS = st.lists(
    st.tuples(
        st.sampled_from(["kubectl-client-side-apply", "argocd-controller", "tenantry", "tenantry-placement"]),
        st.integers(0, 59),
        st.booleans(),
    ),
    max_size=6,
    unique_by=lambda item: item[1],
)


@given(WRITERS)
def test_the_actor_is_the_last_writer_of_the_spec_that_is_not_the_operator(
    writers: list[tuple[str, int, bool]],
) -> None:
    fields = [
        entry(manager, second, **({"subresource": "status"} if status else {}))
        for manager, second, status in writers
    ]
    people = [
        (second, manager) for manager, second, status in writers if not status and "tenantry" not in manager
    ]
    assert actor_of(fields) == (max(people)[1] if people else "unknown")

"""Who did it, by the managedFields of an object."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tenantry.domain.audit import actor_of


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

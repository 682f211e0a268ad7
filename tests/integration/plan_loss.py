"""A Plan that is lost although tenants are on it; whoever simply deletes it is refused."""

from __future__ import annotations

from tenantry.reconcile.ports import Refused
from tests.integration.conftest import Api


async def lose_plan(api: Api, name: str) -> None:
    """Delete a Plan while nobody knows how many tenants it has, as after a restore that has left out statuses."""
    for _ in range(50):
        await api.patch("Plan", name, {"status": {"tenants": 0}}, subresource="status")
        try:
            await api.delete("Plan", name)
        except Refused:
            continue  # the operator has counted again
        return
    raise AssertionError(f"the operator always counts the tenants of Plan {name} before it can be deleted")

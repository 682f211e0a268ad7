"""What becomes of a deleted tenant: data is kept as promised, and nothing that is not ours is deleted."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tenantry.api.common import rfc3339
from tenantry.api.tenant import Tenant
from tenantry.domain.deletion import ArchiveStep, Farewell, archive_step, farewell, leave, purge_after
from tenantry.domain.names import FINALIZER
from tests.unit.builders import T0, archive, claim_of, namespace, tenant

MINE, OTHER = "uid-of-acme", "uid-of-other"
OWNERS = st.sampled_from([None, MINE, OTHER])


def deleted(policy: str = "Retain", days: int = 30) -> Tenant:
    metadata = {"deletionTimestamp": rfc3339(T0)}
    return tenant(metadata=metadata, deletionPolicy=policy, retentionDays=days)


@given(
    policy=st.sampled_from(["Retain", "Delete"]),
    owner=OWNERS,
    origin=st.sampled_from(["created", "adopted"]),
    there=st.booleans(),
    deleting=st.booleans(),
)
def test_a_farewell_removes_only_what_is_its_own_and_was_made_for_it(
    policy: str, owner: str | None, origin: str, there: bool, deleting: bool
) -> None:
    way = farewell(deleted(policy), namespace(deleting=deleting) if there else None, owner, origin)
    if not there or owner != MINE:
        assert way is Farewell.NOTHING
    elif policy == "Retain" and not deleting:
        assert way is Farewell.RETAIN
    else:
        assert way is (Farewell.RELEASE if origin == "adopted" else Farewell.REMOVE)


def test_an_adopted_namespace_is_given_back_in_the_end_too() -> None:
    assert leave("adopted") is Farewell.RELEASE
    assert leave("created") is Farewell.REMOVE


@given(st.integers(0, 3650))
def test_retention_counts_from_the_deletion_however_often_it_is_tried(days: int) -> None:
    assert purge_after(deleted(days=days)) == T0 + timedelta(days=days)


MOMENTS = st.integers(-40, 40).map(lambda days: T0 + timedelta(days=days))


@given(
    owner=OWNERS,
    there=st.booleans(),
    going=st.booleans(),
    asked=st.booleans(),
    back=st.booleans(),
    now=MOMENTS,
)
def test_an_archive_purges_only_what_it_keeps_and_only_when_due(
    owner: str | None, there: bool, going: bool, asked: bool, back: bool, now: datetime
) -> None:
    assume(there or owner is None)
    kept = archive(uid=MINE, deleting=asked)
    returned = claim_of(tenant(uid=OTHER)) if back else None
    seen = namespace(deleting=going, tenant_name="acme") if there else None
    step = archive_step(kept, seen, owner, returned, now)
    due = asked or now >= kept.spec.purge_after or going
    if step is ArchiveStep.PURGE:
        assert owner == MINE, "nobody else's data"
        assert due
    elif step is ArchiveStep.KEEP:
        assert owner == MINE
        assert not due
    elif step is ArchiveStep.RESTORED:
        assert owner == OTHER, "a later tenant of that name, though it may be gone again"
    else:
        assert step is ArchiveStep.PURGED
        assert owner is None


def test_an_archive_of_a_tenant_that_lives_does_nothing() -> None:
    alive = claim_of(tenant(uid=MINE))
    for now in (T0, T0 + timedelta(days=4000)):
        assert archive_step(archive(uid=MINE), namespace(), MINE, alive, now) is ArchiveStep.UNTRUE
    going = claim_of(tenant(uid=MINE, metadata={"deletionTimestamp": rfc3339(T0)}))
    assert archive_step(archive(uid=MINE), namespace(), MINE, going, T0) is ArchiveStep.KEEP


def test_an_archive_leaves_the_namespace_to_its_tenant_while_that_takes_leave() -> None:
    kept, at = archive(uid=MINE), rfc3339(T0)
    held = {"finalizers": [FINALIZER, "others.example/hold"], "deletionTimestamp": at}
    leaving = claim_of(tenant(uid=MINE, metadata=held))
    assert archive_step(kept, namespace(), MINE, leaving, T0) is ArchiveStep.WAIT
    assert archive_step(kept, namespace(), MINE, leaving, kept.spec.purge_after) is ArchiveStep.PURGE
    left = claim_of(tenant(uid=MINE, metadata={**held, "finalizers": ["others.example/hold"]}))
    assert archive_step(kept, namespace(), MINE, left, T0) is ArchiveStep.KEEP


def test_a_new_customer_of_the_old_name_elsewhere_does_not_end_the_retention() -> None:
    newcomer = claim_of(tenant(uid=OTHER, namespace={"name": "elsewhere"}))
    assert archive_step(archive(uid=MINE), namespace(), MINE, newcomer, T0) is ArchiveStep.KEEP


@pytest.mark.parametrize(("seconds", "step"), [(-1, ArchiveStep.KEEP), (0, ArchiveStep.PURGE)])
def test_the_retention_ends_at_its_very_second(seconds: int, step: ArchiveStep) -> None:
    kept = archive(uid=MINE)
    now = kept.spec.purge_after + timedelta(seconds=seconds)
    assert archive_step(kept, namespace(), MINE, None, now) is step

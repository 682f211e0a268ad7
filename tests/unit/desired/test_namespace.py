"""The namespace itself: what is ours in it is held, what is others' is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.desired.namespace import matches, namespace, pod_security_kept, surplus, tampered
from tenantry.desired.observe import observe
from tenantry.desired.owner import Manifest, Owner
from tenantry.domain import names
from tenantry.domain.observed import NamespaceDetail, Observed
from tests.unit.builders import EMAIL
from tests.unit.builders import namespace as seen_namespace

ACME = Owner("acme", "uid-of-acme", "tenant-acme")


def desired(**labels: str) -> Manifest:
    return namespace(ACME, pod_security="restricted", labels=labels, origin="created", email=EMAIL)


def stored(manifest: Manifest, **changes: Any) -> Observed:
    """What the API server answers to an apply of it, with changes that somebody else made to its metadata."""
    metadata = manifest["metadata"]
    fields: dict[str, Any] = {
        f"f:{part}": {f"f:{key}": {} for key in metadata[part]} for part in ("labels", "annotations")
    }
    entry = {"manager": names.MANAGER, "operation": "Apply", "fieldsV1": {"f:metadata": fields}}
    merged = {
        part: {
            key: value
            for key, value in {**metadata[part], **changes.pop(part, {})}.items()
            if value is not None
        }
        for part in ("labels", "annotations")
    }
    return observe(
        {**manifest, "metadata": {**metadata, **merged, "uid": "u", "managedFields": [entry], **changes}}
    )


def test_as_it_was_applied_it_needs_no_write() -> None:
    assert matches(desired(team="search"), stored(desired(team="search")))


@given(
    st.dictionaries(
        st.sampled_from(
            ["istio.io/injection", "team", "kubernetes.io/metadata.name", "argocd.argoproj.io/x"]
        ),
        st.just("x"),
    )
)
def test_labels_and_annotations_of_others_are_left_alone(labels: dict[str, str]) -> None:
    there = stored(desired(), labels=labels, annotations=labels)
    assert matches(desired(), there)
    assert not tampered(desired(), there)
    detail: Any = there.detail
    assert surplus(desired(), detail) == {}


OURS = [*desired(team="search")["metadata"]["labels"]]


@pytest.mark.parametrize("key", OURS)
@pytest.mark.parametrize("value", ["somebody-elses", None])
def test_a_label_of_ours_that_is_changed_or_lost_is_put_back(key: str, value: str | None) -> None:
    assert not matches(desired(team="search"), stored(desired(team="search"), labels={key: value}))


@pytest.mark.parametrize("key", [*desired()["metadata"]["annotations"]])
@pytest.mark.parametrize("value", ["somebody-elses", None])
def test_a_mark_that_is_changed_or_lost_is_put_back(key: str, value: str | None) -> None:
    assert not matches(desired(), stored(desired(), annotations={key: value}))


@pytest.mark.parametrize(
    ("part", "key"),
    [
        ("labels", "pod-security.kubernetes.io/exempt"),
        ("labels", "tenantry.dev/trusted"),
        ("annotations", "tenantry.dev/restore-from"),
    ],
)
def test_what_only_we_may_set_is_taken_off(part: str, key: str) -> None:
    there = stored(desired(), **{part: {key: "x"}})
    detail: Any = there.detail
    assert not matches(desired(), there)
    assert tampered(desired(), there)
    assert surplus(desired(), detail) == {part: {key: None}}


def test_the_owners_permission_to_adopt_stays() -> None:
    assert matches(desired(), stored(desired(), annotations={names.ADOPTABLE_BY: "acme"}))


def test_an_owner_that_would_have_it_collected_is_taken_off() -> None:
    there = stored(desired(), ownerReferences=[{"kind": "ConfigMap", "name": "x", "uid": "gone"}])
    detail: Any = there.detail
    assert not matches(desired(), there)
    assert surplus(desired(), detail) == {"ownerReferences": None}


def test_a_label_taken_out_of_the_spec_is_taken_off_but_is_no_tampering() -> None:
    there = stored(desired(team="search"))
    assert not matches(desired(), there)
    assert not tampered(desired(), there)


@given(
    st.dictionaries(
        st.sampled_from([*OURS, "team", "pod-security.kubernetes.io/enforce"]),
        st.sampled_from(["privileged", "x"]),
    )
)
def test_no_label_of_a_tenant_stands_over_ours(labels: dict[str, str]) -> None:
    built = desired(**labels)["metadata"]["labels"]
    plain = desired()["metadata"]["labels"]
    assert {key: built[key] for key in plain} == plain


@pytest.mark.parametrize(
    ("present", "kept"),
    [
        ("baseline", "baseline"),
        ("restricted", "restricted"),
        ("privileged", "restricted"),
        (None, "restricted"),
    ],
)
def test_without_a_plan_no_level_is_kept_that_no_plan_can_set(present: str | None, kept: str) -> None:
    there = seen_namespace()
    labels = {f"{names.POD_SECURITY}enforce": present} if present else {}
    detail = there.detail
    assert isinstance(detail, NamespaceDetail)
    assert pod_security_kept(replace(there, detail=replace(detail, labels=labels))) == kept
    assert pod_security_kept(None) == "restricted"

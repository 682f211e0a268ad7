"""Argo CD, Flux and kstatus agree on every status that the operator writes."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest
import yaml
from lupa import lua51

from tenantry.api.common import Condition
from tenantry.api.crds import KINDS as ALL_KINDS
from tenantry.domain.conditions import Outcome, summarise
from tenantry.domain.errors import Retry, Stalled
from tests.conftest import REPOSITORY
from tests.unit.gitops import argocd
from tests.unit.gitops.argocd import Health
from tests.unit.gitops.flux import flux, kustomization
from tests.unit.gitops.kstatus import Kstatus, kstatus

Object = dict[str, Any]

GENERATION = 3
BEGAN = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PARTS = ("NamespaceReady", "PolicyReady", "ConfigReady")
KINDS: Mapping[str, Any] = {kind.__name__: kind for kind in ALL_KINDS}
OTHER_KINDS = ("Plan", "VectorShard", "TenantMove", "TenantArchive")

INTENDED = {
    "healthy": ("Healthy", Kstatus.CURRENT),
    "suspended": ("Suspended", Kstatus.CURRENT),
    "in progress": ("Progressing", Kstatus.IN_PROGRESS),
    "failed": ("Degraded", Kstatus.FAILED),
}
"""What Argo CD, and what Flux and kstatus, are to make of an object in each state."""

ENDS = {
    "ok": None,
    "retry": Retry("Refused", "the API server refuses"),
    "stalled": Stalled("Mistake", "do this"),
}


def outcome(end: str, part: str) -> Outcome:
    error = ENDS[end]
    if error is None:
        return Outcome("Ready", f"{part} is in place")
    return Outcome.failed(type(error)(error.reason, f"{part}: {error.message}"))


def part_outcomes() -> Iterator[dict[str, str]]:
    """Every way in which the parts of a reconcile can end; without its namespace a tenant has no other part."""
    for end in ("retry", "stalled"):
        yield {"NamespaceReady": end}
    for ends in itertools.product(ENDS, repeat=len(PARTS)):
        yield dict(zip(PARTS, ends, strict=True))


def object_with(conditions: list[Condition], kind: str = "Tenant") -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "acme", "generation": GENERATION},
        "status": {
            "observedGeneration": GENERATION,
            "conditions": [
                item.model_dump(by_alias=True, exclude_none=True, mode="json") for item in conditions
            ],
        },
    }


def summary(
    ends: Mapping[str, str],
    present: list[Condition],
    *,
    also: str,
    suspended: bool,
    generation: int,
    at: datetime,
) -> list[Condition]:
    return summarise(
        {part: outcome(end, part) for part, end in ends.items()},
        present,
        generation=generation,
        now=at,
        ready_message="all is in place",
        suspended=("Requested", "suspended by spec.suspended") if suspended else None,
        also=[outcome(also, "the audit log")],
    )


def earlier() -> list[list[Condition]]:
    """Statuses that may stand when a reconcile begins: none, and one of each state at the generation before."""
    states = (("ok", False), ("ok", True), ("retry", False), ("stalled", False))
    befores = [
        summary(
            dict.fromkeys(PARTS, end), [], also="ok", suspended=suspended, generation=GENERATION - 1, at=BEGAN
        )
        for end, suspended in states
    ]
    return [[], *befores]


def intended(ends: Mapping[str, str], also: str, suspended: bool) -> str:
    """The oracle: a mistake fails, what is tried again is in progress, and a suspension is no fault."""
    all_ends = [*ends.values(), also]
    if "stalled" in all_ends:
        return "failed"
    if "retry" in all_ends:
        return "in progress"
    return "suspended" if suspended else "healthy"


def judged(item: Object) -> tuple[str, Kstatus, Kstatus]:
    """Return what the three make of an object."""
    return argocd.health(item).status, flux(item), kstatus(item)


@pytest.mark.parametrize("suspended", [False, True], ids=["active", "suspended"])
@pytest.mark.parametrize("also", ["ok", "retry"], ids=["recorded", "unrecorded"])
@pytest.mark.parametrize("ends", list(part_outcomes()), ids=lambda ends: "-".join(ends.values()))
def test_all_three_agree_on_every_status_that_a_reconcile_can_write(
    ends: dict[str, str], also: str, suspended: bool
) -> None:
    argo, other = INTENDED[intended(ends, also, suspended)]
    for present in earlier():
        conditions = summary(
            ends,
            present,
            also=also,
            suspended=suspended,
            generation=GENERATION,
            at=BEGAN + timedelta(hours=1),
        )
        item = object_with(conditions)
        assert judged(item) == (argo, other, other)
        by_type = {condition["type"]: condition for condition in item["status"]["conditions"]}
        assert len(by_type) == len(item["status"]["conditions"])
        assert not {"Reconciling", "Stalled"} <= by_type.keys()
        assert {condition["observedGeneration"] for condition in by_type.values()} == {GENERATION}
        assert (by_type["Ready"]["status"] == "True") == (set(ends.values()) | {also} == {"ok"})


@pytest.mark.parametrize("end", list(ENDS))
def test_an_edit_is_in_progress_until_the_operator_has_dealt_with_it(end: str) -> None:
    parts = dict.fromkeys(PARTS, end)
    item = object_with(summary(parts, [], also="ok", suspended=False, generation=GENERATION, at=BEGAN))
    item["metadata"]["generation"] += 1
    assert judged(item) == ("Progressing", Kstatus.IN_PROGRESS, Kstatus.IN_PROGRESS)


@pytest.mark.parametrize("end", list(ENDS))
def test_an_object_that_is_being_deleted_is_never_healthy(end: str) -> None:
    parts = dict.fromkeys(PARTS, end)
    item = object_with(summary(parts, [], also="ok", suspended=False, generation=GENERATION, at=BEGAN))
    item["metadata"]["deletionTimestamp"] = "2026-03-01T13:00:00Z"
    assert judged(item) == ("Progressing", Kstatus.IN_PROGRESS, Kstatus.TERMINATING)


def default_status(plural: str) -> Object:
    """The status that the API server gives a new object, from the CRD as it is installed."""
    crd = yaml.safe_load((REPOSITORY / "crds" / f"{plural}.yaml").read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    status: Object = schema["properties"]["status"]["default"]
    return status


@pytest.mark.parametrize(
    ("plural", "kind"),
    [
        ("tenants", "Tenant"),
        ("plans", "Plan"),
        ("vectorshards", "VectorShard"),
        ("tenantmoves", "TenantMove"),
    ],
)
def test_a_new_object_is_in_progress_before_the_operator_has_seen_it(plural: str, kind: str) -> None:
    item: Object = {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "acme", "generation": 1},
        "status": default_status(plural),
    }
    assert item["status"]["observedGeneration"] == -1
    assert judged(item) == ("Progressing", Kstatus.IN_PROGRESS, Kstatus.IN_PROGRESS)
    # Without the default every tool would take it for done: the reason why the default is there.
    assert kstatus({**item, "status": {}}) is Kstatus.CURRENT


@pytest.mark.parametrize(("kind", "end"), list(itertools.product(OTHER_KINDS, ENDS)))
def test_the_other_kinds_are_judged_alike(kind: str, end: str) -> None:
    """Kinds without conditions of parts: only Ready, Stalled and Reconciling."""
    conditions = summarise(
        {}, [], generation=GENERATION, now=BEGAN, ready_message="valid", also=[outcome(end, "it")]
    )
    argo, other = INTENDED[intended({}, end, False)]
    item = object_with(conditions, kind)
    assert (argocd.health(item).status, kstatus(item)) == (argo, other)
    if kind != "TenantArchive":  # the operator writes archives itself, so no Kustomization ever waits for one
        assert flux(item) is other


# --- what ships for Argo CD --------------------------------------------------------------------------------


def health_tests() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = yaml.safe_load((argocd.FOLDER / "health_test.yaml").read_text())["tests"]
    return tests


@pytest.mark.parametrize("test", health_tests(), ids=lambda test: str(test["inputPath"]))
def test_health_test_yaml(test: dict[str, Any]) -> None:
    """What `go test` in Argo CD's own repository does with these files: status and message are equal."""
    item = yaml.safe_load((argocd.FOLDER / test["inputPath"]).read_text())
    found = argocd.health(item)
    assert found == Health(**test["healthStatus"])
    by_status = dict(INTENDED.values())
    assert kstatus(item) is by_status[found.status]
    if item["kind"] != "TenantArchive":
        assert flux(item) is by_status[found.status]


@pytest.mark.parametrize("test", health_tests(), ids=lambda test: str(test["inputPath"]))
def test_the_test_data_are_whole_objects_of_ours(test: dict[str, Any]) -> None:
    item = yaml.safe_load((argocd.FOLDER / test["inputPath"]).read_text())
    parsed = KINDS[item["kind"]].model_validate(item)
    again = parsed.model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert again["status"] == item["status"]
    assert {"generation", "uid", "resourceVersion", "creationTimestamp"} <= item["metadata"].keys()


def test_every_file_of_the_test_data_is_tested() -> None:
    named = {test["inputPath"] for test in health_tests()}
    assert named == {f"testdata/{path.name}" for path in (argocd.FOLDER / "testdata").iterdir()}
    assert {test["healthStatus"]["status"] for test in health_tests()} == {
        argo for argo, _ in INTENDED.values()
    }


def test_the_config_map_holds_the_same_script_for_each_kind() -> None:
    manifest = yaml.safe_load((argocd.FOLDER / "argocd-cm.yaml").read_text())
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("ConfigMap", "argocd-cm")
    keys = {f"resource.customizations.health.tenantry.dev_{kind}" for kind in KINDS}
    assert manifest["data"] == dict.fromkeys(keys, argocd.HEALTH_LUA)


@pytest.mark.parametrize(
    "missing", ["string.format('%d', 1)", "math.floor(1.5)", "('x'):upper()", "io.open('x')"]
)
def test_the_sandbox_offers_no_more_than_argo_cd(missing: str) -> None:
    with pytest.raises(lua51.LuaError):
        argocd.run(f"return {missing}", {})
    assert argocd.run("return table.concat({ 'a', 'b' }) .. type(os.time())", {}) == "abnumber"


@pytest.mark.parametrize(
    "status", [None, {}, {"conditions": []}, {"observedGeneration": GENERATION, "conditions": []}]
)
def test_an_object_that_says_nothing_of_itself_is_progressing(status: Object | None) -> None:
    item = {"metadata": {"name": "acme", "generation": GENERATION}, "status": status}
    assert argocd.health(item) == Health("Progressing", "Waiting for the operator")


def test_a_condition_about_an_earlier_generation_does_not_count() -> None:
    item = object_with(
        summary(dict.fromkeys(PARTS, "ok"), [], also="ok", suspended=False, generation=GENERATION, at=BEGAN)
    )
    stale = copy.deepcopy(item)
    for condition in stale["status"]["conditions"]:
        condition["observedGeneration"] -= 1
    assert (argocd.health(item).status, flux(item)) == ("Healthy", Kstatus.CURRENT)
    assert (argocd.health(stale).status, flux(stale)) == ("Progressing", Kstatus.IN_PROGRESS)


@pytest.mark.parametrize("status", ["False", "Unknown"])
def test_what_is_not_ready_and_says_no_more_is_in_progress(status: Literal["False", "Unknown"]) -> None:
    """No status of ours, but what one of a later version might be: nothing but True is taken for True."""
    ready = Condition(
        type="Ready",
        status=status,
        observed_generation=GENERATION,
        last_transition_time=BEGAN,
        reason="Other",
        message="wait",
    )
    item = object_with([ready])
    assert argocd.health(item) == Health("Progressing", "wait")
    assert (flux(item), kstatus(item)) == (Kstatus.IN_PROGRESS, Kstatus.IN_PROGRESS)


# --- what ships for Flux ---------------------------------------------------------------------------------


def test_the_kustomization_waits_for_all_that_people_write() -> None:
    manifest = kustomization()
    assert manifest["apiVersion"] == "kustomize.toolkit.fluxcd.io/v1"
    assert manifest["spec"]["wait"] is True
    assert [entry["kind"] for entry in manifest["spec"]["healthCheckExprs"]] == [
        "Tenant",
        "Plan",
        "VectorShard",
        "TenantMove",
    ]
    allowed = {"apiVersion", "kind", "current", "inProgress", "failed"}
    assert all(entry.keys() == allowed for entry in manifest["spec"]["healthCheckExprs"])

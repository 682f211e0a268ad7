"""Everything that must hold of a cluster in which nothing is left to do: each tenant compared with a fresh one."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from tenantry.domain import names
from tests.faults.simulated.apiserver import Ref
from tests.faults.simulated.fresh import (
    CONFIG_PARTS,
    PLANS_OWN,
    Conditions,
    Picture,
    document,
    fresh,
    picture,
)
from tests.faults.simulated.onlooker import OUR_NAMES, Home, Onlooker, Person, archive_name, is_ours

Object = dict[str, Any]

DENY = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [], "egress": []}
NOTHING_NEW = {"hard": {"persistentvolumeclaims": "0", "pods": "0", "services": "0"}}
MARKS = (names.TENANT_UID, names.ORIGIN, names.OWNER)


async def check(onlooker: Onlooker) -> None:
    """Raise AssertionError with all that is not as it must be."""
    problems: list[str] = []
    for person in onlooker.living():
        problems += [f"Tenant {person.name}: {problem}" for problem in await _tenant(onlooker, person)]
    for name in {item["metadata"]["name"] for item in onlooker.stored("Namespace")}:
        problems += [f"namespace {name}: {problem}" for problem in _namespace(onlooker, name)]
    for archive in onlooker.stored("TenantArchive"):
        problems += [
            f"TenantArchive {archive['metadata']['name']}: {it}" for it in _archive(onlooker, archive)
        ]
    for plan in onlooker.stored("Plan"):
        problems += [f"Plan {plan['metadata']['name']}: {it}" for it in _plan(onlooker, plan)]
    problems += _rows(onlooker)
    problems += _foreign(onlooker)
    assert not problems, "\n".join(["at rest, but:", *problems])


# --- tenants -------------------------------------------------------------------------------------------------


def refused(onlooker: Onlooker, person: Person) -> str:
    """Return the reason for which a tenant may not have its namespace, empty where it has it."""
    home = onlooker.home(person.namespace)
    if home is None:
        return "nothing there"
    others = [other for other in onlooker.living() if other.namespace == home.name and other is not person]
    older = any(other.seniority < person.seniority for other in others)
    if home.terminating and home.holder in ("", person.uid):
        return "NamespaceTerminating"
    if home.holder == person.uid:
        return ""
    holder = onlooker.people.get(home.holder)
    if holder is None:
        return "NamespaceClaimed" if older else _unowned(onlooker, person, home)
    if not holder.gone:
        return "NamespaceClaimed"
    if home.terminating:
        return "NamespaceTerminating"
    if holder.name != person.name:
        return "NamespaceNotOurs"
    return "it must be restored" if onlooker.may_take_over(person, holder) else "RestoreNotAllowed"


def _unowned(onlooker: Onlooker, person: Person, home: Home) -> str:
    if (person.spec.get("namespace") or {}).get("adoption") != "IfMarked":
        return "NamespaceNotOurs"
    if home.annotations.get(names.ADOPTABLE_BY) != person.name:
        return "NamespaceNotMarked"
    own = [ref for ref in onlooker.world.api.objects if ref.namespace == home.name]
    taken = any(ref.name in OUR_NAMES.get(ref.kind, ()) for ref in own)
    return "NameTaken" if taken else "it must be adopted"


async def _tenant(onlooker: Onlooker, person: Person) -> list[str]:
    tenant = onlooker.world.api.objects[Ref("Tenant", "", person.name)].manifest
    status, metadata = tenant["status"], tenant["metadata"]
    if person.deleting:
        home = onlooker.home(person.namespace)
        return [] if home and home.terminating and status["phase"] == "Deleting" else ["is not gone"]
    problems = []
    if names.FINALIZER not in metadata.get("finalizers", []):
        problems.append("has no finalizer")
    seen = {status["observedGeneration"], *(item["observedGeneration"] for item in status["conditions"])}
    if seen != {metadata["generation"]}:
        problems.append(f"speaks of generations {seen}, not of {metadata['generation']}")
    reason = refused(onlooker, person)
    if reason:
        return problems + _differences(
            {"conditions": _refusal(reason, person)},
            {"conditions": {item["type"]: (item["status"], item["reason"]) for item in status["conditions"]}},
        )
    return problems + await _compared(onlooker, person, status)


def _refusal(reason: str, person: Person) -> Conditions:
    waits = "Reconciling" if reason == "NamespaceTerminating" else "Stalled"
    conditions = {"NamespaceReady": ("False", reason), "Ready": ("False", reason), waits: ("True", reason)}
    return conditions | ({"Suspended": ("True", "Requested")} if person.spec.get("suspended") else {})


async def _compared(onlooker: Onlooker, person: Person, status: Object) -> list[str]:
    """Compare a tenant that has its namespace with a fresh one."""
    world, home = onlooker.world, onlooker.home(person.namespace)
    assert home is not None
    plan = world.api.objects.get(Ref("Plan", "", person.plan))
    plan_spec = plan.manifest["spec"] if plan else None
    adopted = home.annotations[names.ORIGIN] == "adopted"
    problems = [] if adopted or not home.by_user else ["its namespace was not made by the operator"]
    children = {ref for ref in world.api.objects if ref.namespace == home.name} - onlooker.foreign.keys()
    children -= onlooker.hidden()
    there = picture(world, person.name, home.name, children)
    wanted = await fresh(person.name, person.spec, (person.plan, plan_spec), adopted=adopted)
    if plan_spec is None:
        return problems + await _without_plan(onlooker, person, home, wanted, there)
    wanted, number = await _with_past(onlooker, person, home, wanted, (person.plan, plan_spec), adopted)
    problems += _differences(
        {name: getattr(wanted, name) for name in Picture.__slots__},
        {name: getattr(there, name) for name in Picture.__slots__},
    )
    if status.get("namespace") != home.name or status.get("plan") != person.plan:
        problems.append(f"status names {status.get('namespace')} and {status.get('plan')}")
    return problems + _revisions(onlooker, home, status, there, number)


async def _with_past(
    onlooker: Onlooker,
    person: Person,
    home: Home,
    wanted: Picture,
    plan: tuple[str, Object | None],
    adopted: bool,
) -> tuple[Picture, int | None]:
    """Return what a tenant must have whose past counts: pinned, or its new configuration refused.

    And the number of the revision that must be in effect, where that is known.
    """
    pinned = person.spec.get("configRevision")
    if pinned is None and wanted.config is not None:
        return wanted, None
    kept = _kept(onlooker, home)
    good = person.good.get(home.uid)  # what was in another namespace has gone with it
    before = json.loads(good) if good else None
    if pinned in kept:
        plain = {key: value for key, value in person.spec.items() if key != "overrides"}
        wanted = await fresh(person.name, plain, plan, adopted=adopted)
        return replace(wanted, config={**(wanted.config or {}), **kept[pinned]}), pinned
    if pinned is not None:
        missing = {"ConfigReady": ("False", "RevisionNotFound"), "Ready": ("False", "RevisionNotFound")}
        conditions = {**wanted.conditions, **missing, "Stalled": ("True", "RevisionNotFound")}
        wanted = replace(wanted, conditions=conditions, messages={}, phase="Degraded")
    plain = {key: value for key, value in person.spec.items() if key != "overrides"}
    content = (await fresh(person.name, plain, plan, adopted=adopted)).config or {}
    if before is None:
        # Of a tenant that came to what another left it is the newest, of a new one there is none.
        before = {**kept[max(kept)], "revision": max(kept)} if kept else None
    if before is None:
        return replace(wanted, config=None), None
    return replace(wanted, config={**content, **{part: before[part] for part in CONFIG_PARTS}}), before[
        "revision"
    ]


def _kept(onlooker: Onlooker, home: Home) -> dict[int, Object]:
    return {
        int(item["metadata"]["name"].rpartition("-")[2]): item["data"]
        for item in onlooker.stored("ControllerRevision", home.name)
    }


def _revisions(
    onlooker: Onlooker, home: Home, status: Object, there: Picture, number: int | None
) -> list[str]:
    """Check that the revision in effect is on record under its number, and that nothing is recorded twice."""
    kept, problems = _kept(onlooker, home), []
    stored = onlooker.world.api.objects.get(Ref("ConfigMap", home.name, names.CONFIG_MAP))
    if stored is None:
        return [f"revisions {sorted(kept)} without tenant-config"] if kept else []
    active, content = document(stored.manifest)
    if kept.get(active) != {part: content[part] for part in CONFIG_PARTS}:
        problems.append(f"revision {active} is not on record as it is read")
    if status.get("configRevision") != active or number not in (None, active):
        problems.append(
            f"status says revision {status.get('configRevision')}, tenant-config {active}, not {number}"
        )
    if len(kept) > 10:
        problems.append(f"{len(kept)} revisions are kept")
    if number is None and there.conditions["ConfigReady"][0] == "True" and active != max(kept):
        problems.append(f"revision {active} is in effect and {max(kept)} is newer")
    for revision, data in kept.items():
        if home.revisions[revision] != data:
            problems.append(f"revision {revision} is not what it was")
    return problems


async def _without_plan(
    onlooker: Onlooker, person: Person, home: Home, wanted: Picture, there: Picture
) -> list[str]:
    """Compare a tenant whose plan is not there: what came of a plan stays as it was, all else is as it must be."""
    conditions = dict(wanted.conditions)
    quota = there.children.get(f"ResourceQuota/{names.QUOTA}")
    # Without its label no watch tells of it, so nobody is let in until there is a plan again.
    limited = quota is not None and names.MANAGED_BY in quota["metadata"].get("labels", {})
    if onlooker.world.api.objects[Ref("Tenant", "", person.name)].manifest["status"].get("configRevision"):
        conditions["PolicyReady"] = ("True", "PlanNotFound")
    problems = _differences({"conditions": conditions}, {"conditions": there.conditions})
    problems += _differences({"annotations": wanted.annotations}, {"annotations": there.annotations})
    level = there.labels[f"{names.POD_SECURITY}enforce"]
    if level not in ("baseline", "restricted"):
        problems.append(f"Pod Security is {level}")
    any_plan = onlooker.any_plan
    open_ = await fresh(person.name, person.spec, (person.plan, any_plan), adopted=False)
    bindings = {key: item for key, item in open_.children.items() if key.startswith("RoleBinding/")}
    must = {key: item for key, item in wanted.children.items() if key not in PLANS_OWN}
    if limited:
        must |= bindings
    problems += _differences({"children": must}, {"children": {key: there.children.get(key) for key in must}})
    for key, binding in bindings.items():
        allowed = binding.get("subjects", [])
        let_in = (there.children.get(key) or {}).get("subjects", [])
        if any(subject not in allowed for subject in let_in):
            problems.append(f"{key} lets in {let_in}, and only {allowed} may")
    if person.spec.get("suspended"):
        policies = {key for key in there.children if key.startswith("NetworkPolicy/")}
        if policies != {"NetworkPolicy/tenantry-default-deny"}:
            problems.append(f"suspended, and {policies} stand")
    return problems


# --- the rest ------------------------------------------------------------------------------------------------


def _namespace(onlooker: Onlooker, name: str) -> list[str]:
    """Check a namespace that no living tenant has: closed for its archive, or with nothing of ours in it."""
    home = onlooker.home(name)
    assert home is not None
    holder = onlooker.people.get(home.holder)
    if home.terminating or (holder is not None and not holder.gone):
        return []
    archive = onlooker.archive_of(home.holder) if holder is not None else None
    hidden = onlooker.hidden()
    ours = {
        f"{ref.kind}/{ref.name}": item.manifest
        for ref, item in onlooker.world.api.objects.items()
        if ref.namespace == name and ref not in hidden and is_ours(ref, item.manifest, holder is not None)
    }
    if archive is not None and holder is not None and not home.marks_lost:
        return _closed(home, holder, ours)
    if home.marks_lost:
        return []  # nobody has told the operator to do anything about it
    left = [*sorted(ours), *(key for key in (*home.labels, *home.annotations) if is_left(key))]
    return [f"has {left} of nobody"] if left else []


def is_left(key: str) -> bool:
    """Return whether a label or annotation would be a mark of ours on a namespace that is none of ours."""
    return key in (*MARKS, names.TENANT, names.MANAGED_BY) or key.startswith(names.POD_SECURITY)


def _closed(home: Home, holder: Person, ours: dict[str, Object]) -> list[str]:
    """Check that nobody gets into what is kept, and that nothing starts in it."""
    problems = []
    for key, item in ours.items():
        if key.startswith("RoleBinding/tenantry-") and item.get("subjects"):
            problems.append(f"{key} lets in {item['subjects']}")
    policies = {key: item["spec"] for key, item in ours.items() if key.startswith("NetworkPolicy/")}
    if policies != {"NetworkPolicy/tenantry-default-deny": DENY}:
        problems.append(f"its network is {policies}")
    if ours.get("ResourceQuota/tenantry-suspended", {}).get("spec") != NOTHING_NEW:
        problems.append("something may start")
    marks = (home.labels.get(names.TENANT), home.annotations.get(names.TENANT_UID))
    if marks != (holder.name, holder.uid):
        problems.append(f"is marked with {marks}")
    return problems


def _archive(onlooker: Onlooker, archive: Object) -> list[str]:
    spec, status = archive["spec"], archive["status"]
    home, former = onlooker.home(spec["namespace"]), onlooker.people[spec["tenantUID"]]
    phase, ready = (
        status["phase"],
        {item["type"]: item["status"] for item in status["conditions"]}.get("Ready"),
    )
    if archive["metadata"]["name"] != archive_name(former) or not former.gone:
        return ["tells something that is not so"]
    if home is not None and home.terminating:
        return []
    if home is not None and home.holder == former.uid and not home.marks_lost:
        if onlooker.is_over(archive):
            return ["is over, and its namespace is there"]
        return [] if (phase, ready) == ("Kept", "True") else [f"is {phase}, Ready {ready}"]
    if "deletionTimestamp" in archive["metadata"]:
        return ["is not gone"]
    if home is not None and home.marks_lost:
        return []
    return [] if phase in ("Restored", "Purged") and ready == "True" else [f"is {phase}, Ready {ready}"]


def _plan(onlooker: Onlooker, plan: Object) -> list[str]:
    used = sum(person.plan == plan["metadata"]["name"] for person in onlooker.living())
    status = plan["status"]
    told = (status["tenants"], status["observedGeneration"])
    return [] if told == (used, plan["metadata"]["generation"]) else [f"says {told}, and {used} use it"]


def _rows(onlooker: Onlooker) -> list[str]:
    """Check the audit log: each thing once, and the last word about each spec is the spec."""
    rows, problems = onlooker.world.audit.rows, []
    twice = [identity for identity, count in Counter(row.identity for row in rows).items() if count > 1]
    if twice:
        problems.append(f"on record twice: {twice}")
    once = Counter((row.uid, row.action) for row in rows if row.action in ("Created", "Archived", "Deleted"))
    problems += [
        f"{action} of {uid} is on record {count} times" for (uid, action), count in once.items() if count > 1
    ]
    for person in onlooker.living():
        edits = [
            row for row in rows if row.uid == person.uid and row.identity.startswith(f"{person.uid}/spec/")
        ]
        if not person.deleting and (not edits or edits[-1].after != person.spec):
            problems.append(f"the last row about Tenant {person.name} is not its spec")
    return problems


def _foreign(onlooker: Onlooker) -> list[str]:
    objects = onlooker.world.api.objects
    problems = []
    for ref, version in onlooker.foreign.items():
        home = onlooker.home(ref.namespace)
        if home is not None and not home.terminating:
            now = objects.get(ref)
            if now is None or now.manifest["metadata"]["resourceVersion"] != version:
                problems.append(f"{ref} was changed or deleted")
    return problems


def _differences(wanted: Object, there: Object, at: str = "") -> list[str]:
    problems = []
    for key in sorted(wanted.keys() | there.keys()):
        one, other = wanted.get(key), there.get(key)
        if one == other or (at == "" and key == "messages" and not one):
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            problems += _differences(one, other, f"{at}{key}.")
        else:
            problems.append(f"{at}{key} is {other!r}, of a fresh one {one!r}")
    return problems

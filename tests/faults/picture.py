"""What there is of one tenant, in a form that is the same for every tenant with the same story.

Names, UIDs and times differ from tenant to tenant: a picture has the same words in their place. What remains is
compared with `==`; `differences` tells people where two are not equal.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, OWN_KINDS
from tenantry.domain import names
from tenantry.domain.audit import AuditEntry
from tenantry.domain.reasons import Action
from tenantry.reconcile import record
from tests.integration.conftest import Api, Object

Picture = dict[str, Any]
"""By what it shows: each object by "kind namespace/name", and "audit", the rows of the audit log."""

Told = Counter[tuple[str, str, str]]
"""How often an Event told of an audit row: about which kind, with what reason and message."""

NAME = re.compile(r"\bt\d{4}\b")
"""The names of tenants in these tests: of one length, and part of the name of all that is theirs alone."""

KINDS = tuple(kind.kind for kind in (*OWN_KINDS, *CHILD_KINDS) if kind.kind != "ClusterRole")
REPORTED = frozenset({kind.kind for kind in OWN_KINDS} | {"Namespace"})
"""Kinds whose status is compared. That of a ResourceQuota is the control plane's, which takes its time."""

CONTROL_PLANE = "kube-controller-manager"
EVERYWHERE = frozenset({("ServiceAccount", "default"), ("ConfigMap", "kube-root-ca.crt")})
"""What the control plane puts into every namespace, a moment after it is there."""

PLACE = re.compile(r"t_[0-9a-f]{16}_([ab])")
"""The login of a tenant on its shard."""

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


async def everything(api: Api) -> dict[str, list[Object]]:
    """Return all objects of all tenants, by the tenant's name; each has its kind."""
    found: dict[str, list[Object]] = {}
    for kind in KINDS:
        for item in await api.list(kind):
            metadata = item["metadata"]
            mark = NAME.search(f"{metadata.get('namespace', '')} {metadata['name']}")
            if mark and (kind, metadata["name"]) not in EVERYWHERE:
                found.setdefault(mark[0], []).append({**item, "kind": kind})
    return found


def uids(objects: Iterable[Object]) -> frozenset[str]:
    """Return the UIDs of objects: what has one of these later was not made anew."""
    return frozenset(item["metadata"]["uid"] for item in objects)


def picture(
    name: str, objects: Iterable[Object], rows: Iterable[AuditEntry], kept: Collection[str]
) -> Picture:
    """Return the picture of a tenant. kept: UIDs of what was there before; whether it still is, is part of it."""
    objects, rows = list(objects), _rows_of(name, rows)
    seen = {_called(item): _shown(item, item["metadata"]["uid"] in kept) for item in objects}
    audit = [
        [row.identity, row.action, row.actor, row.kind, row.name, row.message, row.before, row.after]
        for row in rows
    ]
    text = json.dumps({**seen, "audit": audit}, sort_keys=True)
    for uid, words in _identities(objects, rows).items():
        text = text.replace(uid, words).replace(f"{name}-{uid[:8]}", f"{name}-of-{words}")
    normal: Picture = json.loads(TIME.sub("TIME", text).replace(name, "NAME"))
    # Two keys of the ledger may be at work side by side: the order of their rows is nobody's promise.
    normal["audit"] = sorted(normal["audit"], key=json.dumps)
    return normal


def _called(item: Object) -> str:
    metadata = item["metadata"]
    return f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def _shown(item: Object, kept: bool) -> Object:
    """Return an object without what differs between any two runs; `owners` is who owns which of its fields."""
    varying = ("resourceVersion", "creationTimestamp", "managedFields")
    metadata = {key: value for key, value in item["metadata"].items() if key not in varying}
    shown = {**item, "metadata": metadata, "kept": kept}
    shown["owners"] = sorted(
        (
            [entry["manager"], entry["operation"], entry.get("subresource", ""), entry["fieldsV1"]]
            for entry in item["metadata"].get("managedFields", [])
            if entry["manager"] != CONTROL_PLANE
        ),
        key=json.dumps,
    )
    if item["kind"] not in REPORTED:
        shown.pop("status", None)
    if item["kind"] == "Secret":
        shown["data"] = said_by(item)
    for condition in (shown.get("status") or {}).get("conditions", []):
        condition.pop("lastTransitionTime", None)
    return shown


def said_by(item: Object) -> Object:
    """Return what a Secret says; a password is another one each time, and so is what a place is called after."""
    said = {key: b64decode(value).decode() for key, value in (item.get("data") or {}).items()}
    password = said.get("password") or "PASSWORD"
    return {
        key: PLACE.sub(
            r"t_ID_\1", value.replace(password, "PASSWORD").replace(quote(password, safe=""), "PASSWORD")
        )
        for key, value in said.items()
    }


def _identities(objects: Iterable[Object], rows: Iterable[AuditEntry]) -> dict[str, str]:
    """Return words for each UID: of which kind it is, and the how-many-th in the story."""
    found: dict[str, str] = {}
    count: Counter[str] = Counter()

    def note(kind: str, uid: str) -> None:
        if uid not in found:
            count[kind] += 1
            found[uid] = f"{kind}#{count[kind]}"

    for row in rows:
        note(row.kind, row.uid)
    for item in sorted(objects, key=_called):
        if item["kind"] == "TenantArchive":
            note("Tenant", item["spec"]["tenantUID"])
        note(item["kind"], item["metadata"]["uid"])
    return found


async def told(api: Api) -> dict[str, Told]:
    """Return the Events with the reason of an audit row, by the tenant's name."""
    found: dict[str, Told] = {}
    for event in await api.list("Event", "default"):
        about, message = event["involvedObject"], event["message"]
        # Others write Events there too, some of them about nothing that has a name.
        mark = NAME.search(about.get("name", ""))
        # A suspension is also the reason of the condition Ready, which has an Event of its own.
        if mark and event["reason"] in set(Action) and not message.startswith("suspended on purpose"):
            one = found.setdefault(mark[0], Counter())
            one[about["kind"], event["reason"], TIME.sub("TIME", message)] += event.get("count", 1)
    return found


def tellable(name: str, rows: Iterable[AuditEntry]) -> Told:
    """Return the Events that one process tells of a tenant at most: of each row, and of its archive's phases."""
    restored = f"Tenant {name} has taken namespace tenant-{name} over"
    found = Told({("TenantArchive", str(Action.RESTORED), restored): 1})
    for row in _rows_of(name, rows):
        found[row.kind, row.action, TIME.sub("TIME", record.told(row).message)] += 1
    return found


def _rows_of(name: str, rows: Iterable[AuditEntry]) -> list[AuditEntry]:
    return [row for row in rows if name in (row.tenant, *NAME.findall(row.name))]


def disorder(objects: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what must not be at any moment, whatever has broken off."""
    now = list(objects)
    held = {item["metadata"]["uid"] for item in now if item["kind"] == "Tenant"}
    held |= {item["spec"]["tenantUID"] for item in now if item["kind"] == "TenantArchive"}
    there = {(item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in now}
    bound = {
        item["metadata"]["namespace"]
        for item in now
        if item["kind"] == "RoleBinding" and item.get("subjects")
    }
    for item in now:
        metadata = item["metadata"]
        uid = metadata.get("annotations", {}).get(names.TENANT_UID)
        if item["kind"] != "Namespace" or not uid or "deletionTimestamp" in metadata:
            continue
        if uid not in held:
            yield f"namespace {metadata['name']} is nobody's"
        limits = {("ResourceQuota", metadata["name"], names.QUOTA)}
        limits |= {("NetworkPolicy", metadata["name"], names.DEFAULT_DENY)}
        if metadata["name"] in bound and not limits <= there:
            yield f"somebody is let into namespace {metadata['name']} before its limits stand"


def differences(expected: Any, found: Any, where: str = "") -> Iterator[str]:
    """Yield where two pictures differ, and how."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            path = f"{where}.{key}" if where else key
            if key not in found:
                yield f"{path} is missing"
            elif key not in expected:
                yield f"{path} is too much: {_short(found[key])}"
            else:
                yield from differences(expected[key], found[key], path)
    elif isinstance(expected, list) and isinstance(found, list):
        wanted, there = ([json.dumps(item, sort_keys=True) for item in side] for side in (expected, found))
        for text in (Counter(wanted) - Counter(there)).elements():
            yield f"{where} lacks {_short(text)}"
        for text in (Counter(there) - Counter(wanted)).elements():
            yield f"{where} has too much: {_short(text)}"
        if Counter(wanted) == Counter(there) and wanted != there:
            yield f"{where} is in another order"
    elif expected != found:
        yield f"{where} is {_short(found)}, not {_short(expected)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 400 else f"{text[:400]}…"

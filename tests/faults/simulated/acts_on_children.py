"""What users do with namespaces, and with what is in them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies
from hypothesis.stateful import rule

from tenantry.domain import names
from tests.faults.simulated.apiserver import Ref
from tests.faults.simulated.drawn import CHILD, MANAGERS, PACES, PLACES, TENANTS
from tests.faults.simulated.onlooker import OUR_NAMES, Home, is_ours
from tests.faults.simulated.walk import Walk

Object = dict[str, Any]


class ActsOnChildren(Walk):
    """Each rule is one act of a user, after which the operator goes on as `pace` says."""

    # --- namespaces -----------------------------------------------------------------------------------------------

    @rule(place=strategies.sampled_from(PLACES), mark=strategies.sampled_from([None, *TENANTS]), pace=PACES)
    def namespace_is_made(self, place: str, mark: str | None, pace: int) -> None:
        """A user's own, marked for a tenant or not; one that is there is marked for another."""
        marks = {names.ADOPTABLE_BY: mark}
        if self.world.api.get("Namespace", place) is None:
            metadata = {"name": place, "labels": {"own": "yes"}, "annotations": marks if mark else {}}
            self.world.api.create(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}, "kubectl-create"
            )
            self.put_config_map(place, "settings")
        else:
            self.world.edit("Namespace", place, metadata={"annotations": marks})
        self.acted(pace, place)

    def put_config_map(self, place: str, name: str, **metadata: Any) -> None:
        """Make a ConfigMap of a user's."""
        document = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"colour": "blue"}}
        self.world.api.apply({**document, "metadata": {"name": name, "namespace": place, **metadata}}, "helm")

    @rule(
        place=strategies.sampled_from(PLACES),
        what=strategies.sampled_from(
            ["delete", "strip", "label", "others", "tenant label", "digest", "free"]
        ),
        pace=PACES,
    )
    def namespace_is_meddled_with(self, place: str, what: str, pace: int) -> None:
        """By somebody who may do anything."""
        home, world = self.some_home(place), self.world
        if home is None or not (home.holder or what in ("delete", "others", "free")):
            return
        place = home.name
        if what == "delete":
            world.api.delete("Namespace", place)
        elif what == "strip":
            marks = dict.fromkeys((names.MANAGED_BY, names.TENANT))
            annotations = dict.fromkeys((names.TENANT_UID, names.ORIGIN, names.OWNER))
            world.edit("Namespace", place, metadata={"labels": marks, "annotations": annotations})
        elif what == "free":
            for ref in [ref for ref in world.api.objects if ref.namespace == place]:
                world.edit(ref.kind, ref.name, place, metadata={"finalizers": None})
        else:
            changes: dict[str, Object] = {
                "label": {
                    "labels": {"pod-security.kubernetes.io/enforce": "privileged", "tenantry.dev/x": "y"}
                },
                "others": {"labels": {"team": "mesh", "istio": "on"}, "annotations": {"note": "mine"}},
                "tenant label": {"labels": {names.TENANT: "rival"}},
                "digest": {"annotations": {names.OWNER: "0" * 32}},
            }
            world.edit("Namespace", place, metadata=changes[what])
        self.acted(pace, place)

    def some_home(self, place: str) -> Home | None:
        """Return a namespace that is there: that one, or the first."""
        there = sorted(item["metadata"]["name"] for item in self.onlooker.stored("Namespace"))
        return self.onlooker.home(place if place in there or not there else there[0])

    # --- children -------------------------------------------------------------------------------------------------

    def child(self, place: str, which: int) -> Ref | None:
        """Return one of the operator's children in a namespace."""
        home = self.onlooker.home(place)
        objects = self.world.api.objects.items()
        ours = sorted(
            ref
            for ref, item in objects
            if home and ref.namespace == place and is_ours(ref, item.manifest, True)
        )
        return ours[which % len(ours)] if ours and home and home.holder else None

    @rule(
        place=strategies.sampled_from(PLACES),
        which=CHILD,
        how=strategies.sampled_from(["delete", "content", "unlabel", "relabel", "unmark", "hold", "note"]),
        manager=MANAGERS,
        pace=PACES,
    )
    def child_is_meddled_with(self, place: str, which: int, how: str, manager: str, pace: int) -> None:
        """By somebody who may do anything."""
        home = self.some_home(place)
        ref = self.child(home.name, which) if home else None
        if home is None or ref is None:
            return
        if how == "content" and ref.name not in OUR_NAMES.get(ref.kind, {ref.name}):
            return  # whom somebody lets in by a binding of their own is pruned only once there is a plan
        place = home.name
        if ref.name in (names.QUOTA, names.DEFAULT_DENY, "tenantry-suspended"):
            self.onlooker.unlimited.add(place)
        if how == "delete":
            if ref.kind == "ControllerRevision":
                home.unsure.add(int(ref.name.rpartition("-")[2]))
            self.world.api.delete(ref.kind, ref.name, place)
        else:
            changes = _content(ref) if how == "content" else {"metadata": METADATA[how]}
            self.world.edit(ref.kind, ref.name, place, manager=manager, **changes)
        self.acted(pace, place)

    @rule(
        place=strategies.sampled_from(PLACES),
        labelled=strategies.booleans(),
        kind=strategies.sampled_from(["ConfigMap", "RoleBinding", "NetworkPolicy", "ResourceQuota"]),
        pace=PACES,
    )
    def something_is_put_there(self, place: str, labelled: bool, kind: str, pace: int) -> None:
        """Of a user's own, or with our label on it as if it were ours."""
        home = self.some_home(place)
        if home is None or home.terminating or not home.holder:
            return
        place = home.name
        name = f"extra-{'ours' if labelled else 'own'}"
        marks = {"labels": {names.MANAGED_BY: names.MANAGER}} if labelled else {}
        metadata = {"name": name, "namespace": place, **marks}
        document: Object = {"apiVersion": "v1", "kind": kind, "metadata": metadata}
        self.world.api.apply({**document, **_extra(kind)}, "helm")
        self.acted(pace, place)

    @rule(place=strategies.sampled_from(PLACES), away=strategies.booleans(), pace=PACES)
    def name_is_taken(self, place: str, away: bool, pace: int) -> None:
        """In a namespace that no tenant has yet there is something with the name of one of ours, or no more."""
        home = self.onlooker.home(place)
        if home is None or home.holder or home.terminating:
            return
        if away:
            self.world.api.delete("ConfigMap", "tenant-config", place)
        else:
            self.put_config_map(place, "tenant-config")
        self.acted(pace, place)


METADATA: dict[str, Object] = {
    "unlabel": {"labels": {names.MANAGED_BY: None}},
    "relabel": {"labels": {names.TENANT: "rival"}},
    "unmark": {"annotations": {names.TENANT_UID: None}},
    "hold": {"finalizers": ["shop.example/hold"]},
    "note": {"annotations": {"note": "mine"}},
}


def _content(ref: Ref) -> Object:
    contents: dict[str, Object] = {
        "ResourceQuota": {"spec": {"hard": {"pods": "999", "secrets": "1"}}},
        "LimitRange": {"spec": {"limits": []}},
        "NetworkPolicy": {"spec": {"ingress": [{}]}},
        "RoleBinding": {"subjects": [{"kind": "User", "name": "mallory"}]},
        "ConfigMap": {"data": {"config.json": "{}", "more": "x"}},
        "ServiceAccount": {"automountServiceAccountToken": False},
        "ControllerRevision": {"revision": 77},
    }
    return contents[ref.kind]


def _extra(kind: str) -> Object:
    if kind == "RoleBinding":
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
        return {"roleRef": role, "subjects": []}
    return {"data": {"x": "y"}} if kind == "ConfigMap" else {"spec": {"x": {}}}

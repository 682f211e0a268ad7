"""Somebody who watches every write of the operator, and notes whose namespaces are by rules of their own.

Nothing here asks the operator or its decisions: who people are is read from the Tenants that users applied, who may
have whose namespace from what users did. What the operator writes is held against that at once, not only in the end.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from tenantry.domain import names
from tests.faults.simulated.apiserver import Ref
from tests.faults.simulated.faults import Fault, Write
from tests.faults.simulated.test_crashes import disorder
from tests.faults.simulated.world import World
from tests.unit.builders import sample

Object = dict[str, Any]

OUR_NAMES = {
    "ResourceQuota": {"tenantry", "tenantry-suspended", "tenantry-system-classes"},
    "LimitRange": {"tenantry"},
    "ServiceAccount": {"app"},
    "ConfigMap": {"tenant-config"},
    "RoleBinding": {"tenantry-owner", "tenantry-editor", "tenantry-viewer", "tenantry-app"},
    "NetworkPolicy": {
        "tenantry-default-deny",
        "tenantry-dns",
        "tenantry-same-namespace",
        "tenantry-ingress",
        "tenantry-egress",
    },
}
LIMITS = {Ref("ResourceQuota", "", "tenantry"), Ref("NetworkPolicy", "", "tenantry-default-deny")}


class Version(NamedTuple):
    """A Tenant as users once had it."""

    spec: Object
    restore_from: str

    @property
    def email(self) -> str:
        address: str = self.spec["owner"]["email"]
        return address


@dataclass(slots=True)
class Person:
    """A Tenant that is or was. `marked`: its address as its namespace tells it."""

    name: str
    uid: str
    created: str
    versions: list[Version] = field(default_factory=list)
    """How its users had it, oldest first, since the watches told the operator last."""
    deleting: bool = False
    gone: bool = False
    marked: set[str] = field(default_factory=set)
    emails: set[str] = field(default_factory=set)
    was_allowed: set[str] = field(default_factory=set)
    labels: set[str] = field(default_factory=set)
    good: dict[str, str] = field(default_factory=dict)
    """By UID of its namespace: what its application read when its configuration was last as its spec said, and was
    on record as that."""

    @property
    def spec(self) -> Object:
        """As its users last had it."""
        return self.versions[-1].spec

    @property
    def namespace(self) -> str:
        return (self.spec.get("namespace") or {}).get("name") or f"tenant-{self.name}"

    @property
    def plan(self) -> str:
        return self.spec.get("plan") or "free"

    @property
    def seniority(self) -> tuple[str, str]:
        return self.created, self.uid


@dataclass(slots=True)
class Home:
    """A namespace that is or was.

    `holder`: the UID of the Tenant that has it or had it last, until it is given back.
    """

    name: str
    uid: str
    by_user: bool
    holder: str = ""
    terminating: bool = False
    marks_lost: bool = False
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    revisions: dict[int, Object] = field(default_factory=dict)
    holders: list[str] = field(default_factory=list)
    """UIDs of all that have had it, each by right of the one before; by the consent of others from the last on."""
    unsure: set[int] = field(default_factory=set)
    """Numbers of revisions that somebody deleted: they may come again with another content."""


class Onlooker(Fault):
    """Notes what users do (`users_acted`), and checks each write of the operator against it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.people: dict[str, Person] = {}
        self.homes: dict[str, Home] = {}
        self.wrong: AssertionError | None = None
        self.foreign: dict[Ref, str] = {}
        """Objects that are none of the operator's business, with their versions."""
        self._hidden: set[Ref] = set()
        self._told: dict[str, Object] = {}
        """Archives by name, as the watches told the operator last."""
        self.unlimited: set[str] = set()
        """Namespaces from which somebody took the limits away while people were in."""
        self.any_plan: Object = sample("plans.yaml", "pro")["spec"]

    # --- what is there ------------------------------------------------------------------------------------------

    def stored(self, kind: str, namespace: str | None = None) -> list[Object]:
        """Return objects as stored, not to be changed."""
        found = self.world.api.objects.items()
        return [
            item.manifest for ref, item in found if ref.kind == kind and namespace in (None, ref.namespace)
        ]

    def living(self) -> list[Person]:
        """Return every Tenant that is there, also those that are on their way out."""
        return [person for person in self.people.values() if not person.gone]

    def home(self, name: str) -> Home | None:
        """Return the namespace by that name that is there now."""
        stored = self.world.api.objects.get(Ref("Namespace", "", name))
        return self.homes.get(stored.manifest["metadata"]["uid"]) if stored else None

    def hidden(self) -> set[Ref]:
        """Return what had lost its label when the operator started: a new process does not know that it is there."""
        objects = self.world.api.objects
        return {ref for ref in self._hidden if ref in objects and not _is_labelled(objects[ref].manifest)}

    def archive_of(self, uid: str) -> Object | None:
        """Return the archive of a former Tenant."""
        return next((item for item in self.stored("TenantArchive") if item["spec"]["tenantUID"] == uid), None)

    def is_over(self, archive: Object) -> bool:
        """Return whether an archive was deleted or its retention has ended."""
        ends = datetime.fromisoformat(archive["spec"]["purgeAfter"])
        return "deletionTimestamp" in archive["metadata"] or ends <= self.world.clock.now()

    def may_take_over(self, person: Person, former: Person) -> bool:
        """Return whether users have let this Tenant have what that one left behind.

        Who deletes an archive in the moment in which its owner comes back may be too late, as may be the owner.
        """
        archive = self.archive_of(former.uid)
        told = self._told.get(archive["metadata"]["name"], archive) if archive is not None else None
        if person.name != former.name or (told is not None and self.is_over(told)):
            return False
        before = {archive["spec"]["owner"]["email"]} if archive is not None else former.marked
        same = {email.lower() for email in before}
        return any(
            version.email.lower() in same or version.restore_from == archive_name(former)
            for version in person.versions
        )

    # --- users ------------------------------------------------------------------------------------------------

    def users_acted(self) -> None:
        """Take down how things stand after users did something."""
        self._note_people()
        self._note_homes(by_user=True)
        self._note_foreign()

    def news_came(self) -> None:
        """Take note that the operator has been told of everything."""
        for person in self.people.values():
            del person.versions[:-1]
        self._told = {item["metadata"]["name"]: copy.deepcopy(item) for item in self.stored("TenantArchive")}

    def came_to_rest(self) -> None:
        """Take note that nothing is left to do: a namespace without marks and children of ours was given back."""
        self.users_acted()  # what the namespace controller has done since
        for home in self.homes.values():
            objects = self.world.api.objects.items()
            ours = any(
                is_ours(ref, item.manifest, False) for ref, item in objects if ref.namespace == home.name
            )
            if home.marks_lost and not ours:
                home.holder, home.marks_lost = "", False

    def _note_people(self) -> None:
        present = set()
        for item in self.stored("Tenant"):
            metadata, spec = item["metadata"], item["spec"]
            uid = metadata["uid"]
            present.add(uid)
            person = self.people.get(uid)
            if person is None:
                person = self.people[uid] = Person(metadata["name"], uid, metadata["creationTimestamp"])
            version = Version(spec, (metadata.get("annotations") or {}).get(names.RESTORE_FROM, ""))
            if version not in person.versions[-1:]:
                person.versions.append(version)
            person.emails.add(version.email)
            person.was_allowed.add(version.restore_from)
            person.deleting = "deletionTimestamp" in metadata
            person.labels |= ((spec.get("namespace") or {}).get("labels") or {}).keys()
        for uid, person in self.people.items():
            person.gone = uid not in present

    def _note_homes(self, by_user: bool) -> None:
        for item in self.stored("Namespace"):
            metadata = item["metadata"]
            home = self.homes.get(metadata["uid"])
            if home is None:
                home = self.homes[metadata["uid"]] = Home(metadata["name"], metadata["uid"], by_user)
            elif not by_user:
                self._check_others_marks(home, metadata)
            home.labels = dict(metadata.get("labels") or {})
            home.annotations = dict(metadata.get("annotations") or {})
            holder = home.annotations.get(names.TENANT_UID, "")
            if by_user:
                home.marks_lost |= bool(home.holder) and home.holder != holder
            elif holder not in ("", home.holder) or (not holder and home.holder and not home.marks_lost):
                self._handed_over(home, holder)
            if holder and not by_user:
                home.marks_lost = False
                self.people[holder].marked = {version.email for version in self.people[holder].versions}
            if not home.terminating and "deletionTimestamp" in metadata:
                home.terminating = True
                assert by_user or self._may_delete(home), f"namespace {home.name} is deleted"

    def _note_foreign(self) -> None:
        self.foreign = {}
        for ref, item in self.world.api.objects.items():
            home = self.home(ref.namespace) if ref.namespace else None
            if (
                home is not None
                and not home.terminating
                and not is_ours(ref, item.manifest, bool(home.holder))
            ):
                self.foreign[ref] = item.manifest["metadata"]["resourceVersion"]

    def restarted(self) -> None:
        """Take note that a new process knows only what carries its label, and all of that."""
        objects = self.world.api.objects.items()
        self._hidden |= {ref for ref, item in objects if ref.namespace and not _is_labelled(item.manifest)}
        self.news_came()

    # --- the operator -----------------------------------------------------------------------------------------

    def after(self, write: Write) -> None:
        """Hold what the operator has just written against what it may."""
        try:
            self._check(write)
        except AssertionError as error:
            self.wrong = self.wrong or error
            raise

    def tell(self) -> None:
        """Raise what was wrong with a write: the operator took it for a bug of its own, and has gone on."""
        if self.wrong is not None:
            raise self.wrong

    def _check(self, write: Write) -> None:
        ref = Ref(write.kind, write.namespace, write.name)
        assert ref not in self.foreign, f"{write}: that is somebody else's"
        if write.kind == "Tenant":
            self._check_tenant(write)
        elif write.kind == "Namespace":
            self._note_homes(by_user=False)
        elif write.kind == "TenantArchive" and write.verb == "apply":
            self._check_archive(ref)
        elif write.kind == "ControllerRevision" and write.verb != "delete":
            self._note_revision(ref)
        problems = [problem for problem in disorder(self.world) if not self._excused(problem)]
        assert not problems, f"after {write}: {problems}"

    def _excused(self, problem: str) -> bool:
        closed = {
            ref.namespace
            for ref in self.world.api.objects
            if ref[::2] == ("ResourceQuota", "tenantry-suspended")
        }
        # Suspended, they are let in to look, and nothing can be started.
        open_ = {
            f"somebody is let into namespace {name} before its limits stand"
            for name in self.unlimited | closed
        }
        return problem in open_

    def _check_tenant(self, write: Write) -> None:
        before = {person.uid: person for person in self.living()}
        stored = self.world.api.objects.get(Ref("Tenant", "", write.name))
        if stored is not None:
            person = before[stored.manifest["metadata"]["uid"]]
            assert stored.manifest["spec"] == person.spec, f"{write} changes a user's spec"
            self._note_good(person, stored.manifest.get("status") or {})
        self._note_people()

    def _check_archive(self, ref: Ref) -> None:
        spec = self.world.api.objects[ref].manifest["spec"]
        person = self.people[spec["tenantUID"]]
        assert spec["tenantSpec"] in [version.spec for version in person.versions], (
            f"{ref} tells another spec"
        )
        kept = (spec["tenant"], spec["owner"], spec["namespace"])
        assert kept == (person.name, spec["tenantSpec"]["owner"], person.namespace), (
            f"{ref} tells something else"
        )

    def _note_good(self, person: Person, status: Object) -> None:
        conditions = {item["type"]: item["status"] for item in status.get("conditions", [])}
        stored = self.world.api.objects.get(Ref("ConfigMap", person.namespace, names.CONFIG_MAP))
        home = self.home(person.namespace)
        if conditions.get("ConfigReady") != "True" or stored is None or home is None:
            return
        data = stored.manifest["data"]
        if data["revision"] == str(status.get("configRevision")):
            person.good[home.uid] = data["config.json"]

    def _note_revision(self, ref: Ref) -> None:
        stored, home = self.world.api.objects[ref].manifest, self.home(ref.namespace)
        assert home is not None
        number = int(ref.name.rpartition("-")[2])
        known = home.revisions.setdefault(number, stored["data"])
        if number in home.unsure:
            home.revisions[number] = stored["data"]
            return
        assert known == stored["data"], f"revision {number} in {ref.namespace} means two things"

    def _check_others_marks(self, home: Home, metadata: Object) -> None:
        """Labels and annotations of others are left alone."""
        keys = {
            key for person in self.people.values() if person.namespace == home.name for key in person.labels
        }
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        for key in home.labels.keys() | labels.keys():
            mine = key.startswith(("tenantry.dev/", "pod-security.kubernetes.io/")) or key == names.MANAGED_BY
            if not mine and key not in keys:
                assert home.labels.get(key) == labels.get(key), (
                    f"label {key} of {home.name} is somebody else's"
                )
        for key in home.annotations.keys() | annotations.keys():
            if not key.startswith("tenantry.dev/") or key == names.ADOPTABLE_BY:
                same = home.annotations.get(key) == annotations.get(key)
                assert same, f"annotation {key} of {home.name} is somebody else's"

    def _handed_over(self, home: Home, holder: str) -> None:
        former = self.people.get(home.holder)
        consented = home.by_user
        if not holder:
            assert self._may_leave(home), f"namespace {home.name} is given away"
        elif former is None or home.marks_lost:
            marked = home.annotations.get(names.ADOPTABLE_BY) == self.people[holder].name
            theirs = former is not None and self.may_take_over(self.people[holder], former)
            assert not home.by_user or marked or theirs, f"namespace {home.name} is taken"
            consented |= marked
        else:
            assert former.gone, f"namespace {home.name} is taken from Tenant {former.name}"
            assert self.may_take_over(self.people[holder], former), (
                f"namespace {home.name} falls to a stranger"
            )
        home.holder = holder
        if consented:
            home.holders.clear()
        if holder and holder not in home.holders[-1:]:
            home.holders.append(holder)

    def _may_leave(self, home: Home) -> bool:
        """Return whether users want a namespace left for good."""
        holder = self.people[home.holder]
        if not holder.gone:
            policies = {version.spec.get("deletionPolicy") for version in holder.versions}
            return holder.deleting and ("Delete" in policies or home.terminating)
        archive = self.archive_of(holder.uid)
        return archive is not None and (self.is_over(archive) or home.terminating)

    def _may_delete(self, home: Home) -> bool:
        return not home.by_user and bool(home.holder) and self._may_leave(home)


def archive_name(person: Person) -> str:
    """Return the name of a former Tenant's archive."""
    return f"{person.name}-{person.uid[:8]}"


def is_ours(ref: Ref, manifest: Object, held: bool) -> bool:
    """Return whether an object in a namespace is the operator's: by its label, or in a tenant's by its name."""
    named = ref.name in OUR_NAMES.get(ref.kind, ()) or (
        ref.kind == "ControllerRevision" and ref.name.startswith("tenant-config-")
    )
    return _is_labelled(manifest) or (held and named)


def _is_labelled(manifest: Object) -> bool:
    return (manifest["metadata"].get("labels") or {}).get(names.MANAGED_BY) == names.MANAGER

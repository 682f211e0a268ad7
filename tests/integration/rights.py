"""What an account may do, by the rendered chart, and what it did, by the API server's audit log; both in atoms.

An atom is one verb on one resource, of one name where the rule names any. What a request needed is more than its
verb says: an apply that made an object also needed `create`, and a RoleBinding also `bind` on its role.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import yaml

Object = dict[str, Any]

RBAC = "rbac.authorization.k8s.io"


class Atom(NamedTuple):
    """The smallest right. Empty: `group` is the core one, `name` any, `namespace` any or none."""

    verb: str
    resource: str
    group: str = ""
    name: str = ""
    namespace: str = ""

    def covers(self, asked: Atom) -> bool:
        """Return whether this right lets that request through."""
        return (
            (self.verb, self.resource, self.group) == (asked.verb, asked.resource, asked.group)
            and self.name in ("", asked.name)
            and self.namespace in ("", asked.namespace)
        )

    def __str__(self) -> str:
        what = f"{self.resource}.{self.group}" if self.group else self.resource
        place = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {what}{f' {self.name}' if self.name else ''}{place}"


class Account(NamedTuple):
    """A ServiceAccount."""

    namespace: str
    name: str

    @property
    def user(self) -> str:
        """Return its name on the API server."""
        return f"system:serviceaccount:{self.namespace}:{self.name}"


def granted(documents: Iterable[Object], account: Account) -> list[Atom]:
    """Return every atom that the bindings among rendered documents give to an account, also one given twice."""
    listed = list(documents)
    atoms: list[Atom] = []
    for binding in listed:
        if binding["kind"] not in ("ClusterRoleBinding", "RoleBinding"):
            continue
        subject = {"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace}
        if subject in binding["subjects"]:
            namespace = binding["metadata"].get("namespace", "")
            atoms.extend(_atoms_of(_role(listed, binding["roleRef"], namespace), namespace))
    return atoms


def _role(documents: Iterable[Object], ref: Object, namespace: str) -> Object:
    for document in documents:
        metadata = document["metadata"]
        place = namespace if ref["kind"] == "Role" else ""
        found = (document["kind"], metadata["name"], metadata.get("namespace", ""))
        if found == (ref["kind"], ref["name"], place):
            return document
    raise AssertionError(f"the chart binds {ref['kind']} {ref['name']}, which it does not have")


def _atoms_of(role: Object, namespace: str) -> Iterator[Atom]:
    for rule in role["rules"]:
        assert "nonResourceURLs" not in rule, f"{role['metadata']['name']} grants URLs"
        names = rule.get("resourceNames", [""])
        for group, resource, verb, name in product(
            rule["apiGroups"], rule["resources"], rule["verbs"], names
        ):
            yield Atom(verb, resource, group, name, namespace)


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the audit log. `by`: the binding that let it through, in the API server's words."""

    verb: str
    uri: str
    code: int
    by: str
    needed: tuple[Atom, ...]

    def __str__(self) -> str:
        return f"{self.code} {self.verb} {self.uri}"


def policy(account: Account) -> str:
    """Return an audit policy that has every request of one account written down, bindings with their content."""
    user = {"users": [account.user]}
    bindings = {"resources": [{"group": RBAC, "resources": ["rolebindings"]}]}
    rules = [
        {"level": "RequestResponse", **user, **bindings, "verbs": ["create", "update", "patch"]},
        {"level": "Metadata", **user},
        {"level": "None"},
    ]
    return yaml.safe_dump(
        {
            "apiVersion": "audit.k8s.io/v1",
            "kind": "Policy",
            "omitStages": ["RequestReceived"],
            "omitManagedFields": True,
            "rules": rules,
        }
    )


def requests(log: Path) -> list[Request]:
    """Return what an audit log tells so far; a watch that is still open is there too."""
    return [_request(json.loads(line)) for line in log.read_text().splitlines()]


def _request(event: Object) -> Request:
    code = event.get("responseStatus", {}).get("code", 0)
    by = event.get("annotations", {}).get("authorization.k8s.io/reason", "")
    return Request(event["verb"], event["requestURI"], code, by, tuple(_needed(event, code)))


def _needed(event: Object, code: int) -> Iterator[Atom]:
    ref = event.get("objectRef")
    if ref is None:
        return
    resource = "/".join(part for part in (ref["resource"], ref.get("subresource")) if part)
    asked = Atom(
        event["verb"], resource, ref.get("apiGroup", ""), ref.get("name", ""), ref.get("namespace", "")
    )
    yield asked
    if asked.verb == "patch" and code == 201:
        yield asked._replace(verb="create")
    role = event.get("responseObject", {}).get("roleRef")
    if resource == "rolebindings" and role is not None:
        yield Atom("bind", f"{role['kind'].lower()}s", RBAC, role["name"])

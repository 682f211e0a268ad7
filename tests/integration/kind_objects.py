"""Objects of our kinds for tests of the API server's rules, and ways to change and apply them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

Object = dict[str, Any]
Kubectl = Callable[..., "subprocess.CompletedProcess[str]"]
Change = Callable[[Object], None]


def apply(kubectl: Kubectl, document: Object, *flags: str) -> subprocess.CompletedProcess[str]:
    return kubectl("apply", "--server-side", *flags, "-f", "-", input=json.dumps(document), check=False)


def try_out(kubectl: Kubectl, document: Object) -> subprocess.CompletedProcess[str]:
    return apply(kubectl, document, "--dry-run=server")


def assert_refused(result: subprocess.CompletedProcess[str], message: str) -> None:
    assert result.returncode != 0, f"accepted: {result.stdout}"
    assert message in result.stderr


def assert_accepted(result: subprocess.CompletedProcess[str]) -> None:
    assert result.returncode == 0, result.stderr


def tenant(name: str = "valid") -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"owner": {"email": "ops@acme.example"}},
    }


def plan(name: str = "valid") -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Plan",
        "metadata": {"name": name},
        "spec": {
            "displayName": "Valid",
            "rank": 1,
            "currency": "usd",
            "prices": [{"interval": "month", "amount": "1.00"}],
            "resources": {"quota": {"pods": "1"}},
        },
    }


def shard(name: str = "valid") -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "VectorShard",
        "metadata": {"name": name},
        "spec": {"engine": "pgvector", "connection": {"secretRef": {"name": "valid", "key": "dsn"}}},
    }


def move(name: str = "valid") -> Object:
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "TenantMove",
        "metadata": {"name": name},
        "spec": {"tenant": "acme", "targetShard": "shard-b"},
    }


def with_spec(document: Object, **spec: Any) -> Object:
    return {**document, "spec": {**document["spec"], **spec}}


def put(path: str, value: Any) -> Change:
    """A change that sets `value` at the dotted path below the object, and makes the objects on the way."""

    def change(document: Object) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document.setdefault(parent, {})
        document[last] = value

    return change


def drop(path: str) -> Change:
    """A change that removes what is at the dotted path below the object."""

    def change(document: Object) -> None:
        *parents, last = path.split(".")
        for parent in parents:
            document = document[parent]
        del document[last]

    return change

"""What the API server's own authorization and admission say of a tenant's members."""

from __future__ import annotations

from typing import Any

from tests.integration.conftest import Api

Object = dict[str, Any]

REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
RESTRICTED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


async def can(api: Api, who: str, verb: str, what: str, namespace: str, name: str = "") -> bool:
    """Ask the API server whether somebody may do something.

    who: a user, `group:<name>`, or `sa:<name>` of the namespace. what: `pods`, `deployments.apps`,
    `serviceaccounts/token`.
    """
    resource, _, subresource = what.partition("/")
    resource, _, group = resource.partition(".")
    user, groups = who, ["system:authenticated"]
    if who.startswith("group:"):
        user, groups = "somebody@acme.example", [who.removeprefix("group:"), *groups]
    elif who.startswith("sa:"):
        user = f"system:serviceaccount:{namespace}:{who.removeprefix('sa:')}"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", *groups]
    asked = {
        "namespace": namespace,
        "verb": verb,
        "group": group,
        "resource": resource,
        "subresource": subresource,
        "name": name,
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": asked},
    }
    return bool((await api.client.send("POST", REVIEWS, body=body))["status"]["allowed"])


def pod(name: str, namespace: str, **spec: Any) -> Object:
    """Return a pod that the restricted level of Pod Security admits."""
    container = {"name": "main", "image": "app", "securityContext": RESTRICTED}
    return {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [container], **spec},
    }

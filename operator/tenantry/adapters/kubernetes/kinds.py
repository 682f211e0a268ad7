"""The kinds that are read, written and watched, and where the API server serves them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from tenantry.api.common import API_VERSION
from tenantry.domain import names

OURS = f"{names.MANAGED_BY}={names.MANAGER}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `selector`: labels that its watch selects, None for all objects; `page`: objects in a page.

    `only`: the one name that its watch selects. RBAC takes such a list or watch for one of that name.
    """

    kind: str
    api_version: str
    plural: str
    namespaced: bool = True
    selector: str | None = OURS
    page: int = 500
    only: str = ""

    @property
    def selectors(self) -> dict[str, str]:
        """Return the parameters of a list or a watch that say which objects it is about."""
        labels = {"labelSelector": self.selector} if self.selector else {}
        return labels | ({"fieldSelector": f"metadata.name={self.only}"} if self.only else {})

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """Return the path on the API server of a collection or of one object.

        Raises LookupError for a name that no object can have and that would lead elsewhere.
        """
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = [root]
        if self.namespaced and namespace:
            parts.append(f"namespaces/{_segment(namespace)}")
        parts.append(self.plural)
        parts.extend(_segment(part) for part in (name, subresource) if part)
        return "/".join(parts)


def _segment(name: str) -> str:
    """Return a name as part of a path: it may be text of an archive, which nobody has checked."""
    if name in (".", "..") or "/" in name or "%" in name:
        raise LookupError(f"nothing can be called {name!r}")
    return quote(name, safe=":")


OWN_KINDS = (
    Kind("Tenant", API_VERSION, "tenants", namespaced=False, selector=None),
    Kind("Plan", API_VERSION, "plans", namespaced=False, selector=None),
    Kind("VectorShard", API_VERSION, "vectorshards", namespaced=False, selector=None),
    Kind("TenantMove", API_VERSION, "tenantmoves", namespaced=False, selector=None),
    Kind("TenantArchive", API_VERSION, "tenantarchives", namespaced=False, selector=None),
)
"""Watched by Kopf."""

CHILD_KINDS = (
    # All namespaces: one that is not ours yet may be adopted, one that is in the way may go.
    Kind("Namespace", "v1", "namespaces", namespaced=False, selector=None),
    Kind("ResourceQuota", "v1", "resourcequotas"),
    Kind("LimitRange", "v1", "limitranges"),
    Kind("ServiceAccount", "v1", "serviceaccounts"),
    Kind("ConfigMap", "v1", "configmaps"),
    # By its name: the operator has no right to see any other Secret of a tenant.
    Kind("Secret", "v1", "secrets", only=names.VECTOR_STORE),
    Kind("NetworkPolicy", "networking.k8s.io/v1", "networkpolicies"),
    Kind("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings"),
    # Also those of members' StatefulSets, whose templates may have a megabyte each: a page must fit into memory.
    Kind("ControllerRevision", "apps/v1", "controllerrevisions", selector=None, page=50),
    Kind(
        "ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", namespaced=False, selector=names.ROLE
    ),
)
"""Watched by our reflectors."""

DEFINITION = Kind(
    "CustomResourceDefinition",
    "apiextensions.k8s.io/v1",
    "customresourcedefinitions",
    namespaced=False,
    selector=None,
)
"""Only read: whether a whole kind of ours is being deleted."""

KINDS = {kind.kind: kind for kind in (*OWN_KINDS, *CHILD_KINDS, DEFINITION)}

EVENTS = Kind("Event", "v1", "events")

"""What an attack is, who refuses it, and the table of all of them for docs/isolation.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.integration.attacks.actors import Answer, Request

Object = dict[str, Any]

RBAC = "RBAC"
QUOTA = "ResourceQuota"
LIMIT_RANGE = "LimitRange"
POD_SECURITY = "Pod Security"

MEMBERS = ("owner", "editor", "viewer", "application", "pipeline")
"""Who is in the tenant: three people, its ServiceAccount `app`, and a ServiceAccount that is an editor."""
WRITERS = ("owner", "editor", "pipeline")
EDITORS = ("editor", "pipeline")
OWNER = ("owner",)
VIEWER = ("viewer",)
READERS = ("owner", "editor", "pipeline", "application")
"""Who may read what an application needs."""
OUTSIDE = ("controller",)
"""A ServiceAccount of another namespace that may write almost everything in the cluster, but no Tenant."""


@dataclass(frozen=True)
class Place:
    """Where attacks take place."""

    namespace: str
    """Of the tenant that attacks; of nobody, where an administrator shows that a request is valid."""
    tenant: str
    neighbour: str
    """Namespace of another tenant."""
    suspended: str
    """Namespace of a tenant that is suspended, with the same members."""
    removed: str
    """Namespace of a tenant that was deleted and whose data is kept, with the same members."""
    archive: str
    """Of that one."""
    children: tuple[tuple[str, Object], ...]
    """All that the operator has made in the tenant's namespace: the resource, such as configmaps, and the object."""
    listable: tuple[tuple[str, str], ...]
    """API version and resource of everything in a namespace that can be listed."""


@dataclass(frozen=True)
class Attack:
    """Something that must be refused.

    who: those who come as far as `by`; RBAC refuses everybody else in the tenant, but those who are free to do it.
    says: part of the message.
    elsewhere: limits hold for administrators too, so they show that the request is valid in another namespace.
    reaches: the request goes on to a node, which there is none of: that it gets there shows that it is valid.
    """

    what: str
    by: str
    says: str
    requests: Callable[[Place], Iterable[Request]]
    who: tuple[str, ...] = WRITERS
    free: tuple[str, ...] = ()
    elsewhere: bool = False
    reaches: bool = False

    def expected(self, role: str) -> str:
        """Return who must refuse somebody with this role."""
        return self.by if role in self.who else RBAC

    @property
    def roles(self) -> tuple[str, ...]:
        """Everybody who tries."""
        return self.who if self.who == OUTSIDE else tuple(role for role in MEMBERS if role not in self.free)


def refused_by(answer: Answer, user: str) -> str:
    """Return who refused a request of `user`; what was said where nobody of those we know did."""
    message = answer.message
    if answer.ok:
        return "nobody"
    if answer.status == 403:
        for by, mark in (
            (RBAC, f'User "{user}" cannot '),
            (QUOTA, "exceeded quota: "),
            (QUOTA, "failed quota: "),
            (LIMIT_RANGE, " usage per Container is "),
            (POD_SECURITY, "violates PodSecurity "),
        ):
            if mark in message:
                return by
        if "denied request: " in message:
            return message.partition("ValidatingAdmissionPolicy '")[2].partition("'")[0]
    return f"{answer.status} {message}"


def policy(name: str) -> str:
    """Return the name of a policy of ours as the API server tells it."""
    return f"tenantry-{name}"


HEADER = ("Attack", "By", "Refused by", "Message")
ROLES = {
    MEMBERS: "everybody in the tenant",
    WRITERS: "owner, editor",
    EDITORS: "editor",
    OWNER: "owner",
    VIEWER: "viewer",
    OUTSIDE: "a controller",
}


def table(attacks: Iterable[Attack]) -> str:
    """Return the catalogue as a table of Markdown."""
    lines = [_row(HEADER), _row("---" for _ in HEADER)]
    for attack in attacks:
        by = f"policy `{attack.by}`" if attack.by.startswith("tenantry-") else attack.by
        lines.append(_row((attack.what, ROLES[attack.who], by, _message(attack))))
    return "\n".join(lines) + "\n"


def _message(attack: Attack) -> str:
    said = attack.says.strip()
    if attack.by != RBAC:
        return f"… {said} …"
    return f'User "…" {said} …' if said.startswith("cannot") else f'User "…" cannot … {said} …'


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"

"""All children of one tenant, in the order and the groups in which they are applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tenantry.api.plan import PlanSpec
from tenantry.api.tenant import TenantSpec
from tenantry.desired import access, configuration, network, resources, secret
from tenantry.desired.owner import Access, Manifest, Owner
from tenantry.domain.configuration import Configuration
from tenantry.domain.observed import ChildKey

POLICY_KINDS = frozenset({"ResourceQuota", "LimitRange", "NetworkPolicy", "ServiceAccount", "RoleBinding"})
CONFIG_KINDS = frozenset({"ConfigMap", "ControllerRevision"})
SHARD_KINDS = frozenset({"Secret"})


@dataclass(frozen=True, slots=True)
class Group:
    """Children that one condition speaks of.

    waves: applied one after the other, each at once; limits come before anybody gets in. prune: kinds of
    which nothing else of ours may be there.
    """

    waves: tuple[tuple[Manifest, ...], ...]
    prune: frozenset[str]

    @property
    def manifests(self) -> list[Manifest]:
        """Return all children of the group."""
        return [manifest for wave in self.waves for manifest in wave]


def key(manifest: Manifest) -> ChildKey:
    """Return the key of a manifest within its namespace."""
    return ChildKey(manifest["kind"], manifest["metadata"]["name"])


def policy_group(
    owner: Owner,
    spec: TenantSpec,
    plan: PlanSpec,
    level: Access,
    around: network.Surroundings,
    *,
    shard: Manifest | None = None,
) -> Group:
    """Return quotas, LimitRange, network, the application's account and the members' access.

    shard: the policy that lets the tenant out to its shard, from `network.shards_egress`.
    """
    limits = [resources.quota(owner, plan), resources.system_classes_quota(owner)]
    if level is not Access.OPEN:
        limits.append(resources.suspended_quota(owner))
    ranges = resources.limit_range(owner, plan)
    if ranges is not None:
        limits.append(ranges)
    limits.extend(network.policies(owner, plan, level, around))
    if shard is not None and level is Access.OPEN:
        limits.append(shard)
    people = [access.service_account(owner), *access.role_bindings(owner, spec.members, level)]
    return Group((tuple(limits), tuple(people)), POLICY_KINDS)


def planless_group(
    owner: Owner, spec: TenantSpec, level: Access, *, limited: bool, bound: bool = False
) -> Group:
    """Return what stands without a plan, for one that does not exist (yet).

    limited: a plan's quota stands. Then that plan's children are kept as they are, and who is a member still
    follows the spec; a new tenant lets nobody in. bound: there are bindings, of a time when it was suspended or
    had a quota: they let nobody in any more.
    """
    denied = (network.default_deny(owner), resources.system_classes_quota(owner))
    people = tuple(access.role_bindings(owner, spec.members, level))
    if level is Access.OPEN:
        if not limited:
            people = tuple(access.role_bindings(owner, (), Access.CUT)) if bound else ()
        return Group((denied, people), frozenset())
    return Group(((*denied, resources.suspended_quota(owner)), people), frozenset({"NetworkPolicy"}))


def archived_group(owner: Owner) -> Group:
    """Return what holds a retained namespace closed: no network, nothing new, nobody bound."""
    limits = (
        network.default_deny(owner),
        resources.suspended_quota(owner),
        resources.system_classes_quota(owner),
    )
    nobody = tuple(access.role_bindings(owner, (), Access.CUT))
    return Group((limits, nobody), frozenset({"NetworkPolicy"}))


def config_group(
    owner: Owner, spec: TenantSpec, plan_name: str, priority: str, decided: Configuration, namespace_uid: str
) -> Group:
    """Return the revisions, then `tenant-config`: what an application reads is on record before it reads it."""
    if decided.active is None:
        return Group((), frozenset())
    revisions = tuple(
        configuration.controller_revision(owner, namespace_uid, revision) for revision in decided.kept
    )
    current = configuration.config_map(owner, spec, plan_name, priority, decided.active)
    return Group((revisions, (current,)), CONFIG_KINDS)


def shard_group(owner: Owner, contents: Mapping[str, str] | None) -> Group:
    """Return the Secret that an application uses its vectors by; None: it has no place, and gets none."""
    wave = () if contents is None else (secret.vector_store(owner, contents),)
    return Group((wave,), SHARD_KINDS)

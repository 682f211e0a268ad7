"""All children of a tenant, exactly: tests/golden/input/*.yaml gives tests/golden/output/*.yaml.

An input is one document: `tenant` and `plan` name samples (`manifests/samples`), `spec` and `planSpec` are laid
over theirs, `access` is open, suspended or archived, and `around` is what the settings say of the cluster. `shard` is
the tenant's VectorShard: where its server is, and what its engine gives an application.
`pytest tests/golden --update-golden` writes the expected files anew.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.api.plan import Plan, PlanSpec
from tenantry.api.shard import ShardNetwork
from tenantry.api.tenant import Tenant
from tenantry.desired import access, children
from tenantry.desired.namespace import namespace
from tenantry.desired.network import Surroundings, shards_egress
from tenantry.desired.owner import Access, Manifest, Owner
from tenantry.domain.configuration import configure, resolve
from tests.unit.builders import sample

FOLDER = Path(__file__).parent
INPUTS = sorted((FOLDER / "input").glob("*.yaml"))
HEADER = "# Written by `pytest tests/golden --update-golden` from ../input/{name}\n"
NAMESPACE_UID = "0e5dbd41-9d2c-4b0e-8f37-6a3f3c1f2a77"
TENANT_UID = "1f0c9a2e-7c57-4f6b-9d0b-2b8f4c1c9a10"


@dataclass(frozen=True)
class Case:
    """One input file."""

    tenant: str
    access: str = "open"
    plan: str | None = None
    spec: dict[str, Any] | None = None
    planSpec: dict[str, Any] | None = None  # noqa: N815 - as in the file
    around: dict[str, Any] | None = None
    shard: dict[str, Any] | None = None
    origin: str = "created"

    def build(self) -> list[Manifest]:
        """Return all children, in the order in which they are applied."""
        files = {"acme": "acme.yaml", "umbrella": "small.yaml"}
        document = _laid_over(sample(files[self.tenant], self.tenant), self.spec)
        document["metadata"]["uid"] = TENANT_UID
        tenant = Tenant.model_validate(document)
        owner = Owner(tenant.metadata.name, TENANT_UID, tenant.namespace_name)
        plan = self._plan()
        place = namespace(
            owner,
            pod_security=str(plan.pod_security) if plan else "restricted",
            labels=tenant.spec.namespace.labels,
            origin=self.origin,
            email=tenant.spec.owner.email,
        )
        if self.access == "archived":
            return [place, *children.archived_group(owner).manifests]
        level = Access(self.access)
        if plan is None:
            return [place, *children.planless_group(owner, tenant.spec, level, limited=False).manifests]
        settings: dict[str, Any] = {key: tuple(value) for key, value in (self.around or {}).items()}
        around = Surroundings(**settings)
        shard = self.shard or {}
        egress = shard and shards_egress(
            owner, [(ShardNetwork.model_validate(shard.get("network", {})), shard["host"], [shard["port"]])]
        )
        policy = children.policy_group(owner, tenant.spec, plan, level, around, shard=egress or None)
        decided = configure(resolve(tenant.spec.overrides, plan).config, None, [], None, None)
        config = children.config_group(
            owner, tenant.spec, self.plan or "", str(plan.priority), decided, NAMESPACE_UID
        )
        vectors = children.shard_group(owner, shard.get("contents"))
        return [place, *policy.manifests, *config.manifests, *vectors.manifests]

    def _plan(self) -> PlanSpec | None:
        if self.plan is None:
            return None
        return Plan.model_validate(_laid_over(sample("plans.yaml", self.plan), self.planSpec)).spec


def _laid_over(document: dict[str, Any], spec: dict[str, Any] | None) -> dict[str, Any]:
    return {**document, "spec": {**document["spec"], **(spec or {})}}


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they read, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def dump(manifests: list[Manifest], name: str) -> str:
    """Return manifests as one file of YAML, its keys in order."""
    return HEADER.format(name=name) + yaml.dump_all(
        manifests, Dumper=_Dumper, sort_keys=True, width=110, allow_unicode=True
    )


def compare(built: str, file: Path, update: bool) -> None:
    """Write the expected file, or fail with the lines that differ."""
    if update:
        file.write_text(built, encoding="utf-8")
    expected = file.read_text(encoding="utf-8") if file.exists() else ""
    if built != expected:
        lines = difflib.unified_diff(
            expected.splitlines(), built.splitlines(), f"output/{file.name}", "as built", lineterm=""
        )
        pytest.fail(
            "\n".join([*lines, "", "If this is right: pytest tests/golden --update-golden"]), pytrace=False
        )


@pytest.mark.parametrize("file", INPUTS, ids=lambda file: file.stem)
def test_children_are_built_as_recorded(file: Path, update_golden: bool) -> None:
    case = Case(**yaml.safe_load(file.read_text(encoding="utf-8")))
    compare(dump(case.build(), file.name), FOLDER / "output" / file.name, update_golden)


def test_cluster_roles_are_built_as_recorded(update_golden: bool) -> None:
    compare(
        dump(access.cluster_roles(), "none: they are the same for all"),
        FOLDER / "output" / "cluster-roles.yaml",
        update_golden,
    )


def test_every_recorded_file_is_built_from_something() -> None:
    recorded = {file.name for file in (FOLDER / "output").glob("*.yaml")}
    assert recorded == {"cluster-roles.yaml", *(file.name for file in INPUTS)}

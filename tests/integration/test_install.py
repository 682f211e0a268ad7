"""Installed for real, with Helm and with Kustomize: what a platform team does, on control planes of its own.

Nothing runs pods here, but the controllers make them, so that Pod Security and quotas judge the real ones; and the
operator runs as a process that has the installed account and settings.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.api.crds import crd_documents
from tenantry.desired.access import cluster_roles
from tenantry.local import chart, kustomize
from tenantry.local.binaries import find_tool
from tests.conftest import REPOSITORY, Cluster
from tests.integration.conftest import Api, Object, OperatorProcess, administrator, is_ready, running, tenant
from tests.integration.releases import (
    CHART,
    CRD_CHART,
    NAMESPACE,
    RESTRICTED,
    Helm,
    bare_plane,
    documents,
    helm_for,
    helm_plane,
    install,
    installed,
    operator_of,
)

WITH_DATABASE = "--set=ledger.secret.name=tenantry-database"
KINDS = [document["metadata"]["name"] for document in crd_documents().values()]
BASE = str(REPOSITORY / "manifests")


@dataclass(frozen=True)
class Release:
    """Both charts, installed."""

    cluster: Cluster
    helm: Helm
    notes_before_the_kinds: str
    notes: str

    def manifests(self) -> list[Object]:
        return installed(self.helm)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Release]:
    with helm_plane(tmp_path_factory.mktemp("helm-plane")) as (cluster, helm):
        before = helm("install", "tenantry", str(CHART), WITH_DATABASE, "--dry-run=server").stdout
        yield Release(cluster, helm, before, install(cluster, helm, WITH_DATABASE))


@pytest.fixture(scope="module")
async def release_api(release: Release) -> AsyncIterator[Api]:
    async with administrator(release.cluster) as api:
        yield api


@pytest.fixture(scope="module")
async def released(
    release: Release, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator of the release."""
    process = operator_of(release.cluster, release.manifests(), tmp_path_factory.mktemp("released"))
    with running(process):
        await process.start()
        yield process


def test_the_notes_say_what_next(release: Release) -> None:
    missing = "helm install tenantry-crds helm/tenantry-crds --namespace tenantry-system"
    assert missing in release.notes_before_the_kinds
    assert "kinds are missing" not in release.notes
    assert "kubectl rollout status deployment/tenantry --namespace tenantry-system" in release.notes


async def test_what_the_notes_say_works(
    release: Release, released: OperatorProcess, release_api: Api
) -> None:
    applied = re.findall(r"<<'END'\n(.*?)\nEND\n", release.notes, re.DOTALL)
    assert [yaml.safe_load(each)["kind"] for each in applied] == ["Plan", "Tenant"]
    for each in applied:
        release.cluster.kubectl("apply", "--server-side", "-f", "-", input=each)
    release.cluster.kubectl("wait", "--for=condition=Ready", "tenant/acme", "--timeout=30s")
    assert "tenant-acme" in release.cluster.kubectl("get", "tenants").stdout
    assert await release_api.get("Namespace", "tenant-acme")


async def test_the_cluster_admits_the_pods_of_the_deployment(release: Release, release_api: Api) -> None:
    """The ReplicaSet's controller makes them, in a namespace that enforces Pod Security `restricted`."""
    namespace = await release_api.get("Namespace", NAMESPACE) or {}
    assert namespace["metadata"]["labels"].items() >= RESTRICTED.items()

    def both_made(found: Object | None) -> bool:
        return found is not None and found.get("status", {}).get("replicas") == 2

    await release_api.until("Deployment", "tenantry", both_made, NAMESPACE)
    budget = release.cluster.kubectl("get", "pdb", "tenantry", "-n", NAMESPACE, "-o", "json").stdout
    assert json.loads(budget)["spec"]["maxUnavailable"] == 1


def versions(release: Release) -> dict[str, str]:
    """What changes with every change: the generation of what has one, else the resourceVersion."""
    found = release.cluster.kubectl(
        "get", "-f", "-", "-o", "json", input=yaml.safe_dump_all(release.manifests())
    )
    return {
        f"{each['kind']}/{each['metadata']['name']}": str(
            each["metadata"].get("generation") or each["metadata"]["resourceVersion"]
        )
        for each in json.loads(found.stdout)["items"]
    }


async def test_an_upgrade_changes_what_it_should_and_the_tenants_go_on(
    release: Release, released: OperatorProcess, release_api: Api
) -> None:
    await release_api.apply(tenant("upgraded"))
    before = await release_api.until("Tenant", "upgraded", lambda found: found is not None)
    written = versions(release)
    release.helm("upgrade", "tenantry", str(CHART), WITH_DATABASE)
    assert versions(release) == written, "the same chart and values change nothing"
    release.helm(
        "upgrade",
        "tenantry",
        str(CHART),
        "--reset-then-reuse-values",
        "--set=replicas=3",
        "--set=settings.workers=4",
    )
    deployment = await release_api.get("Deployment", "tenantry", NAMESPACE) or {}
    assert deployment["spec"]["replicas"] == 3
    changed = {name for name, version in versions(release).items() if version != written[name]}
    assert changed == {"Deployment/tenantry"}
    after = await release_api.get("Tenant", "upgraded") or {}
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    release.helm("rollback", "tenantry", "1")
    assert (await release_api.get("Deployment", "tenantry", NAMESPACE) or {})["spec"]["replicas"] == 2


def test_a_second_release_is_refused(release: Release) -> None:
    refused = release.helm("install", "other", str(CHART), WITH_DATABASE, check=False)
    assert refused.returncode != 0
    assert "tenantry-tenant-" in refused.stderr
    assert "other" not in release.helm("list", "--short", "--deployed").stdout


async def test_uninstalling_takes_the_operator_away_and_keeps_kinds_and_tenants(
    release: Release, release_api: Api
) -> None:
    await release_api.apply(tenant("kept"))
    before = await release_api.get("Tenant", "kept") or {}
    release.helm("uninstall", "tenantry")
    release.helm("uninstall", "tenantry-crds")
    assert release.helm("list", "--short").stdout.split() == []
    left = release.cluster.kubectl("get", "clusterroles,clusterrolebindings", "-o", "name").stdout.split()
    roles = {f"clusterrole.rbac.authorization.k8s.io/{role['metadata']['name']}" for role in cluster_roles()}
    assert {name for name in left if "tenantry" in name} == roles, "members keep their access"
    assert await release_api.get("Deployment", "tenantry", NAMESPACE) is None
    assert set(release.cluster.kubectl("get", "crd", "-o", "name").stdout.split()) == {
        f"customresourcedefinition.apiextensions.k8s.io/{kind}" for kind in KINDS
    }
    assert (await release_api.get("Tenant", "kept") or {})["metadata"]["uid"] == before["metadata"]["uid"]
    # Installed again, the charts take over what they left.
    release.helm("install", "tenantry-crds", str(CRD_CHART))
    release.helm("install", "tenantry", str(CHART), WITH_DATABASE)
    assert (await release_api.get("Tenant", "kept") or {})["metadata"]["uid"] == before["metadata"]["uid"]


@pytest.fixture(scope="module")
def based(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane that had nothing of ours, after one apply of the base."""
    with bare_plane(tmp_path_factory.mktemp("kustomize-plane")) as cluster:
        cluster.kubectl("apply", "--server-side", "-k", BASE)
        yield cluster


@pytest.fixture(scope="module")
async def based_api(based: Cluster) -> AsyncIterator[Api]:
    async with administrator(based) as api:
        yield api


def settled(cluster: Cluster) -> dict[str, Any]:
    """Everything of the base in a cluster, without what controllers write."""
    cluster.established("crd", *KINDS)
    items = json.loads(cluster.kubectl("get", "-k", BASE, "-o", "json").stdout)["items"]
    for each in items:
        each["metadata"].pop("managedFields", None)
        if each.pop("status", None) is not None:
            del each["metadata"]["resourceVersion"]
            each["metadata"].setdefault("annotations", {}).pop("deployment.kubernetes.io/revision", None)
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in items}


def test_one_apply_of_the_base_installs_everything_and_a_second_changes_nothing(based: Cluster) -> None:
    before = settled(based)
    assert {each["kind"] for each in documents(based.kubectl("kustomize", BASE).stdout)} == {
        each["kind"] for each in before.values()
    }
    based.kubectl("apply", "--server-side", "-k", BASE)
    assert settled(based) == before


async def test_the_operator_of_the_base_works(based: Cluster, based_api: Api, tmp_path: Path) -> None:
    process = operator_of(based, documents(based.kubectl("kustomize", BASE).stdout), tmp_path)
    with running(process):
        await process.start()
        for sample in ("plans.yaml", "acme.yaml"):
            path = REPOSITORY / "manifests/samples" / sample
            based.kubectl("apply", "--server-side", "-f", str(path))
        await based_api.until("Tenant", "acme", is_ready)


def bare(manifest: Object) -> Object:
    """A manifest without the labels that helm puts there."""
    manifest = copy.deepcopy(manifest)
    labels = manifest["metadata"].get("labels", {})
    labels.pop("helm.sh/chart", None)
    if labels.get("app.kubernetes.io/managed-by") == "Helm":
        del labels["app.kubernetes.io/managed-by"]
    annotations = manifest["metadata"].get("annotations", {})
    annotations.pop("helm.sh/resource-policy", None)
    manifest["metadata"] = {key: value for key, value in manifest["metadata"].items() if value != {}}
    return manifest


def by_name(manifests: list[Object]) -> dict[str, Object]:
    return {f"{each['kind']}/{each['metadata']['name']}": bare(each) for each in manifests}


def test_the_base_installs_what_the_charts_install(based: Cluster) -> None:
    helm = find_tool("helm", print)
    charts = [*chart.render(helm, CRD_CHART, {}), *chart.render(helm, CHART, kustomize.VALUES)]
    base = documents(based.kubectl("kustomize", BASE).stdout)
    assert not any("helm" in json.dumps(each).lower() for each in base)
    wanted, found = by_name(charts), by_name(base)
    assert found.pop(f"Namespace/{NAMESPACE}")["metadata"]["labels"].items() >= RESTRICTED.items()
    assert found == wanted
    assert len(found) == len(base) - 1, "no name comes twice"


def test_an_overlay_changes_the_image_replicas_and_environment(based: Cluster, tmp_path: Path) -> None:
    image = {"name": "ghcr.io/tenantry/tenantry", "newName": "registry.example/tenantry", "newTag": "0.2.0"}
    proxy = [{"name": "operator", "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}]}]
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "tenantry", "namespace": NAMESPACE},
        "spec": {"template": {"spec": {"containers": proxy}}},
    }
    overlay = {
        "resources": [os.path.relpath(BASE, tmp_path.resolve())],
        "images": [image],
        "replicas": [{"name": "tenantry", "count": 3}],
        "patches": [{"patch": yaml.safe_dump(patch)}],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    found = documents(based.kubectl("kustomize", str(tmp_path)).stdout)
    (deployment,) = (each for each in found if each["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["spec"]["replicas"] == 3
    assert container["image"] == "registry.example/tenantry:0.2.0"
    assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container["env"]
    assert "TENANTRY_DATABASE_URL" in {entry["name"] for entry in container["env"]}
    based.kubectl("apply", "--server-side", "--dry-run=server", "-k", str(tmp_path))


PODS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "ephemeral": {"ledger": {"ephemeral": True, "secret": {"name": ""}}},
    "user left to the cluster": {
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}
    },
    "everything set": {
        "podAnnotations": {"example.com/owner": "platform"},
        "podLabels": {"team": "platform"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "control-plane", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "priorityClassName": "system-cluster-critical",
        "imagePullSecrets": [{"name": "registry"}],
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/etc/ca", "readOnly": True}],
        "image": {"digest": f"sha256:{'a' * 64}"},
    },
}


def pod_of(values: dict[str, Any]) -> Object:
    """The pod that the Deployment's controller would make."""
    rendered = chart.render(find_tool("helm", print), CHART, {**kustomize.VALUES, **values})
    (deployment,) = (each for each in rendered if each["kind"] == "Deployment")
    template = deployment["spec"]["template"]
    metadata = {**template["metadata"], "name": "tried", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}


@pytest.mark.parametrize("case", PODS)
def test_pod_security_restricted_admits_the_pod(based: Cluster, case: str) -> None:
    pod = json.dumps(pod_of(PODS[case]))
    based.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=pod)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("securityContext", "runAsNonRoot"),
        ("containers.0.securityContext", "allowPrivilegeEscalation"),
    ],
)
def test_pod_security_is_there_to_refuse(based: Cluster, path: str, words: str) -> None:
    """The counter-check: without what the chart sets the same pod is refused."""
    pod = pod_of({})
    holder = pod["spec"]
    *steps, last = path.split(".")
    for step in steps:
        holder = holder[int(step) if step.isdigit() else step]
    del holder[last]
    refused = based.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(pod), check=False)
    assert refused.returncode != 0
    assert 'violates PodSecurity "restricted' in refused.stderr
    assert words in refused.stderr


def test_kinds_that_kubectl_applied_are_given_to_the_chart_when_that_is_said(
    based: Cluster, tmp_path: Path
) -> None:
    helm = helm_for(based, tmp_path)
    based.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "crds"))
    refused = helm("install", "tenantry-crds", str(CRD_CHART), check=False)
    assert refused.returncode != 0
    assert "tenantry.dev" in refused.stderr
    helm("install", "tenantry-crds", str(CRD_CHART), "--take-ownership")
    assert helm("list", "--short").stdout.split() == ["tenantry-crds"]
    helm("uninstall", "tenantry-crds")

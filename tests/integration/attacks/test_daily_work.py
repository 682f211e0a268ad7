"""The policies refuse attacks and nothing else: a tenant's people can do their daily work."""

from __future__ import annotations

import asyncio
import json
import operator
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.local import kubeconfig
from tenantry.local.binaries import find_tool
from tests.conftest import Cluster
from tests.integration.attacks.actors import Actor, Request
from tests.integration.attacks.conftest import NAMESPACE, Scene
from tests.integration.attacks.daily import DAILY_WORK, Work
from tests.integration.attacks.requests import at, delete, get, patch, pod_spec, post, workload
from tests.integration.conftest import Api

Object = dict[str, Any]


async def granted(actor: Actor, request: Request) -> Object:
    """Send a request that must succeed; return the answer."""
    answer = await actor.send(request)
    async with asyncio.timeout(60):
        # Two pods are counted by one quota at the same moment, or one that is gone counts still: kubectl's users try
        # again, too.
        while not answer.ok and re.search("object has been modified|exceeded quota", answer.message):
            await asyncio.sleep(0.05)
            answer = await actor.send(request)
    assert answer.ok, f"{actor.name}: {request}: {answer.status} {answer.message}"
    return answer.body


@pytest.mark.parametrize("work", DAILY_WORK, ids=lambda work: work.what)
async def test_daily_work(scene: Scene, work: Work) -> None:
    for role in work.who:
        for request in work.requests(NAMESPACE, f"daily-{role}"):
            await granted(scene.actors[role], request)


async def test_a_deployment_gets_its_pods(scene: Scene, api: Api) -> None:
    """The cluster's own controllers make them, and take them away, while all policies are in force."""
    for role in ("owner", "editor", "pipeline"):
        actor, name = scene.actors[role], f"running-{role}"
        for resource in ("deployments", "statefulsets", "jobs"):
            await granted(actor, workload(resource, NAMESPACE, pod_spec(), name=f"{name}-{resource}"))
        for resource in ("deployments", "statefulsets", "jobs"):
            owned = f"{name}-{resource}"
            await _until_pods(actor, owned, bool)
            await granted(actor, delete(resource, NAMESPACE, owned, propagationPolicy="Background"))
            await _until_pods(actor, owned, operator.not_)


async def _until_pods(actor: Actor, app: str, holds: Callable[[list[Object]], bool]) -> None:
    for _ in range(400):
        if holds(found := await _pods_of(actor, app)):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{app} has {len(found)} pods")


async def _pods_of(actor: Actor, app: str) -> list[Object]:
    return list((await granted(actor, get("pods", NAMESPACE, labelSelector=f"app={app}")))["items"])


async def test_a_viewer_sees_everything_but_secrets(scene: Scene) -> None:
    viewer = scene.actors["viewer"]
    for resource in (
        "configmaps",
        "pods",
        "services",
        "events",
        "resourcequotas",
        "limitranges",
        "serviceaccounts",
    ):
        await granted(viewer, get(resource, NAMESPACE))
    for resource in ("deployments", "jobs", "ingresses", "networkpolicies", "controllerrevisions"):
        await granted(viewer, get(resource, NAMESPACE))
    assert (await viewer.send(get("secrets", NAMESPACE))).status == 403


async def test_an_application_reads_its_settings(scene: Scene) -> None:
    found = await granted(scene.actors["application"], get("configmaps", NAMESPACE, "tenant-config"))
    assert json.loads(found["data"]["config.json"])["tenant"] == "acme"
    watch = {"watch": "true", "fieldSelector": "metadata.name=tenant-config"}
    await granted(scene.actors["application"], get("configmaps", NAMESPACE, **watch))


async def test_other_controllers_do_their_work(scene: Scene) -> None:
    """A service mesh labels the namespace, a certificate manager writes Secrets and holds its objects."""
    controller = scene.actors["controller"]
    mesh = {"labels": {"istio-injection": "enabled"}, "annotations": {"mesh.example/revision": "1"}}
    await granted(controller, patch("namespaces", "", NAMESPACE, {"metadata": mesh}))
    gone = {"labels": {"istio-injection": None}, "annotations": {"mesh.example/revision": None}}
    await granted(controller, patch("namespaces", "", NAMESPACE, {"metadata": gone}))
    held: Object = {"finalizers": ["certificates.example/revoke"]}
    await granted(
        controller, post("secrets", NAMESPACE, "certificate", {"stringData": {"tls.crt": "x"}}, **held)
    )
    # A member changes the object without touching the finalizer, and may take it off.
    editor = scene.actors["editor"]
    await granted(
        editor, patch("secrets", NAMESPACE, "certificate", {"metadata": {"labels": {"team": "search"}}})
    )
    await granted(editor, patch("secrets", NAMESPACE, "certificate", {"metadata": {"finalizers": None}}))
    await granted(editor, delete("secrets", NAMESPACE, "certificate"))
    # The owner of a namespace marks it for a tenant.
    marked = {"tenantry.dev/adoptable-by": "umbrella"}
    await granted(controller, patch("namespaces", "", "no-tenant", {"metadata": {"annotations": marked}}))
    unmarked = {"tenantry.dev/adoptable-by": None}
    await granted(controller, patch("namespaces", "", "no-tenant", {"metadata": {"annotations": unmarked}}))


async def test_what_stood_before_the_rules_can_still_be_run(scene: Scene) -> None:
    """An administrator's Deployment breaks a rule: members scale and label it; changing it, they follow the rule."""
    spec = pod_spec(tolerations=[{"operator": "Exists"}])
    await granted(scene.admin, workload("deployments", NAMESPACE, spec, name="legacy"))
    editor = scene.actors["editor"]
    await granted(editor, patch("deployments", NAMESPACE, "legacy", {"spec": {"replicas": 0}}))
    await granted(
        editor, patch("deployments", NAMESPACE, "legacy", {"metadata": {"labels": {"team": "search"}}})
    )
    image = {"spec": {"template": {"spec": {"priorityClassName": "system-node-critical"}}}}
    assert (await editor.send(patch("deployments", NAMESPACE, "legacy", image))).status == 403
    await granted(editor, delete("deployments", NAMESPACE, "legacy"))


CHART = {
    "Chart.yaml": {"apiVersion": "v2", "name": "web", "version": "1.0.0"},
    "templates/deployment.yaml": workload("deployments", "", pod_spec(), name="chart").body,
    "templates/service.yaml": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "chart"},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "chart"}},
    },
    "templates/config.yaml": {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "chart"},
        "data": {"replicas": "{{ .Values.answer | default 1 }}"},
    },
}


@pytest.mark.parametrize("role", ["owner", "editor"])
async def test_helm_installs_upgrades_and_removes_a_chart(
    scene: Scene, control_plane: Cluster, tmp_path: Path, role: str
) -> None:
    for name, content in CHART.items():
        path = tmp_path / "web" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content))
    actor = scene.actors[role]
    own = tmp_path / "kubeconfig"
    kubeconfig.write_as(own, Path(control_plane.kubeconfig), actor.name, actor.credentials)
    helm = str(find_tool("helm", print))
    for command in (
        ("install", "web", str(tmp_path / "web")),
        ("upgrade", "web", str(tmp_path / "web"), "--set", "answer=42"),
        ("uninstall", "web", "--wait"),
    ):
        done = await asyncio.to_thread(
            subprocess.run,
            [helm, *command, f"--namespace={NAMESPACE}"],
            env={**os.environ, "KUBECONFIG": str(own), "HELM_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    left = await granted(
        actor, Request("GET", at("secrets", NAMESPACE), query={"labelSelector": "owner=helm"})
    )
    assert left["items"] == []

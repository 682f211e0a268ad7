"""The Deployment and what belongs to its pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tenantry.runtime.lease import LeaseTerms
from tenantry.runtime.operator import DRAIN_SECONDS, EVENT_SECONDS
from tests.unit.chart.conftest import EPHEMERAL, Manifest, Render, the

pytestmark = pytest.mark.tool("helm")

DNS = {"ports": [{"port": port, "protocol": kind} for port in (53, 5353) for kind in ("UDP", "TCP")]}
SELECTOR = {"app.kubernetes.io/name": "tenantry", "app.kubernetes.io/instance": "tenantry"}


def pod(manifests: list[Manifest]) -> dict[str, Any]:
    spec: dict[str, Any] = the("Deployment", manifests)["spec"]["template"]["spec"]
    return spec


def container(manifests: list[Manifest]) -> dict[str, Any]:
    (found,) = pod(manifests)["containers"]
    entry: dict[str, Any] = found
    return entry


@pytest.mark.parametrize(
    ("values", "ledger", "replicas"),
    [
        ({}, None, 2),
        ({"replicas": 3}, None, 3),
        ({"replicas": 1}, None, 1),
        ({"replicas": 0}, None, 0),
        ({}, EPHEMERAL, 1),
        ({"replicas": 1}, EPHEMERAL, 1),
        ({"replicas": 0}, EPHEMERAL, 0),
    ],
)
def test_replicas_and_the_budget_of_their_disruptions(
    render: Render, values: dict[str, Any], ledger: dict[str, Any] | None, replicas: int
) -> None:
    manifests = render(values, ledger) if ledger else render(values)
    assert the("Deployment", manifests)["spec"]["replicas"] == replicas
    budgets = [each["spec"] for each in manifests if each["kind"] == "PodDisruptionBudget"]
    expected = {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"}
    assert budgets == ([{**expected, "selector": {"matchLabels": SELECTOR}}] if replicas > 1 else [])


def test_a_rollout_takes_no_pod_away_before_another_is_ready(render: Render) -> None:
    strategy = the("Deployment", render())["spec"]["strategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}


@pytest.mark.parametrize("lease_seconds", [2, 15, 16, 60, 300])
def test_there_is_time_to_stop_in_order(render: Render, lease_seconds: int) -> None:
    terms = LeaseTerms(
        duration=lease_seconds, renew_deadline=lease_seconds * 2 / 3, retry_period=lease_seconds * 2 / 15
    )
    needed = DRAIN_SECONDS + EVENT_SECONDS + terms.request_timeout
    given = pod(render({"settings": {"leaseSeconds": lease_seconds}}))["terminationGracePeriodSeconds"]
    assert needed + 10 <= given <= needed + 20


def test_the_probes_ask_what_the_operator_serves(render: Render) -> None:
    entry = container(render({"settings": {"httpPort": 9090}}))
    assert entry["ports"] == [{"name": "http", "containerPort": 9090, "protocol": "TCP"}]
    asked = {name: entry[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert asked == {
        "startupProbe": {"path": "/healthz", "port": "http"},
        "livenessProbe": {"path": "/healthz", "port": "http"},
        "readinessProbe": {"path": "/readyz", "port": "http"},
    }
    startup = entry["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 300, "a migration may take its time"


def test_the_pod_may_do_nothing_that_it_does_not_need(render: Render) -> None:
    manifests = render()
    assert pod(manifests)["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(manifests)["enableServiceLinks"] is False, "they would be read as settings"


def test_openshift_may_choose_the_user(render: Render) -> None:
    chosen = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
    assert pod(render(chosen))["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_what_is_written_goes_to_volumes(render: Render) -> None:
    manifests = render({"settings": {"stateDir": "/data"}}, EPHEMERAL)
    assert pod(manifests)["volumes"] == [
        {"name": "state", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    assert container(manifests)["volumeMounts"] == [
        {"name": "state", "mountPath": "/data"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({}, "ghcr.io/tenantry/tenantry:0.1.0"),
        ({"tag": "0.2.0"}, "ghcr.io/tenantry/tenantry:0.2.0"),
        (
            {"repository": "registry.example:5000/tenantry", "tag": "0.2.0", "digest": f"sha256:{'a' * 64}"},
            f"registry.example:5000/tenantry@sha256:{'a' * 64}",
        ),
    ],
)
def test_the_image_by_tag_or_digest(render: Render, image: dict[str, str], expected: str) -> None:
    assert container(render({"image": image}))["image"] == expected


PASSED_ON: dict[str, tuple[Any, tuple[str | int, ...]]] = {
    "imagePullSecrets": ([{"name": "registry"}], ("spec", "imagePullSecrets")),
    "nodeSelector": ({"disk": "ssd"}, ("spec", "nodeSelector")),
    "tolerations": ([{"key": "control-plane", "operator": "Exists"}], ("spec", "tolerations")),
    "affinity": (
        {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}},
        ("spec", "affinity"),
    ),
    "priorityClassName": ("platform", ("spec", "priorityClassName")),
    "podAnnotations": ({"example.com/owner": "platform"}, ("metadata", "annotations")),
    "resources": (
        {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        ("spec", "containers", 0, "resources"),
    ),
    "topologySpreadConstraints": (
        [{"maxSkew": 2, "topologyKey": "zone"}],
        ("spec", "topologySpreadConstraints"),
    ),
}


@pytest.mark.parametrize("name", PASSED_ON)
def test_what_is_for_the_pod_reaches_it_and_is_not_there_otherwise(render: Render, name: str) -> None:
    given, path = PASSED_ON[name]

    def found(manifests: list[Manifest]) -> Any:
        here: Any = the("Deployment", manifests)["spec"]["template"]
        for step in path[:-1]:
            here = here[step]
        return here.get(path[-1])

    assert found(render({name: given})) == given
    assert found(render()) != given


def test_volumes_of_the_platform_team_go_beside_ours(render: Render) -> None:
    volume = {"name": "ca", "configMap": {"name": "database-ca"}}
    mount = {"name": "ca", "mountPath": "/etc/ca", "readOnly": True}
    manifests = render({"extraVolumes": [volume], "extraVolumeMounts": [mount]})
    assert [each["name"] for each in pod(manifests)["volumes"]] == ["state", "tmp", "ca"]
    assert container(manifests)["volumeMounts"][-1] == mount


def test_pods_are_spread_over_nodes_each_generation_for_itself(render: Render) -> None:
    (constraint,) = pod(render())["topologySpreadConstraints"]
    assert constraint == {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": SELECTOR},
        "matchLabelKeys": ["pod-template-hash"],
    }


def selectors(manifests: list[Manifest]) -> Iterator[tuple[str, Any]]:
    yield "Deployment", the("Deployment", manifests)["spec"]["selector"]["matchLabels"]
    yield "PodDisruptionBudget", the("PodDisruptionBudget", manifests)["spec"]["selector"]["matchLabels"]
    yield "Service", the("Service", manifests)["spec"]["selector"]
    yield "NetworkPolicy", the("NetworkPolicy", manifests)["spec"]["podSelector"]["matchLabels"]


def test_everything_selects_the_pods_and_labels_of_others_do_not_change_that(render: Render) -> None:
    manifests = render({"podLabels": {"team": "platform", "app.kubernetes.io/name": "other"}})
    labels = the("Deployment", manifests)["spec"]["template"]["metadata"]["labels"]
    assert labels == {**SELECTOR, "team": "platform"}
    assert dict(selectors(manifests)) == dict.fromkeys(
        ("Deployment", "PodDisruptionBudget", "Service", "NetworkPolicy"), SELECTOR
    )


def test_metrics_of_every_pod_can_be_scraped_also_of_one_that_is_not_ready(render: Render) -> None:
    spec = the("Service", render({"settings": {"httpPort": 9090}}))["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert spec["ports"] == [{"name": "http", "port": 9090, "targetPort": "http", "protocol": "TCP"}]


def test_everything_is_named_after_the_release_or_as_asked(render: Render) -> None:
    for values, prefix in (({}, "tenantry"), ({"fullnameOverride": "ops"}, "ops")):
        for each in render(values):
            name, namespace = each["metadata"]["name"], each["metadata"].get("namespace", "tenantry-system")
            assert name.startswith((prefix, "tenantry-tenant-")), f"{each['kind']} {name}"
            # Events about objects without a namespace live in `default`.
            assert namespace == ("default" if name == f"{prefix}-events" else "tenantry-system")


class TestNetworkPolicy:
    """Who reaches the operator, and whom it reaches."""

    def spec(self, render: Render, **values: Any) -> dict[str, Any]:
        manifests = render({"networkPolicy": values})
        found: dict[str, Any] = the("NetworkPolicy", manifests)["spec"]
        return found

    def test_one_port_is_open_and_the_api_server_is_never_cut_off(self, render: Render) -> None:
        spec = self.spec(render)
        assert spec["policyTypes"] == ["Ingress", "Egress"]
        assert spec["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}]}]
        assert spec["egress"] == [DNS, {"ports": [{"protocol": "TCP"}]}]

    def test_only_the_scraper(self, render: Render) -> None:
        scraper = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        spec = self.spec(render, ingress={"from": [scraper]})
        assert spec["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}], "from": [scraper]}]

    def test_with_the_address_of_the_api_server_all_else_is_closed(self, render: Render) -> None:
        egress = {
            "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"], "ports": [6443]},
            "database": {"cidrs": ["10.1.0.0/24"], "ports": [5432]},
            "extra": [{"ports": [{"port": 3128}]}],
        }
        spec = self.spec(render, egress=egress)
        assert spec["egress"] == [
            DNS,
            {
                "ports": [{"port": 6443, "protocol": "TCP"}],
                "to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}, {"ipBlock": {"cidr": "fd00::1/128"}}],
            },
            {"ports": [{"port": 5432, "protocol": "TCP"}], "to": [{"ipBlock": {"cidr": "10.1.0.0/24"}}]},
            {"ports": [{"port": 3128}]},
        ]

    def test_none(self, render: Render) -> None:
        assert "NetworkPolicy" not in {each["kind"] for each in render({"networkPolicy": {"enabled": False}})}

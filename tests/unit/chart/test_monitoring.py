"""What the chart gives the Prometheus operator."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.unit.chart.conftest import CHART, Manifest, Render, the

pytestmark = pytest.mark.tool("helm")

KINDS = {"ServiceMonitor", "PrometheusRule"}


def with_both(render: Render, **more: Any) -> list[Manifest]:
    chosen = {"enabled": True, "labels": {"release": "prometheus"}}
    return render({"serviceMonitor": {**chosen, **more}, "prometheusRule": chosen})


def test_neither_is_there_unless_asked_for_as_most_clusters_do_not_know_the_kinds(render: Render) -> None:
    assert not KINDS & {each["kind"] for each in render()}


def test_the_rule_has_the_alerts_as_they_are_in_their_file(render: Render) -> None:
    rule = the("PrometheusRule", with_both(render))
    assert rule["spec"] == yaml.safe_load((CHART / "files/alerts.yaml").read_text())


def test_a_prometheus_finds_them_by_labels_of_its_own(render: Render) -> None:
    for kind in KINDS:
        metadata = the(kind, with_both(render))["metadata"]
        assert metadata["labels"]["release"] == "prometheus"
        assert metadata["labels"]["app.kubernetes.io/name"] == "tenantry"
        assert metadata["namespace"] == "tenantry-system"


def test_every_replica_is_scraped_by_the_service(render: Render) -> None:
    manifests = with_both(render, interval="15s")
    service, monitor = the("Service", manifests), the("ServiceMonitor", manifests)["spec"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    (endpoint,) = monitor["endpoints"]
    assert endpoint == {"port": service["spec"]["ports"][0]["name"], "path": "/metrics", "interval": "15s"}

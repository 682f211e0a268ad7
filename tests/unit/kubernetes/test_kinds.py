"""Where objects are served: a name leads nowhere else, whoever wrote it."""

from __future__ import annotations

import pytest

from tenantry.adapters.kubernetes.kinds import KINDS


@pytest.mark.parametrize("name", ["..", ".", "../namespaces/kube-system", "a/b", "a%2Fb"])
def test_what_no_object_can_be_called_has_no_path(name: str) -> None:
    with pytest.raises(LookupError, match="nothing can be called"):
        KINDS["Tenant"].path(name)
    with pytest.raises(LookupError, match="nothing can be called"):
        KINDS["ConfigMap"].path("tenant-config", name)


def test_any_other_text_stays_within_its_part_of_the_path() -> None:
    found = KINDS["Tenant"].path("a?dryRun=All#b \u00fc", subresource="status")
    assert found == "/apis/tenantry.dev/v1alpha1/tenants/a%3FdryRun%3DAll%23b%20%C3%BC/status"
    assert KINDS["ClusterRole"].path("system:node").endswith("/clusterroles/system:node")

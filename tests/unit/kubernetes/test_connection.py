"""Which cluster is connected to: only one that was named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tenantry.adapters.kubernetes.client import ConnectionFailed, configure

KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: present
contexts:
  - {name: present, context: {cluster: one, user: somebody}}
  - {name: other, context: {cluster: two, user: somebody}}
clusters:
  - {name: one, cluster: {server: "https://one.example:6443"}}
  - {name: two, cluster: {server: "https://two.example:6443"}}
users:
  - {name: somebody, user: {token: t0ken}}
"""


@pytest.fixture
def kubeconfig(tmp_path: Path) -> str:
    path = tmp_path / "config"
    path.write_text(KUBECONFIG)
    return str(path)


async def test_a_named_kubeconfig_gives_its_present_context(kubeconfig: str) -> None:
    assert (await configure(kubeconfig, None)).host == "https://one.example:6443"


async def test_a_named_context_goes_before_the_present_one(kubeconfig: str) -> None:
    assert (await configure(kubeconfig, "other")).host == "https://two.example:6443"


@pytest.mark.parametrize("nothing", [None, ""])
async def test_without_a_name_no_cluster_is_touched(nothing: str | None) -> None:
    with pytest.raises(ConnectionFailed, match="--kubeconfig or --context, or set KUBECONFIG"):
        await configure(nothing, nothing)


async def test_what_is_no_kubeconfig_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFailed, match="no kubeconfig at") as told:
        await configure(str(tmp_path / "missing"), None)
    assert "\n" not in str(told.value)


async def test_a_context_that_is_not_there_is_told(kubeconfig: str) -> None:
    with pytest.raises(ConnectionFailed, match="nowhere"):
        await configure(kubeconfig, "nowhere")

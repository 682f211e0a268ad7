"""Kubeconfigs for other users, on the cluster that one of somebody else names."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.local import kubeconfig
from tenantry.local.errors import LocalError

BASE: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "mine",
    "contexts": [
        {"name": "other", "context": {"cluster": "elsewhere", "user": "admin"}},
        {"name": "mine", "context": {"cluster": "here", "user": "admin", "namespace": "x"}},
    ],
    "clusters": [
        {"name": "elsewhere", "cluster": {"server": "https://elsewhere"}},
        {"name": "here", "cluster": {"server": "https://here", "certificate-authority": "pki/ca.crt"}},
    ],
    "users": [{"name": "admin", "user": {"token": "root"}}],
}


def write_base(folder: Path, **changes: Any) -> Path:
    path = folder / "base" / "config"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump({**BASE, **changes}))
    return path


def test_another_user_gets_the_cluster_of_the_current_context_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "robot"
    kubeconfig.write_as(path, write_base(tmp_path), "robot", {"tokenFile": "/t"})
    document = yaml.safe_load(path.read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (cluster,), (context,), (user,) = (document[kind] for kind in ("clusters", "contexts", "users"))
    # A relative path counts from the folder of the file that it was in.
    authority = str(tmp_path / "base" / "pki" / "ca.crt")
    assert cluster["cluster"] == {"server": "https://here", "certificate-authority": authority}
    assert user == {"name": "robot", "user": {"tokenFile": "/t"}}
    assert context["context"] == {"cluster": cluster["name"], "user": "robot"}
    assert document["current-context"] == context["name"]


@pytest.mark.parametrize(
    "changes",
    [{"current-context": ""}, {"current-context": "gone"}, {"clusters": None}, {"contexts": None}],
    ids=["none chosen", "chosen but gone", "no clusters", "no contexts"],
)
def test_a_kubeconfig_that_names_no_cluster_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    base = write_base(tmp_path, **changes)
    with pytest.raises(LocalError, match=f"{base} has no current context with a cluster: choose one by"):
        kubeconfig.write_as(tmp_path / "robot", base, "robot", {})
    assert not (tmp_path / "robot").exists()

"""Tokens that are replaced while the operator runs: in a file, in a pod, by a program of the kubeconfig."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from kubernetes.aio.client.configuration import Configuration

from tenantry.adapters.kubernetes import client
from tenantry.adapters.kubernetes.client import ConnectionFailed, configure


async def header(configuration: Configuration) -> str | None:
    """Return what a request of this moment would carry."""
    found: str | None = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
    return found


def replace(path: Path, text: str) -> None:
    """Write a file as a kubelet or a cron job does: at once, by a rename."""
    path.with_name("new").write_text(text)
    path.with_name("new").replace(path)


def kubeconfig(folder: Path, **user: object) -> str:
    document = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "somebody"}}],
        "clusters": [{"name": "here", "cluster": {"server": "https://here.example:6443"}}],
        "users": [{"name": "somebody", "user": user}],
    }
    path = folder / "config"
    path.write_text(yaml.safe_dump(document))
    return str(path)


async def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    configuration = await configure(kubeconfig(tmp_path, tokenFile="token"), None)
    assert await header(configuration) == "Bearer first"
    replace(token, "second")
    assert await header(configuration) == "Bearer second"


async def test_a_token_file_that_is_gone_or_empty_leaves_the_old_token_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text("first")
    configuration = await configure(kubeconfig(tmp_path, tokenFile=str(token)), None)
    assert await header(configuration) == "Bearer first"
    token.unlink()
    for _ in range(3):
        assert await header(configuration) == "Bearer first"
    assert caplog.text.count(f"The token in {token} cannot be read, the old one is used") == 1
    replace(token, "")
    assert await header(configuration) == "Bearer first"
    replace(token, "second")
    assert await header(configuration) == "Bearer second"


async def test_a_token_in_the_kubeconfig_itself_goes_before_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the file")
    configuration = await configure(kubeconfig(tmp_path, token="of the text", tokenFile="token"), None)
    assert await header(configuration) == "Bearer of the text"


@pytest.mark.parametrize(("minutes", "runs"), [(1, 3), (60, 1)], ids=["about to end", "good for an hour"])
async def test_a_program_of_the_kubeconfig_runs_again_when_its_token_is_about_to_end(
    tmp_path: Path, minutes: int, runs: int
) -> None:
    ends = (datetime.now(UTC) + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    status = {"token": "@", "expirationTimestamp": ends}
    answer = json.dumps(
        {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}
    )
    program = tmp_path / "login"
    program.write_text(
        f"#!/bin/sh\necho run >> {tmp_path}/runs\necho '{answer}' | sed s/@/$(wc -l < {tmp_path}/runs)/\n"
    )
    program.chmod(0o755)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(program),
        "interactiveMode": "Never",
    }
    configuration = await configure(kubeconfig(tmp_path, exec=plugin), None)
    headers = [await header(configuration) for _ in range(2)]
    assert headers[-1] == f"Bearer {runs}"


@pytest.fixture
def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pod's files and variables; its token is a link into a folder that the kubelet replaces."""
    folder = tmp_path / "serviceaccount"
    for number in (1, 2):
        (folder / f"..{number}").mkdir(parents=True)
        (folder / f"..{number}" / "token").write_text(f"token-{number}")
    (folder / "..data").symlink_to("..1")
    (folder / "token").symlink_to("..data/token")
    (folder / "ca.crt").write_text("certificate")
    monkeypatch.setattr(client, "SERVICE_ACCOUNT", folder)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    return folder


async def test_in_a_pod_the_token_is_the_volumes_of_this_moment(pod: Path) -> None:
    configuration = await configure(None, None)
    assert configuration.host == "https://10.96.0.1:443"
    assert configuration.ssl_ca_cert == str(pod / "ca.crt")
    assert await header(configuration) == "Bearer token-1"
    (pod / "..tmp").symlink_to("..2")
    (pod / "..tmp").replace(pod / "..data")
    assert await header(configuration) == "Bearer token-2"


async def test_a_pod_without_its_account_is_told_in_one_line(pod: Path) -> None:
    (pod / "token").unlink()
    with pytest.raises(ConnectionFailed, match=r"no cluster to connect to from this pod: .*token") as told:
        await configure(None, None)
    assert "\n" not in str(told.value)


async def test_a_kubeconfig_that_is_named_goes_before_the_pods_account(pod: Path, tmp_path: Path) -> None:
    configuration = await configure(kubeconfig(tmp_path, token="mine"), None)
    assert (configuration.host, await header(configuration)) == ("https://here.example:6443", "Bearer mine")
    assert os.environ["KUBERNETES_SERVICE_HOST"]

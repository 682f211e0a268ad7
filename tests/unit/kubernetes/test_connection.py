"""Which cluster is connected to: only one that was named."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path
from typing import Any

import pytest

from tenantry.adapters.kubernetes.client import Client, ConnectionFailed, configure
from tenantry.runtime import connecting

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


async def test_a_ca_without_key_identifiers_is_taken_and_all_else_verified_whatever_pythons_version(
    kubeconfig: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ssl, "create_default_context", functools.partial(as_from_3_13, ssl.create_default_context)
    )
    assert ssl.create_default_context().verify_flags & ssl.VERIFY_X509_STRICT
    configuration = await configure(kubeconfig, None)
    client = Client(configuration)
    ours = client._library.ssl_context
    kopfs = (await connecting.credentials(configuration)).as_ssl_context()
    await client.close()
    for context in (ours, kopfs):
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname


def as_from_3_13(make: Any, *args: Any, **kwargs: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = make(*args, **kwargs)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context

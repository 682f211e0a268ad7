"""Kubeconfig files that hold their credentials, so that they can be copied."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tenantry.local.certificates import KeyPair
from tenantry.local.errors import LocalError
from tenantry.local.files import write_private


def write_for_certificate(path: Path, url: str, authority: Path, user: str, pair: KeyPair) -> None:
    """Write a kubeconfig for whom the client certificate names. Raises OSError."""
    _write(
        path,
        url,
        authority,
        user,
        {"client-certificate-data": _data(pair.certificate), "client-key-data": _data(pair.key)},
    )


def write_for_token(path: Path, url: str, authority: Path, user: str, token: str) -> None:
    """Write a kubeconfig for whom the bearer token names. Raises OSError."""
    _write(path, url, authority, user, {"token": token})


def write_as(path: Path, base: Path, user: str, credentials: Mapping[str, str]) -> None:
    """Write a kubeconfig for another user, on the cluster of the current context of `base`.

    credentials: as a kubeconfig has them, such as `token` or `tokenFile`. Raises LocalError, OSError.
    """
    document = yaml.safe_load(base.read_text()) or {}
    contexts, clusters = (
        {each["name"]: each[kind] for each in document.get(f"{kind}s") or []}
        for kind in ("context", "cluster")
    )
    current = document.get("current-context")
    cluster = clusters.get(contexts[current].get("cluster")) if current in contexts else None
    if cluster is None:
        raise LocalError(
            f"{base} has no current context with a cluster: choose one by kubectl config use-context"
        )
    if authority := cluster.get("certificate-authority"):
        # As relative paths they are those of the folder that the file is in.
        cluster = {**cluster, "certificate-authority": str(base.parent / authority)}
    write_private(path, yaml.safe_dump(_document(cluster, user, credentials)).encode())


def _write(path: Path, url: str, authority: Path, user: str, credentials: Mapping[str, str]) -> None:
    document = _document({"server": url, "certificate-authority-data": _data(authority)}, user, credentials)
    content = yaml.safe_dump(document).encode()
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)


def _document(cluster: Mapping[str, Any], user: str, credentials: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tenantry", "cluster": dict(cluster)}],
        "users": [{"name": user, "user": dict(credentials)}],
        "contexts": [{"name": "tenantry", "context": {"cluster": "tenantry", "user": user}}],
        "current-context": "tenantry",
    }


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()

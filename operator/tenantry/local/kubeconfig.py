"""Kubeconfig files that hold their credentials, so that they can be copied."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tenantry.local.certificates import KeyPair
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


def write_as(path: Path, base: Path, user: str, token: str) -> None:
    """Write a kubeconfig for whom the bearer token names, on the current cluster of `base`. Raises OSError."""
    document = yaml.safe_load(base.read_text())
    current = next(each for each in document["contexts"] if each["name"] == document["current-context"])
    document["users"] = [{"name": user, "user": {"token": token}}]
    document["contexts"] = [{"name": current["name"], "context": {**current["context"], "user": user}}]
    write_private(path, yaml.safe_dump(document).encode())


def _write(path: Path, url: str, authority: Path, user: str, credentials: Mapping[str, str]) -> None:
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "tenantry", "cluster": {"server": url, "certificate-authority-data": _data(authority)}}
        ],
        "users": [{"name": user, "user": dict(credentials)}],
        "contexts": [{"name": "tenantry", "context": {"cluster": "tenantry", "user": user}}],
        "current-context": "tenantry",
    }
    content = yaml.safe_dump(document).encode()
    if not path.exists() or path.read_bytes() != content:
        write_private(path, content)


def _data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()

"""Who attacks: people with client certificates of the cluster and ServiceAccounts with tokens, all of them real."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.integration.conftest import Api

Object = dict[str, Any]

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON_PATCH = "application/json-patch+json"

SIGNING = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
WATCH_SECONDS = 20.0


@dataclass(frozen=True)
class Request:
    """One request to the API server."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.method} {self.path}" + (f"?{urlencode(self.query)}" if self.query else "")

    def rehearsed(self) -> Request:
        """Return the same request without effect: the API server checks everything and stores nothing."""
        return self if self.method == "GET" else replace(self, query={**self.query, "dryRun": "All"})


@dataclass(frozen=True)
class Answer:
    """What the API server said."""

    status: int
    message: str
    body: Object

    @property
    def ok(self) -> bool:
        return self.status < 300


class Actor:
    """Somebody who sends requests under a name of their own. `close()` when done."""

    def __init__(
        self,
        name: str,
        host: str,
        tls: ssl.SSLContext,
        token: str = "",
        credentials: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.credentials: Mapping[str, str] = credentials or {}
        """As a kubeconfig has them."""
        self._host = host
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), headers=headers)

    async def send(self, request: Request) -> Answer:
        """Send a request; of a watch only its beginning is read."""
        url = f"{self._host}{request.path}" + (f"?{urlencode(request.query)}" if request.query else "")
        headers = {"Content-Type": request.content_type, "Accept": JSON, **request.headers}
        # As Go writes JSON: the data of a ControllerRevision is compared byte by byte when somebody changes it.
        body = (
            None if request.body is None else json.dumps(request.body, separators=(",", ":"), sort_keys=True)
        )
        async with self._session.request(
            request.method, url, data=body, headers=headers, timeout=aiohttp.ClientTimeout(30)
        ) as answer:
            if "watch" in request.query and answer.status < 300:
                return Answer(answer.status, "", {})
            text = await answer.text()
        try:
            content = json.loads(text)
        except ValueError:
            content = {}
        content = content if isinstance(content, dict) else {}
        return Answer(answer.status, str(content.get("message", text)), content)

    async def close(self) -> None:
        await self._session.close()


def administrator(api: Api) -> Actor:
    """Return the cluster's administrator, whose requests show that an attack is a valid request."""
    settings = api.client.configuration
    tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    tls.load_cert_chain(settings.cert_file, settings.key_file)
    return Actor("the administrator", settings.host, tls)


async def person(api: Api, folder: Path, user: str, *groups: str) -> Actor:
    """Return a person with a certificate that the cluster itself has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    subject = x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, user)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    name = f"attack-{user.partition('@')[0]}"
    spec = {
        "request": base64.b64encode(request.public_bytes(serialization.Encoding.PEM)).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client",
        "usages": ["client auth"],
    }
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    await api.client.send("POST", SIGNING, body={**kind, "metadata": {"name": name}, "spec": spec})
    approval = {"type": "Approved", "status": "True", "reason": "Test", "message": "for a test"}
    await api.client.send(
        "PATCH",
        f"{SIGNING}/{name}/approval",
        body={"status": {"conditions": [approval]}},
        content_type=MERGE,
    )
    certificate = await _signed(api, name)
    await api.client.send("DELETE", f"{SIGNING}/{name}")
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(certificate + private)
    tls = ssl.create_default_context(cafile=api.client.configuration.ssl_ca_cert)
    tls.load_cert_chain(path)
    credentials = {"client-certificate": str(path), "client-key": str(path)}
    return Actor(user, api.client.configuration.host, tls, credentials=credentials)


async def _signed(api: Api, name: str) -> bytes:
    query = {"fieldSelector": f"metadata.name={name}", "watch": "true"}
    async with (
        asyncio.timeout(WATCH_SECONDS),
        api.client.stream(SIGNING, query, WATCH_SECONDS) as events,
    ):
        async for event in events:
            if certificate := event["object"].get("status", {}).get("certificate"):
                return base64.b64decode(certificate)
    raise AssertionError(f"nobody signs the certificate {name}")


async def service_account(api: Api, namespace: str, name: str) -> Actor:
    """Return a ServiceAccount with a token, as its pods have one."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    token = (await api.client.send("POST", path, body=body))["status"]["token"]
    settings = api.client.configuration
    tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    return Actor(f"system:serviceaccount:{namespace}:{name}", settings.host, tls, token, {"token": token})

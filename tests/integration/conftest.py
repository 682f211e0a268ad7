"""A client that awaits conditions, and the operator as a process of its own."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tenantry.adapters.kubernetes.client import APPLY, MERGE, Client, Expired, configure
from tenantry.adapters.kubernetes.kinds import KINDS, Kind
from tenantry.local.ports import free_ports
from tenantry.reconcile.ports import Unavailable
from tests.conftest import REPOSITORY, Cluster

Object = dict[str, Any]

PATIENCE_SECONDS = 60.0
"""How long a test waits for what must come. How soon it comes is `make bench`'s to measure: machines are busy."""

OTHERS = {
    kind.kind: kind
    for kind in (
        Kind("Event", "v1", "events"),
        Kind("Pod", "v1", "pods"),
        Kind("Service", "v1", "services"),
        Kind("Secret", "v1", "secrets"),
        Kind("Deployment", "apps/v1", "deployments"),
        Kind("Lease", "coordination.k8s.io/v1", "leases"),
    )
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("tenantry").addoption(
        "--update-docs", action="store_true", help="write what tests find into docs/ instead of comparing"
    )


MEMBERS = [
    {"kind": "User", "name": "alice@acme.example", "role": "owner"},
    {"kind": "Group", "name": "developers", "role": "editor"},
    {"kind": "ServiceAccount", "name": "dashboard", "role": "viewer"},
]
"""One of each role and of each kind."""


class Api:
    """What a test does on the API server, as JSON, as the cluster's administrator."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def apply(self, manifest: Object, manager: str = "kubectl") -> Object:
        """Server-side apply as a user does it."""
        kind, metadata = _kind(manifest["kind"]), manifest["metadata"]
        path = kind.path(metadata["name"], metadata.get("namespace", ""))
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        body = {"apiVersion": kind.api_version, **manifest}
        return await self.client.send("PATCH", path, query=query, body=body, content_type=APPLY)

    async def patch(self, kind: str, name: str, body: Object, namespace: str = "", **more: Any) -> Object:
        path = _kind(kind).path(name, namespace, more.get("subresource", ""))
        query = {"fieldManager": more.get("manager", "kubectl-edit")}
        return await self.client.send("PATCH", path, query=query, body=body, content_type=MERGE)

    async def replace(self, kind: str, manifest: Object) -> Object:
        metadata = manifest["metadata"]
        path = _kind(kind).path(metadata["name"], metadata.get("namespace", ""))
        query = {"fieldManager": "kubectl-replace"}
        return await self.client.send("PUT", path, query=query, body=manifest)

    async def create(
        self, kind: str, manifest: Object, manager: str = "tenantry", *, dry_run: bool = False
    ) -> Object:
        path = _kind(kind).path(namespace=manifest["metadata"].get("namespace", ""))
        body = {"apiVersion": _kind(kind).api_version, "kind": kind, **manifest}
        query = {"fieldManager": manager, **({"dryRun": "All"} if dry_run else {})}
        return await self.client.send("POST", path, query=query, body=body)

    async def get(self, kind: str, name: str, namespace: str = "") -> Object | None:
        try:
            return await self.client.send("GET", _kind(kind).path(name, namespace))
        except LookupError:
            return None

    async def list(self, kind: str, namespace: str = "", selector: str = "") -> list[Object]:
        query = {"labelSelector": selector} if selector else {}
        answer = await self.client.send("GET", _kind(kind).path(namespace=namespace), query=query)
        return list(answer["items"])

    async def delete(self, kind: str, name: str, namespace: str = "") -> None:
        try:
            await self.client.send("DELETE", _kind(kind).path(name, namespace))
        except LookupError:
            return

    async def until(
        self,
        kind: str,
        name: str,
        holds: Callable[[Object | None], Any],
        namespace: str = "",
        timeout: float = PATIENCE_SECONDS,
    ) -> Any:
        """Watch one object until `holds(object or None)` is true; return the object."""
        last: list[Object | None] = [None]
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        return await self._watch(kind, name, holds, namespace, last)
                    except Expired:
                        continue
                    except Unavailable:
                        # As for any client, such as directly after a CRD was changed: "storage is (re)initializing".
                        await asyncio.sleep(0.1)
        except TimeoutError:
            shown = yaml.safe_dump(_brief(last[0]))
            raise AssertionError(
                f"{kind} {name} did not get there in {timeout:g} s; it is:\n{shown}"
            ) from None

    async def _watch(
        self, kind: str, name: str, holds: Callable[..., Any], namespace: str, last: list[Object | None]
    ) -> Any:
        query = {"fieldSelector": f"metadata.name={name}"}
        path = _kind(kind).path(namespace=namespace)
        answer = await self.client.send("GET", path, query=query)
        last[0] = next(iter(answer["items"]), None)
        if holds(last[0]):
            return last[0]
        query |= {"watch": "true", "resourceVersion": answer["metadata"]["resourceVersion"]}
        async with self.client.stream(path, query, 60) as events:
            async for event in events:
                if event["type"] == "ERROR":
                    raise Expired(str(event))
                last[0] = None if event["type"] == "DELETED" else event["object"]
                if holds(last[0]):
                    return last[0]
        raise Expired("the watch ended")


def _kind(kind: str) -> Kind:
    return KINDS.get(kind) or OTHERS[kind]


def _brief(item: Object | None) -> Object | None:
    if item is None:
        return None
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    return {**item, "metadata": metadata}


def condition(item: Object | None, kind: str) -> Object | None:
    """Return a condition of an object."""
    conditions = ((item or {}).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), None)


def is_ready(item: Object | None) -> bool:
    """Return whether an object is Ready at its present generation."""
    found = condition(item, "Ready")
    return (
        item is not None
        and found is not None
        and found["status"] == "True"
        and found.get("observedGeneration") == item["metadata"]["generation"]
    )


def is_stalled(reason: str) -> Callable[[Object | None], bool]:
    """Return a check for Stalled with that reason at the present generation."""

    def holds(item: Object | None) -> bool:
        found = condition(item, "Stalled")
        return (
            item is not None
            and found is not None
            and (found["status"], found["reason"]) == ("True", reason)
            and found["observedGeneration"] == item["metadata"]["generation"]
        )

    return holds


def tenant(name: str, **spec: Any) -> Object:
    """Return a Tenant."""
    return {
        "apiVersion": "tenantry.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name},
        "spec": {"owner": {"email": f"ops@{name}.example"}, **spec},
    }


def gone(found: Object | None) -> bool:
    """Return whether an object is not there."""
    return found is None


def in_phase(phase: str) -> Callable[[Object | None], bool]:
    """Return a check for a phase."""
    return lambda found: found is not None and (found.get("status") or {}).get("phase") == phase


async def provisioned(api: Api, name: str, **spec: Any) -> str:
    """Apply a Tenant, wait until it is Ready, return its namespace."""
    await api.apply(tenant(name, **{"plan": "pro", "members": MEMBERS, **spec}))
    found = await api.until("Tenant", name, is_ready)
    return str(found["status"]["namespace"])


class OperatorProcess:
    """`tenantry run` as a process of its own, so that it can be killed; with the chart's rights and settings."""

    def __init__(self, cluster: Cluster, folder: Path, **settings: str) -> None:
        self.log = folder / "operator.log"
        self.port = free_ports(1)[0]
        self.state_dir = folder
        self._command = [sys.executable, "-m", "tenantry", "run", "--kubeconfig", cluster.operator_kubeconfig]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")},
            **cluster.settings,
            "TENANTRY_STATE_DIR": str(folder),
            "TENANTRY_HTTP_PORT": str(self.port),
            "TENANTRY_HTTP_HOST": "127.0.0.1",
            **settings,
        }
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, patience: float = PATIENCE_SECONDS) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        async with asyncio.timeout(patience), aiohttp.ClientSession() as session:
            while True:
                assert self.process.poll() is None, f"the operator ended:\n{self.log.read_text()[-3000:]}"
                if await self._answers(session):
                    return
                await asyncio.sleep(0.05)

    async def _answers(self, session: aiohttp.ClientSession) -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                return answer.status == 200 and (await answer.text()) == "ok\n"
        except aiohttp.ClientError:
            return False

    async def metrics(self) -> str:
        """Return what it tells Prometheus."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/metrics") as answer,
        ):
            return await answer.text()

    def stop(self) -> int:
        """Stop it as the kubelet does; return the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE_SECONDS)

    def kill(self) -> None:
        """Kill it with no chance to clean up."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=PATIENCE_SECONDS)


@contextmanager
def running(operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """See to it that an operator ends with its test."""
    try:
        yield operator
    finally:
        if operator.process is not None and operator.process.poll() is None:
            operator.kill()


@pytest.fixture(scope="session")
def update_docs(request: pytest.FixtureRequest) -> bool:
    """Whether the generated parts of docs/ are to be written."""
    # Known only where this folder is named on the command line: pytest reads no other conftest in time.
    return bool(request.config.getoption("--update-docs", default=False))


@asynccontextmanager
async def administrator(cluster: Cluster) -> AsyncIterator[Api]:
    """A client as the cluster's administrator."""
    client = Client(await configure(cluster.kubeconfig, None))
    try:
        yield Api(client)
    finally:
        await client.close()


@pytest.fixture(scope="session")
async def api(control_plane: Cluster) -> AsyncIterator[Api]:
    """A client as the cluster's administrator."""
    async with administrator(control_plane) as client:
        yield client


@pytest.fixture(scope="session")
async def plans(control_plane: Cluster) -> None:
    """The plans of the samples."""
    control_plane.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "manifests/samples/plans.yaml"))


@pytest.fixture(scope="session")
async def operator(
    control_plane: Cluster, plans: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[OperatorProcess]:
    """The operator, running."""
    process = OperatorProcess(control_plane, tmp_path_factory.mktemp("operator"))
    with running(process):
        await process.start()
        yield process


_numbers = itertools.count(1)


@pytest.fixture
async def name(api: Api) -> AsyncIterator[str]:
    """A tenant's name that no other test uses; what it leaves behind is removed."""
    chosen = f"t{next(_numbers)}"
    yield chosen
    if await api.get("Tenant", chosen) is not None:
        # Some tests delete it themselves, and it may be gone by now.
        with suppress(LookupError):
            await api.patch("Tenant", chosen, {"spec": {"deletionPolicy": "Delete"}})
        await api.delete("Tenant", chosen)

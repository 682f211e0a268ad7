"""Tokens that end while the operator runs, as a pod's do: all who ask take the next one from its file.

A token that is bound to a Secret ends with it, some ten seconds later: so long the API server remembers a token.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tenantry.adapters.kubernetes import client as connection
from tenantry.adapters.kubernetes.client import Client, configure
from tenantry.local import chart, kubeconfig
from tenantry.reconcile.ports import Unavailable
from tests.conftest import Cluster, embedded
from tests.integration.conftest import Api, OperatorProcess, administrator, is_ready, running, tenant
from tests.integration.test_watching import OURS, Eyes, watching
from tests.integration.wire import Wire

PLANS = "/apis/tenantry.dev/v1alpha1/plans"
NAMESPACE = f"--namespace={chart.NAMESPACE}"

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Token:
    """A token of the operator's account, bound to a Secret of this name."""

    secret: str
    text: str


class Tokens:
    """Tokens of the operator's account on one cluster; a file has the present one."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self.file = folder / "token"

    def make(self) -> Token:
        """Return a new token that nobody has yet."""
        secret = f"bound-{next(_numbers)}"
        self._cluster.kubectl("create", "secret", "generic", secret, NAMESPACE)
        bound = ("--bound-object-kind=Secret", f"--bound-object-name={secret}")
        made = self._cluster.kubectl("create", "token", chart.RELEASE, NAMESPACE, *bound)
        return Token(secret, made.stdout.strip())

    def hand_out(self, token: Token) -> None:
        """Put a token into the file, at once, as the kubelet does."""
        scratch = self._folder / "token.new"
        scratch.write_text(token.text)
        scratch.replace(self.file)

    async def end(self, token: Token) -> None:
        """End a token; return when the API server refuses it."""
        path = self._folder / "ended"
        kubeconfig.write_as(path, Path(self._cluster.kubeconfig), "ended", {"token": token.text})
        client = Client(await configure(str(path), None))
        self._cluster.kubectl("delete", "secret", token.secret, NAMESPACE)
        try:
            with pytest.raises(Unavailable, match="Unauthorized"):
                await _ask_on(client)
        finally:
            await client.close()


async def _ask_on(client: Client) -> None:
    """Ask until an answer is an error."""
    async with asyncio.timeout(60):
        while True:
            await client.send("GET", PLANS)
            await asyncio.sleep(0.1)


@pytest.fixture
async def wire(control_plane: Cluster) -> AsyncIterator[Wire]:
    """A connection to the API server that can be cut, so that watches have to be opened again."""
    document = yaml.safe_load(Path(control_plane.kubeconfig).read_text())
    url = urlsplit(document["clusters"][0]["cluster"]["server"])
    assert url.hostname
    assert url.port
    wire = Wire(url.hostname, url.port)
    yield wire
    await wire.stop()


@pytest.fixture
async def pod(control_plane: Cluster, wire: Wire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    """What a pod has: files of its account, and variables with the address of the API server."""
    tokens = Tokens(control_plane, tmp_path)
    configuration = await configure(control_plane.kubeconfig, None)
    assert configuration.ssl_ca_cert is not None
    (tmp_path / "ca.crt").write_text(Path(configuration.ssl_ca_cert).read_text())
    monkeypatch.setattr(connection, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(await wire.start()))
    return tokens


@pytest.mark.parametrize("late", [False, True], ids=["in time", "after the old one has ended"])
async def test_in_a_pod_requests_and_watches_go_on_with_the_next_token(
    api: Api, pod: Tokens, wire: Wire, late: bool
) -> None:
    first, second = pod.make(), pod.make()
    names = [f"renewal-{'late' if late else 'early'}-{number}" for number in (1, 2)]
    pod.hand_out(first)
    configuration = await configure(None, None)
    client, eyes = Client(configuration), Eyes()
    try:
        async with watching(configuration, eyes) as task:
            await api.apply(OURS["plans"](names[0]))
            await eyes.until(lambda: eyes.of(names[0]) != [])
            if not late:
                pod.hand_out(second)
            await pod.end(first)
            wire.cut()
            if late:
                with pytest.raises(Unavailable, match="Unauthorized"):
                    await client.send("GET", PLANS)
                # So long that the watch has been refused more than once.
                await asyncio.wait({task}, timeout=4)
                pod.hand_out(second)
            await client.send("GET", PLANS)
            await api.apply(OURS["plans"](names[1]))
            await eyes.until(lambda: eyes.of(names[1]) != [])
            assert not task.done()
    finally:
        await client.close()
        for name in names:
            await api.delete("Plan", name)


@pytest.fixture(scope="module")
def own_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane on which no other test runs an operator."""
    with embedded(tmp_path_factory.mktemp("credentials"), plans=True) as cluster:
        yield cluster


async def test_the_operator_goes_on_when_its_token_file_is_written_anew(
    own_plane: Cluster, tmp_path: Path
) -> None:
    tokens = Tokens(own_plane, tmp_path)
    first, second, third = (tokens.make() for _ in range(3))
    tokens.hand_out(first)
    path = tmp_path / "kubeconfig"
    kubeconfig.write_as(path, Path(own_plane.kubeconfig), "operator", {"tokenFile": str(tokens.file)})
    operator = OperatorProcess(replace(own_plane, operator_kubeconfig=str(path)), tmp_path)
    async with administrator(own_plane) as api:
        with running(operator):
            await operator.start()
            await api.apply(tenant("before", plan="pro"))
            await api.until("Tenant", "before", is_ready)
            # In time: nobody notices.
            tokens.hand_out(second)
            await tokens.end(first)
            await api.apply(tenant("between", plan="pro"))
            await api.until("Tenant", "between", is_ready)
            assert "Unauthorized" not in operator.log.read_text()
            # Late: it cannot even keep its Lease, and takes it again.
            await tokens.end(second)
            async with asyncio.timeout(60):
                while "Lost the Lease" not in operator.log.read_text():  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            tokens.hand_out(third)
            await api.apply(tenant("after", plan="pro"))
            await api.until("Tenant", "after", is_ready)
            assert operator.stop() == 0

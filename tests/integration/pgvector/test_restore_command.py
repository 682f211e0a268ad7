"""`tenantry restore`, as a platform engineer uses it: a real API server, a real PostgreSQL, a folder as the store."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tenantry.adapters.exports import FsspecStore
from tenantry.adapters.ledger import open_ledger
from tenantry.adapters.pgvector.exporting import export
from tenantry.adapters.pgvector.store import Place
from tenantry.api.shard import VectorShard
from tenantry.api.tenant import Tenant
from tenantry.domain.ownership import address_digest
from tenantry.local.postgres import PostgresServer
from tenantry.reconcile.exports import Exported
from tenantry.reconcile.ports import Unavailable
from tenantry.restoring import Target, bring_back
from tests.conftest import Cluster, embedded
from tests.integration.conftest import Api, administrator, tenant
from tests.integration.pgvector.conftest import Connection, admit
from tests.integration.pgvector.test_exporting import content, fill_oddly, now, source

NAMESPACE = "restore-shards"
SHARD = "restore-shard"
EMAIL = "ops@restored.example"
NOT_RECORDED = "not in the audit log: TENANTRY_DATABASE_URL names no ledger\n"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Command:
    """`tenantry restore` with the kubeconfig of a platform engineer."""

    kubeconfig: str
    store: str
    ledger: str = ""

    async def __call__(self, *arguments: str) -> Answer:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TENANTRY_")}
        settings = {"TENANTRY_OWN_NAMESPACE": NAMESPACE, "TENANTRY_EXPORT_URL": self.store}
        if self.ledger:
            settings["TENANTRY_DATABASE_URL"] = self.ledger
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tenantry", "restore", *arguments),
            env={**environment, **settings, "KUBECONFIG": self.kubeconfig, "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Answer(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane of its own: with a shard in it, every tenant of any other test would be placed there."""
    with embedded(tmp_path_factory.mktemp("restore-plane")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def api(control_plane: Cluster) -> AsyncIterator[Api]:
    """A client as its administrator."""
    async with administrator(control_plane) as client:
        yield client


@pytest.fixture
def restore(control_plane: Cluster, tmp_path: Path) -> Command:
    return Command(control_plane.kubeconfig, f"file://{tmp_path}/exports")


@pytest.fixture(scope="module")
async def shard(api: Api, server: PostgresServer) -> AsyncIterator[None]:
    """A VectorShard whose Secret has the server's address."""
    await api.apply({"kind": "Namespace", "metadata": {"name": NAMESPACE}})
    metadata = {"name": "server", "namespace": NAMESPACE}
    await api.apply({"kind": "Secret", "metadata": metadata, "stringData": {"dsn": server.dsn()}})
    spec = {"engine": "pgvector", "connection": {"secretRef": {"name": "server"}}}
    await api.apply({"kind": "VectorShard", "metadata": {"name": SHARD}, "spec": spec})
    yield
    await api.delete("VectorShard", SHARD)
    await api.delete("Namespace", NAMESPACE)


async def customer(api: Api, admin: Connection, name: str, cluster: Cluster, email: str = EMAIL) -> Place:
    """A Tenant with an empty place on the shard."""
    await api.apply(tenant(name, owner={"email": email}))
    status = {"status": {"placement": {"shard": SHARD, "epoch": 1}}}
    patch = ("patch", "tenant", name, "--subresource=status", "--type=merge", "--patch", json.dumps(status))
    await asyncio.to_thread(cluster.kubectl, *patch)
    return await admit(admin, name)


async def exported(admin: Connection, restore: Command, name: str) -> Exported:
    """An export of a former tenant."""
    place = await admit(admin, f"{name}-former")
    await fill_oddly(admin, place)
    made = replace(source(name), owner=address_digest(EMAIL))
    return await FsspecStore(restore.store).put(made, export(admin, place), now)


async def test_an_export_comes_back(
    api: Api, admin: Connection, shard: None, restore: Command, control_plane: Cluster
) -> None:
    made = await exported(admin, restore, "comes-back")
    place = await customer(api, admin, "comes-back", control_plane)
    listed = await restore("--list", "--tenant", "comes-back", "-o", "json")
    assert [item["url"] for item in json.loads(listed.out)] == [made.url]
    assert made.url in (await restore("--list")).out
    answer = await restore(made.url, "--tenant", "comes-back")
    assert (answer.code, answer.err) == (0, NOT_RECORDED)
    where = f"Tenant comes-back on VectorShard {SHARD}"
    assert answer.out == f"restored {made.rows} vectors of Tenant comes-back from {made.url} to {where}\n"
    former = await admit(admin, "comes-back-former")
    assert await content(admin, place) == await content(admin, former)
    # A second time there is something there.
    again = await restore(made.url, "--tenant", "comes-back")
    assert (again.code, again.out) == (1, "")
    assert "holds vectors already" in again.err
    assert len(await content(admin, place)) == made.rows


async def test_another_owner_gets_it_by_force_only(
    api: Api, admin: Connection, shard: None, restore: Command, control_plane: Cluster
) -> None:
    made = await exported(admin, restore, "changes-hands")
    place = await customer(api, admin, "new-owner", control_plane, email="else@where.example")
    refused = await restore(made.url, "--tenant", "new-owner")
    assert refused.code == 1
    assert "with another owner than Tenant new-owner (else@where.example): give --force" in refused.err
    assert await content(admin, place) == []
    forced = await restore(made.url, "--tenant", "new-owner", "--force")
    assert (forced.code, forced.err) == (0, NOT_RECORDED)
    assert len(await content(admin, place)) == made.rows


async def test_it_is_on_record_where_there_is_a_ledger(
    api: Api, admin: Connection, shard: None, restore: Command, control_plane: Cluster, tmp_path: Path
) -> None:
    made = await exported(admin, restore, "on-record")
    place = await customer(api, admin, "on-record", control_plane)
    url = f"sqlite:///{tmp_path}/ledger.db"
    recorded = replace(restore, ledger=url)
    answer = await recorded(made.url, "--tenant", "on-record")
    assert (answer.code, answer.err) == (0, "")
    again = await recorded(made.url, "--tenant", "on-record")
    assert again.code == 1, "there are vectors now"
    ledger = await open_ledger(url)
    (row,) = await ledger.audit.entries("on-record", None, 10)
    await ledger.close()
    assert (row.action, row.kind, row.name) == ("VectorsRestored", "Tenant", "on-record")
    assert row.actor == "admin", "who the kubeconfig says"
    assert row.after == {"url": made.url, "rows": made.rows, "sha256": made.sha256}
    assert row.message == answer.out.strip()
    assert len(await content(admin, place)) == made.rows


async def test_what_cannot_be_recorded_is_not_restored(
    api: Api, admin: Connection, shard: None, restore: Command, control_plane: Cluster
) -> None:
    made = await exported(admin, restore, "unrecorded")
    place = await customer(api, admin, "unrecorded", control_plane)
    nowhere = replace(restore, ledger="postgresql://nobody:nothing@127.0.0.1:1/ledger")
    answer = await nowhere(made.url, "--tenant", "unrecorded")
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("error: nothing is restored")
    assert await content(admin, place) == []


async def test_a_ledger_that_goes_away_meanwhile_leaves_the_place_empty(
    api: Api, admin: Connection, shard: None, restore: Command, control_plane: Cluster
) -> None:
    made = await exported(admin, restore, "interrupted")
    place = await customer(api, admin, "interrupted", control_plane)
    raw = {**(await api.get("Tenant", "interrupted") or {}), "apiVersion": "tenantry.dev/v1alpha1"}
    spec = await api.get("VectorShard", SHARD) or {}
    secret = await api.get("Secret", "server", NAMESPACE) or {}
    address = base64.b64decode(secret["data"]["dsn"]).decode()
    target = Target(Tenant.model_validate(raw), VectorShard.model_validate(spec), address)
    seen = []

    async def gone() -> None:
        seen.append(len(await content(admin, place)))
        raise Unavailable("the ledger has gone away")

    with pytest.raises(Unavailable):
        await bring_back(FsspecStore(made.url), made, target, gone)
    assert seen == [0], "nobody sees the rows before they are on record"
    assert await content(admin, place) == []


async def test_a_damaged_export_restores_nothing(
    api: Api, admin: Connection, shard: None, restore: Command, control_plane: Cluster
) -> None:
    made = await exported(admin, restore, "spoilt")
    place = await customer(api, admin, "spoilt", control_plane)
    file = Path(made.url.removeprefix("file://")) / made.file
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    answer = await restore(made.url, "--tenant", "spoilt")
    assert answer.code == 1
    assert answer.err.startswith("error: ")
    assert len(answer.err.splitlines()) == 1
    assert await content(admin, place) == []


async def test_what_is_missing_is_named(
    api: Api, admin: Connection, shard: None, restore: Command, control_plane: Cluster
) -> None:
    made = await exported(admin, restore, "missing")
    nobody = await restore(made.url, "--tenant", "nobody")
    assert (nobody.code, "there is no Tenant nobody" in nobody.err) == (1, True)
    await api.apply(tenant("homeless", owner={"email": EMAIL}))
    homeless = await restore(made.url, "--tenant", "homeless")
    assert (homeless.code, "has no place on a VectorShard yet" in homeless.err) == (1, True)
    place = await customer(api, admin, "wider", control_plane)
    await admin.execute("UPDATE tenantry.owners SET dimensions = 4 WHERE tenant = %s", (place.tenant,))
    wider = await restore(made.url, "--tenant", "wider")
    assert (wider.code, "set spec.vectorStore of the Tenant to dimensions 3" in wider.err) == (1, True)
    folder = await restore(restore.store, "--tenant", "wider")
    assert (folder.code, "no complete export" in folder.err) == (1, True)


@pytest.mark.parametrize("arguments", [(), ("file:///nowhere",), ("--tenant", "acme")])
async def test_wrong_usage_is_told_from_failure(restore: Command, arguments: tuple[str, ...]) -> None:
    answer = await restore(*arguments)
    assert answer.code == 2
    assert "--tenant" in answer.err

"""Weaviate, for the contract."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import weaviate
from weaviate.classes.data import DataObject
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.collections import CollectionAsync
from weaviate.exceptions import WeaviateBaseError

from tenantry.adapters.weaviate import logins, owners, rows
from tenantry.adapters.weaviate.client import Client, parse
from tenantry.adapters.weaviate.schema import OWNERS
from tenantry.api.shard import EngineKind
from tenantry.domain.places import Record
from tenantry.local import processes
from tenantry.local.binaries import find_tool
from tenantry.local.ports import LOOPBACK, free_ports
from tests.integration.engines.rig import Application, Denied, lost_requests, one_step_later

_START_SECONDS = 60.0

FIT = {
    "AUTHORIZATION_RBAC_ENABLED": "true",
    "AUTHORIZATION_RBAC_ROOT_USERS": "root",
    "AUTHENTICATION_DB_USERS_ENABLED": "true",
    "ASYNC_INDEXING": "true",
}
"""What the operator asks of a server."""


class WeaviateServer:
    """One server on loopback; `settings` are its variables beside those of its place.

    It listens for gRPC on every address: whoever reaches it there needs a key too.
    """

    def __init__(self, settings: Mapping[str, str]) -> None:
        self._program = find_tool("weaviate-server", print)
        self._folder = Path(tempfile.mkdtemp(prefix="tenantry-weaviate-"))
        self._settings = settings
        self._ports = free_ports(6)
        self._process: subprocess.Popen[bytes] | None = None
        self.keys = {"root": secrets.token_urlsafe(16), "other": secrets.token_urlsafe(16)}

    def address(self, user: str = "root") -> str:
        """Return an address with the key of one of the two users that are there from the beginning."""
        port, grpc = self._ports[:2]
        return f"http://{user}:{self.keys[user]}@{LOOPBACK}:{port}?grpc_port={grpc}"

    def start(self) -> None:
        """Have it running and answering."""
        port, grpc, gossip, data, raft, internal = self._ports
        environment = {
            "AUTHENTICATION_APIKEY_ENABLED": "true",
            "AUTHENTICATION_APIKEY_USERS": ",".join(self.keys),
            "AUTHENTICATION_APIKEY_ALLOWED_KEYS": ",".join(self.keys.values()),
            "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED": "false",
            "PERSISTENCE_DATA_PATH": str(self._folder / "data"),
            # It counts what it has written out.
            "PERSISTENCE_MEMTABLES_FLUSH_DIRTY_AFTER_SECONDS": "1",
            "CLUSTER_HOSTNAME": "node",
            "CLUSTER_BIND_ADDR": LOOPBACK,
            "CLUSTER_ADVERTISE_ADDR": LOOPBACK,
            "CLUSTER_GOSSIP_BIND_PORT": str(gossip),
            "CLUSTER_DATA_BIND_PORT": str(data),
            "CLUSTER_BASIC_AUTH_USERNAME": "node",
            "CLUSTER_BASIC_AUTH_PASSWORD": self.keys["root"],
            "RAFT_PORT": str(raft),
            "RAFT_INTERNAL_RPC_PORT": str(internal),
            "RAFT_BOOTSTRAP_EXPECT": "1",
            "GRPC_PORT": str(grpc),
            "ENABLE_MODULES": "backup-filesystem",
            "BACKUP_FILESYSTEM_PATH": str(self._folder / "backups"),
            "GO_PROFILING_DISABLE": "true",
            "DISABLE_TELEMETRY": "true",
            "LOG_LEVEL": "warning",
            **self._settings,
        }
        command = [str(self._program), "--host", LOOPBACK, "--port", str(port), "--scheme", "http"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        process = psutil.Process(self._process.pid)
        come = processes.await_condition(
            lambda: self._is_ready() or not processes.is_running(process), _START_SECONDS
        )
        assert come, "it does not answer"
        assert processes.is_running(process), self.log.read_text()[-3000:]

    @property
    def log(self) -> Path:
        """The server's log."""
        return self._folder / "weaviate.log"

    def folder_of(self, collection: str, tenant: str) -> Path:
        """Return where a tenant's objects and index are."""
        return self._folder / "data" / collection.lower() / tenant

    def kill(self) -> None:
        """End it as nothing else would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)

    def stop(self) -> None:
        """End it, and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        try:
            with urlopen(f"http://{LOOPBACK}:{self._ports[0]}/v1/.well-known/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


class WeaviateApplication:
    """An application on Weaviate's own library."""

    def __init__(self, collection: CollectionAsync[Any, Any]) -> None:
        self._collection = collection

    async def insert(self, ids: Sequence[str], dimensions: int = 3) -> None:
        """Store vectors."""
        with denied():
            answer = await self._collection.data.insert_many(
                [
                    DataObject(
                        properties={"key": name, "content": f"text of {name}"},
                        uuid=rows.object_id(name),
                        vector=[1.0] * dimensions,
                    )
                    for name in ids
                ]
            )
            assert not answer.errors, answer.errors

    async def ids(self) -> list[str]:
        """Return all keys."""
        with denied():
            return sorted([str(each.properties["key"]) async for each in self._collection.iterator()])


@contextmanager
def denied() -> Iterator[None]:
    """Tell what the library says of a server that does not let one in."""
    try:
        yield
    except WeaviateBaseError as error:
        said = str(error).lower()
        if any(word in said for word in ("401", "403", "forbidden", "unauthorized", "unauthenticated")):
            raise Denied(str(error)) from error
        raise


@asynccontextmanager
async def connected(access: Mapping[str, str]) -> AsyncIterator[weaviate.WeaviateAsyncClient]:
    """Connect as an application does, by what is in its Secret."""
    with denied():
        client = weaviate.use_async_with_custom(
            http_host=access["host"],
            http_port=int(access["port"]),
            http_secure=access["url"].startswith("https"),
            grpc_host=access["host"],
            grpc_port=int(access["grpcPort"]),
            grpc_secure=access["url"].startswith("https"),
            auth_credentials=Auth.api_key(access["password"]),
            additional_config=AdditionalConfig(timeout=Timeout(init=10, query=30, insert=30)),
        )
        try:
            await client.connect()
            yield client
        finally:
            await client.close()


class WeaviateRig:
    """One server in a folder of its own."""

    kind = EngineKind.WEAVIATE

    def __init__(self) -> None:
        self.server = WeaviateServer(FIT)
        self.secret = self.server.keys["root"]

    def address(self) -> str:
        """Return the address with the operator's key."""
        return self.server.address()

    def wrong_addresses(self) -> Sequence[str]:
        """Return another key."""
        return [self.address().replace(self.secret, "wrong")]

    def unreachable_address(self) -> str:
        """Return the address with another port."""
        return f"http://root:{self.secret}@{LOOPBACK}:{free_ports(1)[0]}"

    @asynccontextmanager
    async def application(self, access: Mapping[str, str]) -> AsyncIterator[Application]:
        """Connect by what is in the Secret."""
        async with connected(access) as client:
            yield WeaviateApplication(
                client.collections.use(access["collection"]).with_tenant(access["tenant"])
            )

    async def traces(self, record: Record) -> object:
        """Return when the record was written, how users and role are, and whether the tenant is there."""
        client = Client(parse(self.address()))
        try:
            kept = await client.ask("GET", f"objects/{OWNERS}/{owners.object_id(record.place.tenant)}")
            return (
                kept["lastUpdateTimeUnix"],
                await logins.find(client, record.id),
                await client.ask("GET", f"authz/roles/{logins.role(record.id)}"),
            )
        finally:
            await client.close()

    async def spoil_index(self, record: Record) -> None:
        """Do nothing: the server sees to its indexes."""

    def crashes(self) -> AsyncIterator[AbstractAsyncContextManager[None]]:
        """Lose each request in turn, first before the server has it, then its answer; afterwards none."""
        return one_step_later(lost_requests(Client))

    def kill(self) -> None:
        """End it at once."""
        self.server.kill()

    def start(self) -> None:
        """Start it, or start it again."""
        self.server.start()

    def stop(self) -> None:
        """End it, and remove its folder."""
        self.server.stop()


def rigs() -> Iterator[WeaviateRig]:
    """Give one server, running."""
    rig = WeaviateRig()
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()

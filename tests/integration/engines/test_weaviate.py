"""What of Weaviate is its own: the index that the server builds, what it must be set to, and what its roles keep."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import weaviate.classes as wvc
from weaviate import WeaviateAsyncClient
from weaviate.collections import CollectionAsync

from tenantry.adapters.engines import RealEngines
from tenantry.adapters.weaviate import logins, owners, rows
from tenantry.adapters.weaviate.client import Client, Denied, parse
from tenantry.adapters.weaviate.engine import WeaviateEngine
from tenantry.adapters.weaviate.schema import OWNERS
from tenantry.api.shard import EngineKind
from tenantry.domain.places import Place, Record
from tenantry.domain.vectors import INDEX_ROWS
from tenantry.reconcile.ports import Refused, Unavailable
from tests.conftest import REPOSITORY
from tests.integration.engines import rig as rigs
from tests.integration.engines.conftest import described
from tests.integration.engines.test_contract import insert, measured
from tests.integration.engines.weaviate import FIT, WeaviateRig, WeaviateServer, connected, denied

pytestmark = [
    pytest.mark.parametrize("rig", ["weaviate"], indirect=True),
    pytest.mark.tool("weaviate-server"),
]

SECRET = "what umbrella hides"
HIDDEN = rows.object_id("hidden")


# --- the server -----------------------------------------------------------------------------------------------------


async def test_the_server_builds_the_index_of_a_large_tenant_alone(
    rig: WeaviateRig, engine: WeaviateEngine
) -> None:
    large, small = [await engine.ensure(described(f"indexed-{size}")) for size in ("large", "small")]
    await insert(rig, engine, small, "one")
    for start in range(0, INDEX_ROWS + 1000, 1000):
        await insert(rig, engine, large, *(f"row-{number}" for number in range(start, start + 1000)))
    found = await measured(engine, "indexed-large", lambda record: record.rows > INDEX_ROWS)
    assert found.indexed
    other = await engine.find("indexed-small")
    assert other is not None
    assert not other.indexed


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("AUTHORIZATION_RBAC_ENABLED", "root, has not the role root: set AUTHORIZATION_RBAC_ENABLED"),
        ("AUTHENTICATION_DB_USERS_ENABLED", "set AUTHENTICATION_DB_USERS_ENABLED=true on it"),
        ("ASYNC_INDEXING", "set ASYNC_INDEXING=true on it"),
    ],
)
async def test_what_a_server_must_be_set_to_is_said(rig: WeaviateRig, missing: str, said: str) -> None:
    server = WeaviateServer({name: value for name, value in FIT.items() if name != missing})
    server.start()
    engine = RealEngines().open("one", EngineKind.WEAVIATE, server.address())
    try:
        assert said in str((await engine.prepare()).unfit)
    finally:
        await engine.close()
        server.stop()


async def test_a_user_who_may_not_do_everything_is_no_operator(rig: WeaviateRig) -> None:
    engine = RealEngines().open("one", EngineKind.WEAVIATE, rig.server.address("other"))
    fitness = await engine.prepare()
    assert fitness.server == "Weaviate 1.35.2"
    assert "user there, other, has not the role root" in str(fitness.unfit)
    await engine.close()


# --- isolation ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def acme(rig: WeaviateRig, engine: WeaviateEngine) -> Record:
    """The attacker."""
    return await engine.ensure(described("acme"))


@pytest.fixture
async def umbrella(rig: WeaviateRig, engine: WeaviateEngine) -> Record:
    """Who has something to hide."""
    record = await engine.ensure(described("umbrella"))
    async with connected(engine.access(record)) as client:
        collection = client.collections.use(engine.access(record)["collection"]).with_tenant("umbrella")
        await collection.data.insert_many(
            [
                wvc.data.DataObject(
                    properties={"key": "hidden", "content": SECRET}, uuid=HIDDEN, vector=[1.0, 2.0, 3.0]
                )
            ]
        )
    return record


Attack = Callable[[WeaviateAsyncClient, CollectionAsync[Any, Any]], Awaitable[Any]]
"""With a client of acme's, and the collection as umbrella's tenant."""

ATTACKS: dict[str, Attack] = {
    "reads an object": lambda _, its: its.query.fetch_object_by_id(HIDDEN),
    "reads all objects": lambda _, its: its.query.fetch_objects(include_vector=True),
    "searches by a vector": lambda _, its: its.query.near_vector([1.0, 2.0, 3.0]),
    "searches by an object": lambda _, its: its.query.near_object(HIDDEN),
    "searches by words": lambda _, its: its.query.bm25("umbrella"),
    "searches by both": lambda _, its: its.query.hybrid("umbrella", vector=[1.0, 2.0, 3.0]),
    "counts": lambda _, its: its.aggregate.over_all(total_count=True),
    "asks whether one is there": lambda _, its: its.data.exists(HIDDEN),
    "writes an object": lambda _, its: its.data.insert({"key": "x"}, vector=[1.0, 2.0, 3.0]),
    "changes an object": lambda _, its: its.data.update(HIDDEN, {"content": "changed"}),
    "replaces an object": lambda _, its: its.data.replace(HIDDEN, {"content": "changed"}),
    "deletes an object": lambda _, its: its.data.delete_by_id(HIDDEN),
    "deletes what it finds": lambda _, its: its.data.delete_many(
        where=wvc.query.Filter.by_property("key").equal("hidden")
    ),
    "makes a tenant": lambda _, its: its.tenants.create("mine"),
    "removes a tenant": lambda _, its: its.tenants.remove("umbrella"),
    "switches a tenant off": lambda _, its: its.tenants.deactivate("umbrella"),
    "makes a collection": lambda client, _: client.collections.create("Mine"),
    "deletes the collection": lambda client, its: client.collections.delete(its.name),
    "reads the record of all": lambda client, _: client.collections.use(OWNERS).query.fetch_objects(),
    "makes a user": lambda client, _: client.users.db.create(user_id="mine"),
    "takes the operator's role": lambda client, _: client.users.db.assign_roles(
        user_id=logins.user("0", "a"), role_names="root"
    ),
    "makes a role": lambda client, _: client.roles.create(role_name="mine", permissions=[]),
    "backs the server up": lambda client, _: client.backup.create(
        "mine", wvc.backup.BackupStorage.FILESYSTEM
    ),
}


@pytest.mark.parametrize("what", ATTACKS)
async def test_a_tenant_is_denied(
    rig: WeaviateRig, engine: WeaviateEngine, acme: Record, umbrella: Record, what: str
) -> None:
    access = engine.access(acme)
    async with connected(access) as client:
        its = client.collections.use(access["collection"]).with_tenant("umbrella")
        with pytest.raises(rigs.Denied), denied():
            await ATTACKS[what](client, its)
    async with connected(engine.access(umbrella)) as client:
        own = client.collections.use(access["collection"]).with_tenant("umbrella")
        found = (await own.query.fetch_objects()).objects
        assert [each.properties["content"] for each in found] == [SECRET]


async def test_no_list_shows_who_else_there_is(
    rig: WeaviateRig, engine: WeaviateEngine, acme: Record, umbrella: Record
) -> None:
    client = Client(parse(rig.address()), engine.access(acme)["password"])
    paths = ("schema", f"schema/{engine.access(acme)['collection']}/tenants", "users/db", "authz/roles")
    try:
        shown = [await client.ask("GET", path) for path in paths]
        # Known, and told in docs/shards.md: of the whole server it tells how many there are.
        nodes = (await client.ask("GET", "nodes", output="verbose"))["nodes"]
        assert all(not node["shards"] for node in nodes)
        for node in nodes:
            assert set(node["stats"]) == {"objectCount", "shardCount"}
        more = [await client.ask("GET", path) for path in ("meta", "users/own-info")]
        said = json.dumps([shown, more, nodes])
        assert "umbrella" not in said
        assert umbrella.id not in said
        assert OWNERS not in said
        for query in ({"class": engine.access(acme)["collection"]}, {}):
            with pytest.raises(Denied):
                await client.ask("GET", "objects", **query)
    finally:
        await client.close()


async def test_a_role_that_somebody_widened_is_found_and_put_back(
    rig: WeaviateRig, engine: WeaviateEngine, umbrella: Record, place: Place
) -> None:
    record = await engine.ensure(place)
    assert await engine.probe(record, [umbrella]) == []
    admin = Client(parse(rig.address()))
    collection = engine.access(record)["collection"]
    wide = [
        {"action": "read_data", "data": {"collection": "*", "tenant": "*"}},
        {"action": "read_tenants", "tenants": {"collection": collection, "tenant": "*"}},
        {"action": "read_users", "users": {"users": "*"}},
        {"action": "read_roles", "roles": {"role": "*", "scope": "all"}},
    ]
    await admin.ask("POST", f"authz/roles/{logins.role(record.id)}/add-permissions", {"permissions": wide})
    await admin.close()
    leaks = await engine.probe(record, [umbrella])
    for words in (
        "sees that there are others, such as ",
        "sees the users of others",
        "sees the roles of others",
        "reads the record of all tenants",
        "reads rows of umbrella",
    ):
        assert any(words in leak for leak in leaks), (words, leaks)
    assert await engine.ensure(place) == record
    assert await engine.probe(record, [umbrella]) == []


async def test_a_user_that_somebody_deleted_or_gave_another_role_is_as_before(
    rig: WeaviateRig, engine: WeaviateEngine, place: Place
) -> None:
    record = await engine.ensure(place)
    admin = Client(parse(rig.address()))
    try:
        user = logins.user(record.id, "a")
        await admin.ask("POST", f"authz/users/{user}/assign", {"roles": ["viewer"], "userType": "db"})
        assert await engine.ensure(place) == record
        assert (await logins.find(admin, record.id))["a"].roles == (logins.role(record.id),)
        before = engine.access(record)
        await admin.ask("DELETE", f"users/db/{user}")
        # Nobody can make the same key again.
        again = await engine.ensure(place)
        assert engine.access(again)["password"] != before["password"]
        await insert(rig, engine, again, "one")
    finally:
        await admin.close()


# --- rows out and back ----------------------------------------------------------------------------------------------

LINES = [
    {
        "id": "doc-17#3",
        "embedding": [0.5, 0.25, -1.0],
        "content": "of another engine",
        "metadata": {"lang": "en", "pages": [1, 2]},
        "created_at": "2026-03-01T12:00:00.123456+00:00",
    },
    {
        "id": "0f3c2a4e-6a52-4c2a-9d5f-0a1b2c3d4e5f",
        "embedding": [0.0, 1.0, 0.0],
        "content": "",
        "metadata": {},
        "created_at": "2026-03-01T12:00:00+00:00",
        "labels": ["topic=billing"],
    },
]


async def pieces(*lines: dict[str, Any]) -> AsyncIterator[bytes]:
    """Yield lines in pieces of any length."""
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    for start in range(0, len(text), 11):
        yield text[start : start + 11]


async def test_rows_of_another_engine_are_taken_and_given_back(
    rig: WeaviateRig, engine: WeaviateEngine, place: Place
) -> None:
    await engine.ensure(place)
    assert await engine.restore(place.tenant, pieces(*LINES)) == 2
    text = b"".join([piece async for piece in engine.export(place.tenant)])
    found = {line["id"]: line for line in map(json.loads, text.splitlines())}
    for line in LINES:
        given = {key: value for key, value in line.items() if key != "created_at"}
        assert {key: found[str(line["id"])][key] for key in given} == given


async def test_rows_of_other_dimensions_are_refused(
    rig: WeaviateRig, engine: WeaviateEngine, place: Place
) -> None:
    await engine.ensure(place)
    with pytest.raises(
        Refused, match="line 1 has a vector of 2 dimensions, and the place is for 3 dimensions"
    ):
        await engine.restore(place.tenant, pieces({**LINES[0], "embedding": [1.0, 2.0]}))


async def test_a_restore_that_died_anywhere_is_done_again_from_the_beginning(
    rig: WeaviateRig, engine: WeaviateEngine, second: WeaviateEngine, place: Place
) -> None:
    await engine.ensure(place)
    many = [{**LINES[0], "id": f"row-{number}"} for number in range(450)]
    real, count = owners.put, 0

    async def put(client: Client, objects: list[dict[str, Any]]) -> None:
        nonlocal count
        if objects[0]["class"] != OWNERS:
            count += 1
            if count == 2:
                await client.close()  # nothing of this process reaches the server any more
        await real(client, objects)

    with mock.patch.object(rows, "put", put), pytest.raises(Unavailable):
        await engine.restore(place.tenant, pieces(*many))
    assert await second.restore(place.tenant, pieces(*LINES)) == 2
    text = b"".join([piece async for piece in second.export(place.tenant)])
    assert len(text.splitlines()) == 2


async def test_a_restore_that_is_not_put_on_record_is_undone(
    rig: WeaviateRig, engine: WeaviateEngine, place: Place
) -> None:
    await engine.ensure(place)

    async def unrecorded() -> None:
        raise Unavailable("the ledger is away")

    with pytest.raises(Unavailable, match="the ledger is away"):
        await engine.restore(place.tenant, pieces(*LINES), unrecorded)
    assert [piece async for piece in engine.export(place.tenant)] == []
    assert await engine.restore(place.tenant, pieces(*LINES)) == 2


async def test_records_are_read_by_pages(rig: WeaviateRig, engine: WeaviateEngine) -> None:
    for number in range(7):
        await engine.ensure(described(f"paged-{number}"))
    whole = [(record.place, record.id) for record in await engine.records()]
    for size in (1, 3, len(whole)):
        with mock.patch.object(owners, "PAGE", size):
            assert [(record.place, record.id) for record in await engine.records()] == whole


async def test_what_is_not_settled_is_made_again(
    rig: WeaviateRig, engine: WeaviateEngine, place: Place
) -> None:
    await engine.ensure(place)
    admin = Client(parse(rig.address()))
    kept = await owners.find(admin, place.tenant)
    assert kept is not None
    await owners.write(admin, replace(kept, settled=False))
    await admin.close()
    found = await engine.find(place.tenant)
    assert found is not None
    assert not found.is_as(place)
    assert (await engine.ensure(place)).is_as(place)


async def test_the_program_in_the_documentation(
    rig: WeaviateRig, engine: WeaviateEngine, place: Place, tmp_path: Path
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs/vectors.md").read_text(), re.DOTALL)
    for name, value in engine.access(await engine.ensure(place)).items():
        (tmp_path / name).write_text(value)
    environment = {**os.environ, "VECTOR_STORE": str(tmp_path)}
    found = ""
    async with asyncio.timeout(60):
        # Stored again each time, and searched: what was just written is indexed behind.
        while not found:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-W", "ignore", "-c", program),
                env=environment,
                stdout=asyncio.subprocess.PIPE,
            )
            out, _err = await process.communicate()
            assert process.returncode == 0
            found = out.decode()
    assert found == "doc-17#3 How invoices are made\n"

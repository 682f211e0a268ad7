"""What the engine of Qdrant has of its own beside the contract, on a stand-in (see `qdrant_server`)."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from unittest import mock

import jwt
import pytest
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from tenantry.adapters.engines import RealEngines
from tenantry.adapters.qdrant import rows
from tenantry.adapters.qdrant.engine import QdrantEngine
from tenantry.api.shard import EngineKind
from tenantry.domain.places import Record
from tenantry.reconcile.ports import Refused, Unavailable
from tests.integration.engines.conftest import described
from tests.integration.engines.qdrant import QdrantRig, connected, rigs


@pytest.fixture
def rig() -> Iterator[QdrantRig]:
    """A stand-in of this test's own."""
    yield from rigs()


@pytest.fixture
async def engine(rig: QdrantRig) -> AsyncIterator[QdrantEngine]:
    """An engine on it, prepared."""
    opened = QdrantEngine("one", rig.address())
    assert (await opened.prepare()).unfit is None
    yield opened
    await opened.close()


async def unfit(rig: QdrantRig) -> str:
    """Return what is wrong with the server."""
    opened = QdrantEngine("one", rig.address())
    try:
        fitness = await opened.prepare()
    finally:
        await opened.close()
    assert fitness.server == f"Qdrant {rig.server.version}"
    assert fitness.unfit is not None
    assert rig.server.key not in fitness.unfit
    return fitness.unfit


async def test_an_older_server_is_unfit(rig: QdrantRig) -> None:
    rig.server.version = "1.15.4"
    assert await unfit(rig) == "the server is Qdrant 1.15.4: use 1.16 or newer"


async def test_a_server_that_takes_no_tokens_is_unfit(rig: QdrantRig) -> None:
    rig.server.tokens = False
    assert "set service.jwt_rbac: true" in await unfit(rig)


async def test_a_server_without_an_api_key_is_unfit(rig: QdrantRig) -> None:
    rig.server.open = True
    assert "the server lets in who has no login" in await unfit(rig)


async def test_a_key_that_could_be_guessed_is_unfit(rig: QdrantRig) -> None:
    rig.server.key = rig.secret = "of-fewer-than-32-bytes"
    assert "shorter than 32 bytes" in await unfit(rig)


async def test_a_server_that_is_fit_is_looked_at_without_a_write(
    rig: QdrantRig, engine: QdrantEngine
) -> None:
    before = rig.server.writes
    assert before > 0
    assert (await engine.prepare()).unfit is None
    assert rig.server.writes == before


async def test_what_a_token_says(engine: QdrantEngine, rig: QdrantRig) -> None:
    record = await engine.ensure(described("token", generation=3))
    claims = jwt.decode(engine.access(record)["password"], rig.server.key, algorithms=["HS256"])
    assert claims == {
        "access": [{"collection": f"t_{record.id}", "access": "prw"}],
        "value_exists": {
            "collection": "tenantry_logins",
            "matches": [{"key": "login", "value": f"{record.id}/3"}],
        },
    }


async def test_an_application_reaches_its_own_collection_alone(engine: QdrantEngine) -> None:
    one, other = [await engine.ensure(described(f"reach-{name}")) for name in ("one", "other")]
    own, others = f"t_{one.id}", f"t_{other.id}"
    async with connected(engine.access(one)) as client:
        assert [each.name for each in (await client.get_collections()).collections] == [own]
        await client.upsert(own, [models.PointStruct(id=1, vector=[1.0, 0.0, 0.0])], wait=True)
        for name in (others, "tenantry_owners", "tenantry_logins"):
            point = models.PointStruct(id=1, vector=[1.0])
            for attempt in (
                client.scroll(name),
                client.upsert(name, [point]),
                client.delete(name, models.FilterSelector(filter=models.Filter())),
                client.query_points(own, 1, lookup_from=models.LookupLocation(collection=name)),
                client.delete_collection(name),
            ):
                with pytest.raises(UnexpectedResponse) as error:
                    await attempt
                assert error.value.status_code == 403
        # Of its own collection the points alone.
        for attempt in (client.create_payload_index(own, "key", "keyword"), client.delete_collection(own)):
            with pytest.raises(UnexpectedResponse) as error:
                await attempt
            assert error.value.status_code == 403


async def test_a_server_that_lets_tenants_see_others_is_told_of(rig: QdrantRig, engine: QdrantEngine) -> None:
    one, other = [await engine.ensure(described(f"seen-{name}")) for name in ("one", "other")]
    assert await engine.probe(one, [other]) == []
    rig.server.leaky = True
    assert await engine.probe(one, [other]) == [
        f"tenant seen-one sees that there are others, such as t_{other.id}",
        "tenant seen-one reads the server's metrics, which name all tenants' collections",
        "tenant seen-one reads the record of all tenants",
        "tenant seen-one reads who may log in",
        "tenant seen-one reads rows of seen-other",
    ]


async def test_a_collection_that_somebody_removed_is_made_again(engine: QdrantEngine, rig: QdrantRig) -> None:
    place = described("removed")
    record = await engine.ensure(place)
    admin = {**engine.access(record), "password": rig.server.key}
    async with connected(admin) as client:
        await client.delete_collection(f"t_{record.id}")
    await engine.ensure(place)
    assert await stored(engine, record) == []


# --- rows -----------------------------------------------------------------------------------------------------------

POINTS = [
    models.PointStruct(id=7, vector=[0.0, 3.0, 4.0], payload={"content": "seven", "page": 3}),
    models.PointStruct(
        id="0f6f1f0e-8f9d-5c39-9a43-5d1f8f0c7a11",
        vector=[1.0, 0.0, 0.0],
        payload={"key": "of the application's own making", "metadata": {"lang": "en"}, "labels": ["a"]},
    ),
    models.PointStruct(
        id=rows.point_id("doc-17#3"),
        vector=[0.0, 1.0, 0.0],
        payload={
            "key": "doc-17#3",
            "content": {"no": "text"},
            "created_at": "2026-03-01T12:00:00+00:00",
        },
    ),
]


async def stored(engine: QdrantEngine, record: Record) -> list[models.Record]:
    """Return all points of a place."""
    async with connected(engine.access(record)) as client:
        points, _ = await client.scroll(f"t_{record.id}", limit=100, with_vectors=True)
    return sorted(points, key=lambda point: str(point.id))


async def exported(engine: QdrantEngine, tenant: str) -> bytes:
    """Return a place's export."""
    return b"".join([piece async for piece in engine.export(tenant)])


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield the parts of an export."""
    for part in parts:
        yield part


async def test_points_come_back_with_all_that_they_had(engine: QdrantEngine) -> None:
    first, second = [await engine.ensure(described(f"whole-{name}")) for name in ("first", "second")]
    async with connected(engine.access(first)) as client:
        await client.upsert(f"t_{first.id}", POINTS, wait=True)
    text = await exported(engine, "whole-first")
    lines = {line["id"]: line for line in map(json.loads, text.splitlines())}
    assert set(lines) == {"7", "0f6f1f0e-8f9d-5c39-9a43-5d1f8f0c7a11", "doc-17#3"}
    assert lines["7"]["content"] == "seven"
    assert lines["7"]["embedding"] == pytest.approx([0.0, 0.6, 0.8])  # of length one
    assert lines["7"]["payload"] == {"page": 3}
    assert lines["doc-17#3"]["payload"] == {"content": {"no": "text"}}
    assert await engine.restore("whole-second", pieces(text)) == 3
    for before, after in zip(await stored(engine, first), await stored(engine, second), strict=True):
        assert after.id == before.id
        assert after.vector == pytest.approx(before.vector)
        assert (before.payload or {}).items() <= (after.payload or {}).items()


async def test_an_export_of_many_pages_is_whole(engine: QdrantEngine) -> None:
    record = await engine.ensure(described("pages"))
    with mock.patch.object(rows, "PAGE", 4):
        async with connected(engine.access(record)) as client:
            points = [models.PointStruct(id=number, vector=[1.0, 0.0, 0.0]) for number in range(10)]
            await client.upsert(f"t_{record.id}", points, wait=True)
        found = [json.loads(line)["id"] for line in (await exported(engine, "pages")).splitlines()]
    assert found == [str(number) for number in range(10)]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"{}\n", "line 2 is no row of an export"),
        (b'{"id": "b", "embedding": [1, 2]}\n', "line 2 has a vector of 2 dimensions"),
        (b'{"id": "a", "embedding": [1, 2, 3]}\n', "2 rows of the export have 1 ids"),
        (b'{"id": "b", "embedding": [1, 2, 3]}', "the last line has no end"),
    ],
)
async def test_what_is_no_export_leaves_nothing(engine: QdrantEngine, line: bytes, sentence: str) -> None:
    record = await engine.ensure(described("nothing"))
    with pytest.raises(Refused, match=sentence):
        await engine.restore("nothing", pieces(b'{"id": "a", "embedding": [1, 2, 3]}\n', line))
    assert await stored(engine, record) == []


async def test_rows_that_may_not_count_are_removed_again(engine: QdrantEngine) -> None:
    record = await engine.ensure(described("not-counted"))
    line = b'{"id": "a", "embedding": [1, 2, 3]}\n'
    seen: list[int] = []

    async def before() -> None:
        seen.append(len(await stored(engine, record)))
        raise Refused("it cannot be recorded")

    with pytest.raises(Refused, match="it cannot be recorded"):
        await engine.restore("not-counted", pieces(line), before)
    assert seen == [1]
    assert await stored(engine, record) == []
    assert await engine.restore("not-counted", pieces(line)) == 1


async def test_a_restore_that_was_interrupted_is_begun_anew(engine: QdrantEngine) -> None:
    record = await engine.ensure(described("begun"))
    lines = [b'{"id": "%d", "embedding": [1, 2, 3]}\n' % number for number in range(4)]

    async def lost(*_: object) -> None:
        raise Unavailable("the connection was lost")

    with mock.patch.object(rows, "BATCH", 1):
        # As a process that dies has no time to remove them.
        with mock.patch.object(engine, "_clear", lost), pytest.raises(Unavailable):
            await engine.restore("begun", pieces(*lines[:2], b"no row\n"))
        assert len(await stored(engine, record)) == 2
        assert await engine.restore("begun", pieces(*lines[1:])) == 3
    assert [str(point.id) for point in await stored(engine, record)] == ["1", "2", "3"]


@pytest.mark.parametrize(
    ("key", "as_it_is"),
    [
        ("0", True),
        (str((1 << 64) - 1), True),
        (str(1 << 64), False),
        ("007", False),
        ("-1", False),
        ("²", False),
        ("0f6f1f0e-8f9d-5c39-9a43-5d1f8f0c7a11", True),
        ("0F6F1F0E-8F9D-5C39-9A43-5D1F8F0C7A11", False),
        ("doc-17#3", False),
    ],
)
def test_ids_of_rows(key: str, as_it_is: bool) -> None:
    assert (str(rows.point_id(key)) == key) is as_it_is


def test_without_its_library_the_engine_says_what_to_install() -> None:
    gone = {
        name: None for name in sys.modules if name.startswith(("qdrant_client", "tenantry.adapters.qdrant"))
    }
    present = {name: module for name, module in sys.modules.items() if name not in gone}
    with (
        mock.patch.dict(sys.modules, {**present, "qdrant_client": None}, clear=True),
        pytest.raises(Refused, match=r"install tenantry\[qdrant\]"),
    ):
        RealEngines().open("one", EngineKind.QDRANT, "https://user:key@qdrant.example")

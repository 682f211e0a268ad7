"""Vectors of deleted tenants: closed, exported and removed in this order, and nothing of anybody else's with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from tenantry.api.common import rfc3339
from tenantry.domain import names
from tenantry.domain.places import PlaceState
from tenantry.reconcile.exports import Exported, Source
from tenantry.reconcile.result import Key
from tests.faults.simulated.faults import Crash, DiesAt, Write
from tests.faults.simulated.flows import archive_name
from tests.faults.simulated.vector_flows import ROWS, VECTORS, archived, placed, placed_to_be_removed
from tests.faults.simulated.world import World
from tests.memory_engine import MemoryStore


def archive(world: World) -> dict[str, Any]:
    return world.found("TenantArchive", archive_name(world))


def stands(world: World) -> tuple[str, str] | None:
    return world.condition("Ready", archive_name(world), "TenantArchive")


async def without_store(world: World) -> World:
    world.store = None
    world.restart()
    await world.settle()
    return world


async def purge(world: World) -> None:
    world.clock.turn(days=31)
    await world.settle()


async def test_a_place_that_is_kept_lets_nobody_in_and_loses_nothing() -> None:
    world = await archived()
    server = world.server("shard-a")
    record = server.records["acme"]
    assert (record.place.state, record.place.open, record.place.previous) == (
        PlaceState.ARCHIVED,
        False,
        False,
    )
    assert server.rows["acme"].keys() == set(ROWS)
    assert stands(world) == ("True", "Ready")


async def test_a_new_customer_of_the_name_leaves_no_door_open_to_the_old_one() -> None:
    world = await placed()
    world.api.delete("Tenant", "acme")
    world.deliver()
    await world.reconcile(Key("Tenant", "acme"))  # nobody has time for the archive
    world.tenant(**VECTORS, owner={"email": "new@else.example"}, namespace={"name": "elsewhere"})
    await world.settle()
    assert world.condition("ShardReady") == ("False", "RestoreNotAllowed")
    server = world.server("shard-a")
    assert (server.records["acme"].place.state, server.records["acme"].place.open) == (
        PlaceState.ARCHIVED,
        False,
    )
    assert server.rows["acme"].keys() == set(ROWS)
    world.api.delete("TenantArchive", archive_name(world))
    await world.settle()
    assert world.servers.store.rows() == set(ROWS)
    assert world.condition("ShardReady") == ("True", "Ready")
    assert server.rows["acme"] == {}


async def test_who_comes_back_at_the_very_moment_is_not_shut_out() -> None:
    world = await placed()
    server = world.server("shard-a")
    world.api.delete("Tenant", "acme")
    world.deliver()
    await world.reconcile(Key("Tenant", "acme"))  # nobody has time for the archive
    taken = replace(server.records["acme"], place=replace(server.records["acme"].place, uid="the-next-one"))
    server.records["acme"] = taken  # by a Tenant of whom the archive has not heard
    archived_as = Key("TenantArchive", archive_name(world))
    world.deliver()
    await world.reconcile(archived_as)
    assert server.records["acme"] == taken


async def test_who_comes_back_finds_what_was_kept() -> None:
    world = await archived()
    world.tenant(**VECTORS)
    await world.settle()
    server = world.server("shard-a")
    assert (server.records["acme"].place.state, server.records["acme"].place.open) == (PlaceState.OWNER, True)
    assert server.rows["acme"].keys() == set(ROWS)
    assert world.condition("ShardReady") == ("True", "Ready")
    assert archive(world)["status"]["phase"] == "Restored"
    assert world.servers.store.exports == {}


async def test_a_purge_exports_what_it_removes_and_names_the_export() -> None:
    world = await archived()
    kept = archive(world)
    await purge(world)
    ((name, (made, _)),) = world.servers.store.exports.items()
    assert name == f"acme/{kept['metadata']['uid']}-1"
    assert world.servers.store.rows() == set(ROWS)
    (entry,) = archive(world)["status"]["exports"]
    assert entry == {
        "shard": "shard-a",
        "epoch": 1,
        "url": made.url,
        "rows": len(ROWS),
        "bytes": made.size,
        "sha256": made.sha256,
        "finishedAt": rfc3339(made.finished),
    }
    assert archive(world)["status"]["phase"] == "Purged"
    server = world.server("shard-a")
    assert (server.records, server.rows) == ({}, {})
    assert world.api.get("Namespace", "tenant-acme") is None
    actions = world.audit.actions()
    assert [item for item in actions if item in ("Purging", "Exported", "Purged")] == [
        *("Purging", "Exported", "Purged")
    ]


async def test_a_deleted_archive_exports_too() -> None:
    world = await archived()
    world.api.delete("TenantArchive", archive_name(world))
    await world.settle()
    assert world.api.list("TenantArchive") == []
    assert world.servers.store.rows() == set(ROWS)
    assert world.server("shard-a").records == {}


class DiesAfter(DiesAt):
    """The process dies after its next write of that verb to that kind."""

    def before(self, write: Write) -> None:
        """Let it through."""

    def after(self, write: Write) -> None:
        """Die."""
        super().before(write)


@pytest.mark.parametrize("verb", ["export", "status", "empty", "remove"])
@pytest.mark.parametrize("dies", [DiesAt, DiesAfter])
async def test_a_crash_at_any_step_ends_with_one_export_and_no_rows(verb: str, dies: type[DiesAt]) -> None:
    world = await archived()
    world.process.fault = dies(verb, "TenantArchive" if verb == "status" else "Place")
    world.clock.turn(days=31)
    with pytest.raises(Crash):
        await world.settle()
    world.restart()
    await world.settle()
    assert world.servers.store.rows() == set(ROWS)
    assert len(world.servers.store.written) == len(world.servers.store.exports) == 1
    assert world.server("shard-a").records == {}
    (entry,) = archive(world)["status"]["exports"]
    assert entry["rows"] == len(ROWS)


# --- no store ----------------------------------------------------------------------------------------------------


async def test_without_a_store_a_purge_waits_and_says_what_to_do() -> None:
    world = await without_store(await archived())
    await purge(world)
    assert stands(world) == ("False", "NoExportStore")
    ready = next(item for item in archive(world)["status"]["conditions"] if item["type"] == "Ready")
    assert "TENANTRY_EXPORT_URL" in ready["message"]
    assert f"{names.WITHOUT_EXPORT}=true" in ready["message"]
    assert world.server("shard-a").rows["acme"].keys() == set(ROWS)
    assert world.api.get("Namespace", "tenant-acme") is not None


async def test_who_says_so_purges_without_an_export() -> None:
    world = await without_store(await archived())
    await purge(world)
    world.edit("TenantArchive", archive_name(world), metadata={"annotations": {names.WITHOUT_EXPORT: "true"}})
    await world.settle()
    assert archive(world)["status"]["phase"] == "Purged"
    assert world.server("shard-a").records == {}
    assert world.servers.store.exports == {}


async def test_a_store_that_is_set_later_gets_what_waited() -> None:
    world = await without_store(await archived())
    await purge(world)
    world.store = world.servers.store
    world.restart()
    world.relist()
    await world.settle()
    assert archive(world)["status"]["phase"] == "Purged"
    assert world.servers.store.rows() == set(ROWS)


async def test_an_empty_place_needs_no_store() -> None:
    world = await archived()
    world.server("shard-a").rows["acme"].clear()
    await without_store(world)
    await purge(world)
    assert archive(world)["status"]["phase"] == "Purged"
    assert "exports" not in archive(world)["status"]


# --- trouble -----------------------------------------------------------------------------------------------------


async def test_a_store_that_fails_is_tried_again_and_nothing_is_removed() -> None:
    world = await archived()
    world.servers.store.failing = "cannot write s3://exports: no space"
    await purge(world)
    assert stands(world) == ("False", "ExportFailed")
    assert world.server("shard-a").rows["acme"].keys() == set(ROWS)
    world.servers.store.failing = ""
    await world.settle(timedelta(minutes=5))
    assert archive(world)["status"]["phase"] == "Purged"
    assert world.servers.store.rows() == set(ROWS)


async def test_a_shard_that_is_down_keeps_a_purge_waiting_and_the_namespace_with_it() -> None:
    world = await archived()
    world.server("shard-a").down = True
    world.clock.turn(minutes=1)
    await world.settle()
    await purge(world)
    assert stands(world) == ("False", "ShardUnavailable")
    assert world.api.get("Namespace", "tenant-acme") is not None
    world.server("shard-a").down = False
    world.relist()
    await world.settle(timedelta(minutes=5))
    assert archive(world)["status"]["phase"] == "Purged"
    assert world.server("shard-a").records == {}


async def test_a_shard_that_was_never_read_may_hold_vectors() -> None:
    world = await archived()
    for shard in ("shard-a", "shard-b"):
        world.server(shard).down = True
    world.restart()
    await purge(world)
    assert stands(world) == ("False", "ShardUnknown")
    for shard in ("shard-a", "shard-b"):
        world.server(shard).down = False
    world.relist()
    await world.settle(timedelta(minutes=5))
    assert archive(world)["status"]["phase"] == "Purged"
    assert world.servers.store.rows() == set(ROWS)


async def test_a_copy_that_a_move_has_left_is_removed_and_not_exported() -> None:
    world = await placed()
    world.move("shard-b")
    for _ in range(5):
        await world.settle(timedelta(seconds=30))
    assert world.server("shard-b").records["acme"].place.state is PlaceState.OWNER
    assert "acme" in world.server("shard-a").records
    world.api.delete("Tenant", "acme")
    await world.settle()
    world.api.delete("TenantArchive", archive_name(world))
    await world.settle()
    assert [made.source.shard for made, _ in world.servers.store.exports.values()] == ["shard-b"]
    assert world.server("shard-a").records == world.server("shard-b").records == {}


class Slow(MemoryStore):
    """A store that takes its time."""

    def __init__(self) -> None:
        super().__init__(lambda: lambda *_: nullcontext())
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def put(
        self, source: Source, lines: AsyncGenerator[bytes, None], now: Callable[[], datetime]
    ) -> Exported:
        """Wait until the test says so."""
        self.began.set()
        await self.go_on.wait()
        return await super().put(source, lines, now)


async def test_a_large_export_goes_on_behind_and_wakes_its_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenantry.reconcile.purge.WAIT_SECONDS", 0.01)
    world = await archived()
    world.store = slow = Slow()
    world.restart()
    await world.settle()
    await purge(world)
    assert stands(world) == ("False", "Exporting")
    assert world.server("shard-a").rows["acme"].keys() == set(ROWS)
    await world.settle(timedelta(minutes=5))
    assert slow.began.is_set()
    assert slow.written == []
    world.process.due.clear()
    slow.go_on.set()
    await world.cx.exports.finish()
    assert list(world.process.due) == [Key("TenantArchive", archive_name(world))]
    await world.settle()
    assert archive(world)["status"]["phase"] == "Purged"
    assert slow.rows() == set(ROWS)
    assert len(slow.written) == 1


async def test_a_leader_that_stops_ends_its_exports_and_the_next_one_makes_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tenantry.reconcile.purge.WAIT_SECONDS", 0.01)
    world = await archived()
    world.store = slow = Slow()
    world.restart()
    await purge(world)
    await world.cx.exports.close()
    assert slow.written == []
    slow.go_on.set()
    world.restart()
    world.relist()
    await world.settle()
    assert archive(world)["status"]["phase"] == "Purged"
    assert len(slow.written) == 1


# --- only what is its own -----------------------------------------------------------------------------------------


async def test_a_tenant_that_took_its_vectors_back_keeps_them_when_its_first_archive_goes() -> None:
    world = await archived()
    world.tenant(**VECTORS)
    await world.settle()
    world.api.delete("TenantArchive", archive_name(world))
    await world.settle()
    await purge(world)
    assert world.server("shard-a").rows["acme"].keys() == set(ROWS)
    assert world.servers.store.exports == {}


async def test_a_tenant_does_not_get_what_is_being_purged() -> None:
    world = await without_store(await archived())
    await purge(world)
    world.tenant(**VECTORS, namespace={"name": "elsewhere"})
    await world.settle()
    assert world.condition("ShardReady") == ("False", "ArchivePurging")
    world.edit("TenantArchive", archive_name(world), metadata={"annotations": {names.WITHOUT_EXPORT: "true"}})
    await world.settle()
    assert world.condition("ShardReady") == ("True", "Ready")
    assert world.server("shard-a").rows["acme"] == {}


async def test_vectors_without_a_namespace_are_kept_and_purged_too() -> None:
    world = await archived()
    world.api.delete("Namespace", "tenant-acme")
    await world.settle()
    assert world.api.get("Namespace", "tenant-acme") is None
    assert stands(world) == ("True", "Ready")
    assert archive(world)["status"]["phase"] == "Kept"
    assert world.server("shard-a").rows["acme"].keys() == set(ROWS)
    await purge(world)
    assert archive(world)["status"]["phase"] == "Purged"
    assert world.servers.store.rows() == set(ROWS)
    assert world.server("shard-a").records == {}


async def test_a_tenant_whose_namespace_is_somebody_elses_leaves_an_archive_of_its_vectors() -> None:
    world = await placed()
    world.api.delete("Tenant", "acme")
    world.api.delete("Namespace", "tenant-acme")
    await world.settle()
    assert archive(world)["status"]["phase"] == "Kept"
    assert world.server("shard-a").records["acme"].place.state is PlaceState.ARCHIVED


async def test_delete_removes_vectors_and_exports_nothing() -> None:
    world = await placed_to_be_removed()
    world.api.delete("Tenant", "acme")
    await world.settle()
    assert world.api.get("Tenant", "acme") is None
    assert world.api.list("TenantArchive") == []
    server = world.server("shard-a")
    assert (server.records, server.rows, world.servers.store.exports) == ({}, {}, {})


async def test_delete_waits_for_a_shard_that_is_down() -> None:
    world = await placed_to_be_removed()
    world.server("shard-a").down = True
    world.clock.turn(minutes=1)
    await world.settle()
    world.api.delete("Tenant", "acme")
    await world.settle()
    assert world.condition("ShardReady") == ("False", "ShardUnavailable")
    world.server("shard-a").down = False
    world.relist()
    await world.settle(timedelta(minutes=5))
    assert world.api.get("Tenant", "acme") is None
    assert world.server("shard-a").records == {}


async def test_vectors_that_a_tenant_never_got_back_stay_with_their_archive() -> None:
    world = await archived()
    world.server("shard-a").down = True
    world.clock.turn(minutes=1)
    await world.settle()
    world.tenant(**VECTORS, deletionPolicy="Delete")
    await world.settle()
    assert archive(world)["status"]["phase"] == "Kept"
    world.api.delete("Tenant", "acme")
    await world.settle()
    world.server("shard-a").down = False
    world.relist()
    await world.settle(timedelta(minutes=5))
    assert world.api.get("Tenant", "acme") is None
    assert world.server("shard-a").rows["acme"].keys() == set(ROWS)
    await purge(world)
    assert archive(world)["status"]["phase"] == "Purged"
    assert world.servers.store.rows() == set(ROWS)
    assert world.server("shard-a").records == {}


async def test_a_new_customer_with_a_new_namespace_does_not_end_what_is_kept_of_the_old_one() -> None:
    world = await archived()
    world.api.delete("Namespace", "tenant-acme")
    await world.settle()
    world.tenant(**VECTORS, owner={"email": "new@else.example"})
    await world.settle()
    assert archive(world)["status"]["phase"] == "Kept"
    assert world.condition("ShardReady") == ("False", "RestoreNotAllowed")
    await purge(world)
    assert archive(world)["status"]["phase"] in ("Restored", "Purged")
    assert world.servers.store.rows() == set(ROWS)
    assert world.condition("ShardReady") == ("True", "Ready")
    assert world.api.get("Namespace", "tenant-acme") is not None


async def test_a_shard_that_is_gone_is_named() -> None:
    world = await archived()
    world.api.delete("VectorShard", "shard-a")
    world.restart()
    await purge(world)
    assert stands(world) == ("False", "ShardNotFound")
    world.edit("TenantArchive", archive_name(world), metadata={"annotations": {names.WITHOUT_EXPORT: "true"}})
    await world.settle()
    assert archive(world)["status"]["phase"] == "Purged"

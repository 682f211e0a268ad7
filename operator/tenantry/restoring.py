"""`tenantry restore`: list exports of vectors, and bring one back into a tenant's place.

It works with the rights of whoever calls it: to read the Tenant, its VectorShard and the Secret of that, and with the
credentials of the store that are in the environment. The operator has no part in it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from tenantry.adapters.exports import FsspecStore
    from tenantry.adapters.kubernetes.client import Client
    from tenantry.api.shard import VectorShard
    from tenantry.api.tenant import Tenant
    from tenantry.domain.audit import AuditEntry
    from tenantry.reconcile.exports import Exported
    from tenantry.reconcile.ports import AuditLog, Objects
    from tenantry.settings import Settings


class Output(StrEnum):
    """How a list is printed."""

    TABLE = "table"
    JSON = "json"


class RestoreFailed(Exception):  # noqa: N818 - reads as what has happened
    """Nothing was restored; `str()` is a sentence with the next step."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where an export is to go: a tenant, its shard and the server's address, which is a secret."""

    tenant: Tenant
    shard: VectorShard
    address: str


def restore(
    url: Annotated[
        str | None,
        typer.Argument(
            help="URL of the export, as status.exports of the TenantArchive has it.", show_default=False
        ),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="The tenant that gets the vectors.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the exports in the store instead.")] = False,
    force: Annotated[bool, typer.Option(help="Also where the export is of another owner.")] = False,
    output: Annotated[Output, typer.Option("--output", "-o", help="Format of the list.")] = Output.TABLE,
    kubeconfig: Annotated[
        str | None, typer.Option(envvar="KUBECONFIG", help="Kubeconfig of the cluster. In a pod: not needed.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Bring exported vectors back into the empty place of a tenant, or list the exports.

    The export is verified as it is read: where its checksum or its number of rows is wrong, nothing is restored. With
    --list the store is the one that TENANTRY_EXPORT_URL names, or URL.
    """
    from tenantry.cli import fail, load_settings
    from tenantry.reconcile.exports import StoreFailed

    settings = load_settings()
    try:
        if list_:
            _print(_listed(url or settings.export_url, tenant), output)
            return
        if url is None or tenant is None:
            raise typer.BadParameter("give the URL of an export and --tenant, or --list")
        typer.echo(asyncio.run(_restore(url, tenant, settings, (kubeconfig, context), force=force)))
    except (RestoreFailed, StoreFailed) as error:
        raise fail(str(error)) from None
    if settings.database_url is None:
        typer.echo("not in the audit log: TENANTRY_DATABASE_URL names no ledger", err=True)


def _listed(url: str, tenant: str | None) -> list[Exported]:
    from tenantry.adapters.exports import FsspecStore

    if not url:
        raise RestoreFailed("no store is named: set TENANTRY_EXPORT_URL, or give its URL")
    return [item for item in FsspecStore(url).list() if tenant in (None, item.source.tenant)]


def _print(exports: list[Exported], output: Output) -> None:
    from rich.console import Console
    from rich.table import Table

    from tenantry.api.common import rfc3339

    if output is Output.JSON:
        records = [{**asdict(item), "finished": rfc3339(item.finished)} for item in exports]
        typer.echo(json.dumps(records, indent=2))
        return
    table = Table("Tenant", "Rows", "Bytes", "Finished", "URL", box=None)
    for item in exports:
        cells = (item.source.tenant, str(item.rows), str(item.size), rfc3339(item.finished), item.url)
        table.add_row(*cells)
    Console(highlight=False, width=None if typer.get_text_stream("stdout").isatty() else 400).print(table)


async def _restore(
    url: str, tenant: str, settings: Settings, cluster: tuple[str | None, str | None], *, force: bool
) -> str:
    """Bring an export back; return a sentence that says what was done. Raises RestoreFailed or StoreFailed."""
    from tenantry.adapters.exports import FsspecStore
    from tenantry.adapters.kubernetes.client import Client, ConnectionFailed, configure
    from tenantry.adapters.kubernetes.objects import ApiObjects
    from tenantry.reconcile.ports import Refused, Unavailable

    store = await asyncio.to_thread(FsspecStore, url)
    export = await asyncio.to_thread(store.open)
    try:
        client = Client(await configure(*cluster))
    except ConnectionFailed as error:
        raise RestoreFailed(str(error)) from error
    try:
        objects = ApiObjects(client, lambda: False, lambda _: None, lambda *_: None)
        target = await find_target(objects, tenant, settings.own_namespace)
        check_owner(export, target.tenant, force=force)
        who = await _caller(client)
        async with _audit_log(settings.database_url) as log:

            async def record() -> None:
                if log is not None:
                    await log.record([_entry(export, target, who)])

            return await bring_back(store, export, target, record)
    except (Refused, Unavailable) as error:
        raise RestoreFailed(f"nothing is restored: {error}") from error
    finally:
        await client.close()


async def find_target(objects: Objects, tenant: str, namespace: str) -> Target:
    """Return where a tenant's place is. namespace: of the shards' Secrets. Raises RestoreFailed."""
    from tenantry.api.shard import VectorShard
    from tenantry.api.tenant import Tenant

    raw = await objects.get("Tenant", tenant)
    if raw is None or raw["metadata"].get("deletionTimestamp"):
        raise RestoreFailed(f"there is no Tenant {tenant}: apply it first, so that it has a place")
    subject = Tenant.model_validate(raw)
    placement = subject.status.placement
    if placement is None:
        raise RestoreFailed(f"Tenant {tenant} has no place on a VectorShard yet: wait until it is Ready")
    found = await objects.get("VectorShard", placement.shard)
    if found is None:
        raise RestoreFailed(
            f"Tenant {tenant} is on VectorShard {placement.shard}, which does not exist: apply it"
        )
    shard = VectorShard.model_validate(found)
    ref = shard.spec.connection.secret_ref
    secret: dict[str, Any] = await objects.get("Secret", ref.name, namespace) or {}
    encoded = secret.get("data", {}).get(ref.key)
    if encoded is None:
        raise RestoreFailed(
            f"VectorShard {placement.shard} names Secret {ref.name} with key {ref.key}, which is not in namespace "
            f"{namespace}: name the namespace by TENANTRY_OWN_NAMESPACE"
        )
    return Target(subject, shard, base64.b64decode(encoded).decode().strip())


def check_owner(export: Exported, tenant: Tenant, *, force: bool) -> None:
    """Raise RestoreFailed where a customer would be given another one's vectors."""
    from tenantry.domain.ownership import address_digest

    if force or address_digest(tenant.spec.owner.email) == export.source.owner:
        return
    raise RestoreFailed(
        f"the export is of Tenant {export.source.tenant} with another owner than Tenant {tenant.metadata.name} "
        f"({tenant.spec.owner.email}): give --force if that owner may have the vectors"
    )


@asynccontextmanager
async def _audit_log(url: str | None) -> AsyncIterator[AuditLog | None]:
    """Open the audit log of the ledger; None: there is no ledger. Raises RestoreFailed."""
    from tenantry.adapters.ledger import LedgerError, open_ledger

    if url is None:
        yield None
        return
    try:
        ledger = await open_ledger(url)
    except LedgerError as error:
        raise RestoreFailed(f"nothing is restored, since it could not be recorded: {error}") from error
    try:
        yield ledger.audit
    finally:
        await ledger.close()


async def _caller(client: Client) -> str:
    """Return who calls, by the name that the API server knows; unknown where it does not say."""
    from tenantry.reconcile.ports import Refused

    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await client.send("POST", f"/apis/{review['apiVersion']}/selfsubjectreviews", body=review)
    except (LookupError, Refused):
        return "unknown"
    return str(answer["status"]["userInfo"].get("username", "unknown"))


def _entry(export: Exported, target: Target, who: str) -> AuditEntry:
    """Return the audit row. Each restore is one of its own: the place was emptied in between."""
    from tenantry.domain.audit import AuditEntry
    from tenantry.domain.reasons import Action

    metadata, now = target.tenant.metadata, datetime.now(UTC)
    return AuditEntry(
        identity=f"{metadata.uid}/vectorsrestored@{now.isoformat()}",
        at=now,
        actor=who,
        action=Action.VECTORS_RESTORED,
        kind="Tenant",
        name=metadata.name,
        uid=metadata.uid,
        tenant=metadata.name,
        after={"url": export.url, "rows": export.rows, "sha256": export.sha256},
        message=_said(export, target),
    )


def _said(export: Exported, target: Target) -> str:
    where = f"Tenant {target.tenant.metadata.name} on VectorShard {target.shard.metadata.name}"
    return f"restored {export.rows} vectors of Tenant {export.source.tenant} from {export.url} to {where}"


async def bring_back(
    store: FsspecStore, export: Exported, target: Target, record: Callable[[], Awaitable[None]]
) -> str:
    """Copy the rows; return a sentence that says what was done. record: puts that into the audit log.

    Raises RestoreFailed, StoreFailed, Refused or Unavailable; the place is empty then, as it was.
    """
    from tenantry.adapters.engines import RealEngines
    from tenantry.domain.places import PlaceState

    name, shard = target.tenant.metadata.name, target.shard.metadata.name
    engine = RealEngines().open(shard, target.shard.spec.engine, target.address)
    try:
        found = await engine.find(name)
        if found is None or found.place.state is not PlaceState.OWNER:
            raise RestoreFailed(
                f"VectorShard {shard} has no place of Tenant {name} that takes writes: wait for it"
            )
        shape, source = found.place.shape, export.source
        if (source.dimensions, source.type) != (shape.dimensions, str(shape.type)):
            raise RestoreFailed(
                f"the export has vectors of {source.dimensions} dimensions ({source.type}), and Tenant {name} has "
                f"{shape}: set spec.vectorStore of the Tenant to dimensions {source.dimensions} and type "
                f"{source.type}"
            )
        # On record before it counts: what is there afterwards has its row.
        await engine.restore(name, store.lines(export), record)
    finally:
        await engine.close()
    return _said(export, target)

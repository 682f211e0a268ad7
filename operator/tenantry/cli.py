"""The `tenantry` command.

What only one command needs is imported by that command: Kubernetes' client, Kopf and SQLAlchemy take two seconds.
"""

from __future__ import annotations

import asyncio
import csv
import json
import logging
import sys
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from tenantry import rebalancing, restoring
from tenantry.local import commands

if TYPE_CHECKING:
    from tenantry.domain.audit import AuditEntry
    from tenantry.settings import Settings

FAILED = 1

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tenantry: the business side and the isolation of a multi-tenant SaaS, on Kubernetes.",
)
app.command("up")(commands.up)
app.command("down")(commands.down)
app.command("status")(commands.status)
app.command("restore", epilog="Exit codes: 0 done, 1 failed and nothing is restored, 2 wrong usage.")(
    restoring.restore
)
app.command("rebalance", epilog=rebalancing.EPILOG)(rebalancing.rebalance)


class Output(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def fail(message: str) -> typer.Exit:
    """Print one line on stderr; return what ends the command with exit code 1."""
    typer.echo(f"error: {message}", err=True)
    return typer.Exit(FAILED)


def load_settings() -> Settings:
    """Read the settings; ends the command with one line where one makes no sense."""
    from tenantry.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "TENANTRY_" + "_".join(str(part) for part in first["loc"]).upper()
        raise fail(f"{name}: {first['msg']} (it is {first['input']!r})") from None


@app.command(epilog="Exit codes: 0 stopped by SIGTERM, 1 failed, 2 wrong usage.")
def run(
    kubeconfig: Annotated[
        str | None, typer.Option(envvar="KUBECONFIG", help="Kubeconfig of the cluster. In a pod: not needed.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig.")] = None,
) -> None:
    """Run the operator against a cluster until it is stopped."""
    import uvloop

    from tenantry.adapters.kubernetes.client import ConnectionFailed
    from tenantry.adapters.ledger import LedgerError
    from tenantry.reconcile.exports import StoreFailed

    settings = load_settings()
    _log(settings.log_level)
    try:
        uvloop.run(_run(settings, kubeconfig, context))
    except (ConnectionFailed, LedgerError, StoreFailed, OSError) as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except Exception as error:
        # A pod is started again; what happened is one line here, and all of it under TENANTRY_LOG_LEVEL=DEBUG.
        logging.getLogger(__name__).debug("The operator failed", exc_info=True)
        raise fail(f"the operator stops: {_innermost(error)}") from None


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


async def _run(settings: Settings, kubeconfig: str | None, context: str | None) -> None:
    from tenantry.adapters.kubernetes.client import configure
    from tenantry.adapters.ledger import open_ledger
    from tenantry.runtime.operator import Operator, prepare_state_dir

    configuration = await configure(kubeconfig, context)
    if settings.database_url is None:
        prepare_state_dir(settings.state_dir)
    ledger = await open_ledger(settings.ledger_url)
    try:
        await Operator(settings, configuration, ledger).run()
    finally:
        await ledger.close()


@app.command(epilog="Exit codes: 0 done, 1 failed, 2 wrong usage.")
def audit(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant.")] = None,
    days: Annotated[float | None, typer.Option(help="Only the last so many days.", min=0)] = None,
    limit: Annotated[int, typer.Option(help="At most so many entries.", min=1)] = 100,
    output: Annotated[Output, typer.Option("--output", "-o", help="Format.")] = Output.TABLE,
) -> None:
    """Show who changed what, newest first."""
    from tenantry.adapters.ledger import LedgerError
    from tenantry.reconcile.ports import Unavailable

    settings = load_settings()
    since = datetime.now(UTC) - timedelta(days=days) if days is not None else None
    try:
        entries = asyncio.run(_entries(_present_ledger(settings), tenant, since, limit))
    except (LedgerError, Unavailable) as error:
        raise fail(str(error)) from None
    _print(entries, output)


def _present_ledger(settings: Settings) -> str:
    """Return the ledger's URL; of SQLite only a file that is there, also that of `tenantry up` in its folder."""
    if settings.database_url is not None:
        return settings.database_url
    for folder in (settings.state_dir, settings.state_dir / "operator"):
        if (folder / "ledger.db").exists():
            return f"sqlite:///{folder / 'ledger.db'}"
    raise fail(
        f"no ledger in {settings.state_dir}: name its folder in TENANTRY_STATE_DIR or a database in "
        f"TENANTRY_DATABASE_URL"
    )


async def _entries(url: str, tenant: str | None, since: datetime | None, limit: int) -> list[AuditEntry]:
    from tenantry.adapters.ledger import open_ledger

    ledger = await open_ledger(url)
    try:
        return await ledger.audit.entries(tenant, since, limit)
    finally:
        await ledger.close()


COLUMNS = ("at", "actor", "action", "object", "message")
NARROWEST = 140  # columns of a table that is piped somewhere


def _print(entries: list[AuditEntry], output: Output) -> None:
    if output is Output.JSON:
        typer.echo(json.dumps([_record(entry) for entry in entries], indent=2, ensure_ascii=False))
        return
    rows = [[_record(entry)[column] for column in COLUMNS] for entry in entries]
    if output is Output.CSV:
        csv.writer(sys.stdout).writerows([COLUMNS, *rows])
        return
    table = Table(box=None)
    for column in COLUMNS:
        table.add_column(column.capitalize(), no_wrap=column in ("at", "action"), overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, width=None if sys.stdout.isatty() else NARROWEST).print(table)


def _record(entry: AuditEntry) -> dict[str, Any]:
    return {
        "at": entry.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "actor": entry.actor,
        "action": entry.action,
        "kind": entry.kind,
        "name": entry.name,
        "object": f"{entry.kind}/{entry.name}",
        "uid": entry.uid,
        "tenant": entry.tenant,
        "message": entry.message,
        "before": entry.before,
        "after": entry.after,
    }


def _log(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    for chatty in ("kopf", "alembic", "aiohttp.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def main() -> None:
    """Run the command line."""
    app()

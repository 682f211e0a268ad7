"""What `tenantry up` and `tenantry status` print for people."""

from __future__ import annotations

import shlex
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tenantry.local.environment import default_state_dir
from tenantry.local.status import Status, TenantRow

_COLOURS = {"Ready": "green", "Suspended": "yellow", "Degraded": "red", "True": "green", "False": "red"}


def print_tenants(console: Console, status: Status) -> None:
    """Print a table of the tenants, and why one is not Ready."""
    if not status.tenants:
        console.print("no tenants", style="dim")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    sharded = any(row.shard for row in status.tenants)
    shard = ("SHARD",) if sharded else ()
    for heading in ("TENANT", "PLAN", "PHASE", "NAMESPACE", *shard, "READY", "READY IN", "AGE"):
        table.add_column(heading, no_wrap=True)
    now = datetime.now(UTC)
    for row in status.tenants:
        table.add_row(
            row.name,
            row.plan,
            _coloured(row.phase),
            row.namespace,
            *((row.shard,) if sharded else ()),
            _coloured(row.ready),
            _time_to_ready(row),
            _duration(now - row.created),
        )
    console.print(table, soft_wrap=True)
    for row in status.tenants:
        if row.ready == "False":
            console.print(f"{row.name}: {row.message}", style="yellow", soft_wrap=True)


def print_parts(console: Console, status: Status) -> None:
    """Print a table of the daemons."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("PART", "PID", "LOG"):
        table.add_column(heading, no_wrap=True)
    for part in status.parts:
        state = Text(str(part.pid)) if part.pid else Text("stopped", style="red")
        table.add_row(part.name, state, str(part.log))
    console.print(table, soft_wrap=True)


def print_next_steps(console: Console, status: Status) -> None:
    """Print the commands to look further, ready to paste."""
    kubectl = "kubectl" if shutil.which("kubectl") else shlex.quote(str(status.kubectl))
    # A tenant of the middle plan shows most.
    shown = next((row for row in status.tenants if row.plan == "pro" and row.namespace), None)
    lines = [f"export KUBECONFIG={shlex.quote(str(status.kubeconfig))}", f"{kubectl} get tenants"]
    if shown:
        lines += [
            f"{kubectl} describe tenant {shown.name}",
            f"{kubectl} get quota,limitrange,networkpolicy,rolebinding,configmap -n {shown.namespace}",
        ]
    if shown and shown.shard:
        lines.append(f"{kubectl} get vectorshards")
        example = Path("examples/rag/app.py")
        if example.exists():
            found = "" if kubectl == "kubectl" else f"KUBECTL={kubectl} "
            lines.append(f"{found}{_short(Path(sys.executable))} {example} --tenant {shown.name}")
    if status.operator_port:
        lines.append(f"curl http://127.0.0.1:{status.operator_port}/metrics")
    if status.state_dir != default_state_dir():
        lines.append(f"export TENANTRY_STATE_DIR={shlex.quote(str(status.state_dir))}")
    tenantry = "tenantry" if shutil.which("tenantry") else _own_path()
    lines += [f"{tenantry} {command}" for command in ("audit", "status", "down")]
    console.print("\nTo look further:", style="bold")
    for line in lines:
        console.print(f"  {line}", highlight=False, soft_wrap=True, markup=False)


def _own_path() -> str:
    """Return how this command was called."""
    return _short(Path(sys.argv[0]).absolute())


def _short(path: Path) -> str:
    """Return a path for a shell, short where it lies below the present folder."""
    return shlex.quote(str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path))


def _coloured(word: str) -> Text:
    return Text(word, style=_COLOURS.get(word, ""))


def _time_to_ready(row: TenantRow) -> str:
    """Return what Kubernetes' whole seconds can tell."""
    if row.ready_since is None:
        return ""
    seconds = (row.ready_since - row.created).total_seconds()
    return "<1s" if seconds < 1 else f"{seconds:.0f}s"


def _duration(age: timedelta) -> str:
    """Return an age as kubectl writes it: 5s, 12m, 3h, 9d."""
    seconds = max(0, int(age.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"

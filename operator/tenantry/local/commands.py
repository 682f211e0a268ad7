"""`tenantry up`, `tenantry down` and `tenantry status`.

Exit codes: 0 done (of status: everything runs), 1 failed, 2 wrong usage, 3 (of status) not everything runs,
130 interrupted.

`tenantry run` has these commands beside it, in an image too: what they need they import themselves.
"""

from __future__ import annotations

import json
import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tenantry.local.errors import LocalError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)

FAILED, NOT_RUNNING, INTERRUPTED = 1, 3, 130


class Output(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"


StateDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the environment. Default: TENANTRY_STATE_DIR, else ~/.local/state/tenantry.",
        show_default=False,
    ),
]


@app.command(epilog="Exit codes: 0 everything runs, 1 failed, 2 wrong usage, 130 interrupted.")
def up(
    state_dir: StateDir = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the API server. Default: a free one.", min=1, max=65535)
    ] = None,
    operator: Annotated[bool, typer.Option("--operator/--no-operator", help="Run the operator.")] = True,
    tenants: Annotated[bool, typer.Option("--tenants/--no-tenants", help="Create plans and tenants.")] = True,
    shards: Annotated[
        int, typer.Option(help="Vector shards: PostgreSQL servers with pgvector.", min=0, max=9)
    ] = 2,
) -> None:
    """Start a Kubernetes control plane and the operator on this machine, with tenants to look at.

    Needs neither containers nor root. The first time it builds the control plane from source, which takes
    some minutes; after that it takes seconds. What runs already is kept, what has died is started again.
    """
    from tenantry.local.environment import Environment, default_state_dir
    from tenantry.local.tables import print_next_steps, print_tenants

    with _errors_for_people():
        environment = Environment(
            state_dir or default_state_dir(), port=port, shards=shards, report=_progress
        )
        started = environment.up(operator=operator, tenants=tenants)
        status = environment.status()
        if not started:
            _progress(f"the environment in {environment.state_dir} is running already")
        console = _console()
        console.print()
        print_tenants(console, status)
        print_next_steps(console, status)


@app.command(epilog="Exit codes: 0 nothing runs any more, 1 failed, 2 wrong usage, 130 interrupted.")
def down(
    state_dir: StateDir = None,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Keep data and logs: `up` continues from there.")
    ] = False,
) -> None:
    """Stop the environment and remove its data, whatever state it is in."""
    from tenantry.local.environment import Environment, default_state_dir

    with _errors_for_people():
        environment = Environment(state_dir or default_state_dir(), report=_progress)
        count = environment.down(keep_data=keep_data)
        ended = f"stopped {count} processes" if count else "nothing was running"
        _progress(
            f"{ended}; {'kept the data' if keep_data else 'no data is left'} in {environment.state_dir}"
        )


@app.command(epilog="Exit codes: 0 everything runs, 1 failed, 2 wrong usage, 3 not everything runs.")
def status(
    state_dir: StateDir = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="Format of the result.")] = Output.TABLE,
) -> None:
    """Show the environment's processes and tenants."""
    from tenantry.local.environment import Environment, default_state_dir
    from tenantry.local.tables import print_parts, print_tenants

    with _errors_for_people():
        environment = Environment(state_dir or default_state_dir())
        now = environment.status()
        if output is Output.JSON:
            typer.echo(json.dumps(now.as_json(), indent=2))
        elif not any(part.pid for part in now.parts):
            typer.echo(f"not running: {environment.state_dir}")
        else:
            console = _console()
            print_parts(console, now)
            console.print()
            print_tenants(console, now)
            console.print(
                f"\nexport KUBECONFIG={shlex.quote(str(now.kubeconfig))}", highlight=False, soft_wrap=True
            )
        if not now.running:
            raise typer.Exit(NOT_RUNNING)


@contextmanager
def _errors_for_people() -> Iterator[None]:
    """Print a LocalError as one line; a SIGTERM is an interruption as Ctrl-C is."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except LocalError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        typer.echo("interrupted: what was started is stopped", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _progress(line: str) -> None:
    typer.echo(line, err=True)


def _console() -> Console:
    console = Console(highlight=False)
    # A narrow terminal breaks lines, which loses less than cutting them.
    console.width = max(console.width, 120)
    return console

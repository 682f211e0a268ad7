"""`make bench`: what a watching client measures, on a fresh control plane with nothing else on it.

Times run from the moment in which the API server has answered a user's write to the moment in which a watch
brings the effect. Machines differ and are busy: the ratio to a bare client, taken in turn with it in the same run,
says more than any time.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tenantry.local.binaries import find_binaries
from tenantry.local.control_plane import ControlPlane
from tests.benchmarks import copies, moves, planner, rates, shards
from tests.benchmarks.rates import Rates
from tests.benchmarks.restart import Restart, fill, restart
from tests.benchmarks.scenarios import creation_at_a_steady_rate, drift_repair, plan_edits, tenant_edits
from tests.benchmarks.watcher import Bench
from tests.conftest import PLANS, Cluster, installed
from tests.integration.conftest import OperatorProcess, administrator, running

Seconds = list[float]

FULL_LIST_SECONDS = "180"
"""Between two full lists while restarts are measured: one of them shall be seen."""

PARTS = "planner,waits,rates,shards,moves,copies,restart"

console = Console(width=120, highlight=False)


def percentile(values: Seconds, share: float) -> float:
    """Return the smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


async def waits(bench: Bench, scale: float) -> None:
    """Print how long users wait."""
    scenarios: list[tuple[str, Callable[[Bench, int], Awaitable[Seconds]], int, str]] = [
        ("Tenant created -> Ready, 5 a second", creation_at_a_steady_rate, 200, "p99 1 s"),
        ("Tenant edited -> tenant-config", tenant_edits, 100, "1 s"),
        ("Plan edited -> tenant-config of each of its 20 tenants", plan_edits, 5, "1 s"),
        ("child deleted or changed -> put back", drift_repair, 100, "2 s"),
    ]
    rows = []
    for what, scenario, count, asked in scenarios:
        values = await scenario(bench, max(2, round(count * scale)))
        figures = (statistics.median(values), percentile(values, 0.99), max(values))
        rows.append((what, str(len(values)), *(f"{value * 1000:.0f} ms" for value in figures), asked))
    _print(("What", "N", "p50", "p99", "max", "asked"), rows)


def print_rates(measured: Iterable[Rates]) -> None:
    """Print rates as shares of the bare client's."""
    rows = []
    for each in measured:
        rounds = ", ".join(
            f"{mine:.0f}/{theirs:.0f}" for mine, theirs in zip(each.operator, each.bare, strict=True)
        )
        rows.append((each.what, rounds, f"{each.ratio:.2f}", "" if each.asked is None else f"{each.asked:g}"))
    _print(("What", "operator/bare client, tenants a second", "ratio", "asked"), rows)


def print_restarts(measured: Sequence[Restart]) -> None:
    """Print what restarts took."""
    rows = [
        (
            str(each.tenants),
            f"{each.ready_after:.1f} s",
            f"{each.known_after:.1f} s",
            f"{each.cpu:.1f} s",
            str(each.writes),
            f"{each.resident:.0f} MiB",
            f"{each.peak:.0f} MiB",
            f"{each.rest:.2%}",
            f"{each.list_cpu:.1f} s",
            f"{each.share:.2%}",
        )
        for each in measured
    ]
    _print(
        (
            "tenants",
            "/readyz",
            "all known",
            "CPU",
            "writes",
            "RSS",
            "peak",
            "at rest",
            "full list",
            "with lists",
        ),
        rows,
    )


def _print(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(box=None)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


@contextmanager
def own_cluster() -> Iterator[tuple[Cluster, Path]]:
    """A control plane of its own with the samples' plans, and a folder for the operator's state."""
    binaries = find_binaries(print)
    with (
        tempfile.TemporaryDirectory(prefix="tenantry-bench-") as name,
        ControlPlane(Path(name) / "control-plane", binaries=binaries) as plane,
    ):
        folder = Path(name)
        cluster = installed(Cluster(str(plane.kubeconfig), str(binaries.kubectl)), folder)
        cluster.kubectl("apply", "--server-side", "-f", str(PLANS))
        state = folder / "operator"
        state.mkdir()
        yield cluster, state


async def run(scale: float, tenants: Sequence[int], parts: Sequence[str]) -> None:
    """Start a control plane and the operator, measure, stop them."""
    with own_cluster() as (cluster, state):
        async with administrator(cluster) as api:
            bench = Bench(api, api.client)
            await bench.start()
            operator = OperatorProcess(cluster, state)
            with running(operator):
                await operator.start()
                if "waits" in parts:
                    await waits(bench, scale)
                if "rates" in parts:
                    count = max(10, round(300 * scale))
                    print_rates(await rates.measure(bench, count, max(10, round(500 * scale))))
                    _print_operator(operator)
                operator.stop()
            await bench.stop()
        if "restart" in parts:
            # The Lease as it is by default: with the tests' three seconds a start with thousands would lose it.
            settings = {"TENANTRY_RELIST_SECONDS": FULL_LIST_SECONDS, "TENANTRY_LEASE_SECONDS": "15"}
            patient = OperatorProcess(cluster, state, **settings)
            with running(patient):
                await _restarts(cluster, patient, tenants)


async def run_shards(scale: float) -> None:
    """Print how long new tenants wait where every one gets a place on a shard."""

    async def measured(bench: Bench) -> None:
        values = await shards.onboarding(bench, max(2, round(200 * scale)))
        figures = (statistics.median(values), percentile(values, 0.99), max(values))
        row = ("Tenant created -> Ready with a shard, 5 a second", str(len(values)))
        _print(
            ("What", "N", "p50", "p99", "max", "asked"),
            [(*row, *(f"{value * 1000:.0f} ms" for value in figures), "p99 2 s")],
        )

    await _alone(measured)


async def run_moves(scale: float) -> None:
    """Print what moves cost those who write meanwhile."""

    async def measured(bench: Bench) -> None:
        found = await moves.measure(bench.api, max(2, round(200 * scale)))
        rows = []
        for what, values, asked in (
            ("longest write while a tenant moves", found.pauses, "p99 250 ms"),
            ("writes held back, by the operator", found.held, ""),
            ("longest write in half a second before", found.quiet, ""),
            ("the whole move", found.whole, ""),
        ):
            figures = (statistics.median(values), percentile(values, 0.99), max(values))
            rows.append((what, str(len(values)), *(f"{value * 1000:.0f} ms" for value in figures), asked))
        _print(("20,000 rows of 384 dimensions", "N", "p50", "p99", "max", "asked"), rows)
        console.print(
            f"meanwhile {found.writes} writes were acknowledged, and all are there, once; none of {found.reads} "
            f"reads failed\n"
        )

    await _alone(measured, TENANTRY_REBALANCE="Off")


async def run_copies(scale: float) -> None:
    """Print how fast the copy of a move is beside PostgreSQL's own."""
    found = await copies.measure(max(2_000, round(copies.ROWS * scale)))
    rounds = ", ".join(
        f"{mine:.1f}/{plain:.1f}" for mine, plain in zip(found.moved, found.plain, strict=True)
    )
    _print(
        ("What", "move/plain COPY, MB/s", "ratio"),
        [(f"copy of {found.rows} rows of {copies.DIMENSIONS} dimensions", rounds, f"{found.ratio:.2f}")],
    )


async def _alone(measured: Callable[[Bench], Awaitable[None]], **settings: str) -> None:
    """Measure on a control plane of its own, with an operator that nobody else uses."""
    with own_cluster() as (cluster, state):
        async with administrator(cluster) as api:
            bench = Bench(api, api.client)
            await bench.start()
            operator = OperatorProcess(cluster, state, **settings)
            with running(operator):
                await operator.start()
                await measured(bench)
                _print_operator(operator)
            await bench.stop()


async def _restarts(cluster: Cluster, operator: OperatorProcess, tenants: Sequence[int]) -> None:
    await operator.start()
    measured = []
    for count in tenants:
        async with administrator(cluster) as api:
            bench = Bench(api, api.client)
            await bench.start(("Tenant",))
            seconds = await fill(bench, count)
            await bench.stop()
        console.print(f"filled to {count} tenants in {seconds:.0f} s")
        measured.append(await restart(operator, count))
    print_restarts(measured)


def _print_operator(operator: OperatorProcess) -> None:
    process = psutil.Process(operator.process.pid if operator.process else None)
    resident, used = process.memory_info().rss / 2**20, sum(process.cpu_times()[:2])
    console.print(f"operator: {resident:.0f} MiB resident, {used:.1f} s CPU so far\n")


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiply every count but those of --tenants"
    )
    parser.add_argument(
        "--tenants", default="2000", help="measure restarts with so many tenants, as 2000,10000"
    )
    parser.add_argument("--parts", default=PARTS, help="what to measure")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    console.print(f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}\n")
    begin = time.monotonic()
    counts = sorted(int(each) for each in arguments.tenants.split(","))
    if "planner" in parts:
        _print(("Planner, 20 seeds", "median, worst", "asked"), planner.measure())
    if "shards" in parts:
        asyncio.run(run_shards(arguments.scale))
    if "moves" in parts:
        asyncio.run(run_moves(arguments.scale))
    if "copies" in parts:
        asyncio.run(run_copies(arguments.scale))
    if set(parts) - {"planner", "shards", "moves", "copies"}:
        asyncio.run(run(arguments.scale, counts, parts))
    console.print(f"measured in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()

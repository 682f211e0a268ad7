"""`tenantry up`, `down` and `status` with the real control plane, through crashes at bad moments."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tenantry.local import processes
from tenantry.local.binaries import find_binaries
from tenantry.local.control_plane import API_SERVER, CONTROLLER_MANAGER, ETCD, PARTS, ControlPlane
from tenantry.local.environment import Environment
from tenantry.local.errors import LocalError
from tenantry.local.kubectl import Kubectl, KubectlError
from tenantry.local.manifests import Manifests, find_manifests
from tenantry.local.operator_daemon import OPERATOR

COMMAND = [sys.executable, "-c", "from tenantry.local.commands import app; app()"]
# Shards are in test_environment_shards.
NO_SHARDS = {"up": ["--shards=0"], "down": [], "status": []}


def tenantry(state_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments, *NO_SHARDS[arguments[0]], f"--state-dir={state_dir}"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)


def up_in_background(state_dir: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, "up", "--shards=0", "--no-operator", f"--state-dir={state_dir}", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_hear_interrupts
    )


def _hear_interrupts() -> None:
    """Undo what a shell does to a command in the background, whose children would ignore Ctrl-C too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def pids(state_dir: Path) -> dict[str, int]:
    return {part: group[0].pid for part, group in processes.find(state_dir).items()}


def left_over(state_dir: Path) -> list[str]:
    """What is running of an environment, by its mark or by its command line."""
    found = [f"{part}: {process}" for part, group in processes.find(state_dir).items() for process in group]
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and str(state_dir) in " ".join(process.cmdline()):
                found.append(str(process))
    return found


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "environment"
    yield folder
    processes.stop_all(folder, (), grace=0)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """One environment that is up, for the tests that leave it so."""
    environment = Environment(tmp_path_factory.mktemp("shared") / "environment")
    assert environment.up() == [*PARTS, OPERATOR]
    yield environment
    environment.down()
    assert not left_over(environment.state_dir)


@pytest.fixture
def kubectl(environment: Environment) -> Kubectl:
    plane = environment.control_plane
    return Kubectl(plane.binaries.kubectl, plane.kubeconfig, {})


def test_it_has_the_kinds_the_plans_and_twelve_tenants_and_more(
    environment: Environment, kubectl: Kubectl
) -> None:
    status = environment.status()
    assert status.running
    assert {part.name for part in status.parts} == {*PARTS, OPERATOR}
    assert {"initech", "globex", "hooli"} <= {row.name for row in status.tenants}
    assert len(status.tenants) >= 12
    assert {(row.phase, row.ready) for row in status.tenants} == {("Ready", "True")}
    plans = kubectl.json("get", "plans")["items"]
    assert {plan["metadata"]["name"] for plan in plans} == {"free", "pro", "enterprise"}


def test_files_are_private_and_in_one_folder(environment: Environment) -> None:
    state_dir = environment.state_dir
    assert state_dir.stat().st_mode & 0o077 == 0
    assert environment.control_plane.kubeconfig.stat().st_mode & 0o077 == 0
    command_lines = [group[0].cmdline() for group in processes.find(state_dir).values()]
    data = [word for words in command_lines for word in words if word.startswith("--data-dir=")]
    assert data == [f"--data-dir={state_dir / 'etcd'}"]


def test_it_enforces_quota_access_and_namespace_deletion(kubectl: Kubectl) -> None:
    kubectl.run("create", "namespace", "enforced")
    kubectl.run("create", "quota", "none", "--hard=configmaps=1", "--namespace=enforced")
    kubectl.run("wait", "quota/none", "--for=jsonpath={.status.used.configmaps}=1", "--namespace=enforced")
    with pytest.raises(KubectlError, match="exceeded quota: none"):
        kubectl.run("create", "configmap", "second", "--namespace=enforced")
    with pytest.raises(KubectlError, match="forbidden"):
        kubectl.run("get", "secrets", "--namespace=enforced", "--as=somebody")
    kubectl.run("delete", "namespace", "enforced", "--timeout=90s")


def test_a_second_up_finds_the_first(environment: Environment) -> None:
    before = pids(environment.state_dir)
    assert Environment(environment.state_dir).up() == []
    assert pids(environment.state_dir) == before


def test_lost_notes_are_written_anew(environment: Environment) -> None:
    before = pids(environment.state_dir)
    (environment.state_dir / "state.json").write_text("{")
    # Where the operator answers was among them.
    assert environment.up() == [OPERATOR]
    after = pids(environment.state_dir)
    assert [part for part in (*PARTS, OPERATOR) if before[part] != after[part]] == [OPERATOR]


def test_the_command_says_that_it_runs_and_prints_the_table(environment: Environment) -> None:
    answer = tenantry(environment.state_dir, "up")
    assert answer.returncode == 0
    assert f"export KUBECONFIG={environment.control_plane.kubeconfig}" in answer.stdout
    rows = [line.split() for line in answer.stdout.splitlines() if line.startswith("initech ")]
    assert [row[:5] for row in rows] == [["initech", "pro", "Ready", "tenant-initech", "True"]]
    assert answer.stderr == f"the environment in {environment.state_dir} is running already\n"


def test_what_a_user_changed_stays(environment: Environment, kubectl: Kubectl) -> None:
    kubectl.run("delete", "tenant", "bluth", "--timeout=90s")
    environment.up()
    assert "bluth" not in {row.name for row in environment.status().tenants}


@pytest.mark.parametrize("killed", [ETCD, CONTROLLER_MANAGER, OPERATOR])
def test_up_starts_what_was_killed_and_keeps_the_data(
    environment: Environment, kubectl: Kubectl, killed: str
) -> None:
    kubectl.run("create", "configmap", f"before-{killed}")
    before = pids(environment.state_dir)
    processes.kill(processes.find(environment.state_dir)[killed])
    assert environment.up() == [killed]
    after = pids(environment.state_dir)
    assert [part for part in (*PARTS, OPERATOR) if before[part] != after[part]] == [killed]
    kubectl.run("get", "configmap", f"before-{killed}")


def test_down_can_keep_the_data(environment: Environment, kubectl: Kubectl) -> None:
    kubectl.run("create", "configmap", "before-down")
    environment.down(keep_data=True)
    assert not left_over(environment.state_dir)
    assert environment.up() == [*PARTS, OPERATOR]
    kubectl.run("get", "configmap", "before-down")


def test_a_port_that_was_taken_meanwhile_is_replaced(environment: Environment) -> None:
    plane = environment.control_plane
    processes.kill(processes.find(environment.state_dir)[API_SERVER])
    assert plane.url is not None
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(plane.url.rpartition(":")[2])))
        other.listen()
        old = plane.url
        # The others have to follow the API server to its new port.
        assert environment.up() == [API_SERVER, CONTROLLER_MANAGER, OPERATOR]
    assert plane.url != old
    assert environment.status().running


CHART = {
    "Chart.yaml": "{apiVersion: v2, name: other, version: 1.0.0}",
    "templates/all.yaml": """
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: {{ .Release.Namespace }}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: robot, namespace: {{ .Release.Namespace }}}
spec:
  template:
    spec:
      serviceAccountName: robot
      containers: [{name: operator, env: [{name: TENANTRY_WORKERS, value: "3"}]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: robot}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: robot, namespace: {{ .Release.Namespace }}}]
""",
}


def test_the_operator_runs_as_the_account_and_with_the_settings_of_the_chart(
    environment: Environment, kubectl: Kubectl, tmp_path: Path
) -> None:
    (tmp_path / "crds").symlink_to(find_manifests().root / "crds")
    for name, content in CHART.items():
        path = tmp_path / "helm" / "tenantry" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert account(environment, kubectl) == "system:serviceaccount:tenantry-system:tenantry"
    same = Environment(environment.state_dir, manifests=Manifests(tmp_path))
    assert same.up() == [OPERATOR]
    assert account(environment, kubectl) == "system:serviceaccount:tenantry-system:robot"
    (operator,) = processes.find(environment.state_dir)[OPERATOR]
    assert operator.environ()["TENANTRY_WORKERS"] == "3"
    with pytest.raises(KubectlError, match="not found"):
        kubectl.run("get", "deployment", "robot", "--namespace=tenantry-system")
    assert environment.up() == [OPERATOR]
    assert account(environment, kubectl) == "system:serviceaccount:tenantry-system:tenantry"


def account(environment: Environment, kubectl: Kubectl) -> str:
    """Return who the running operator is to the API server."""
    (operator,) = processes.find(environment.state_dir)[OPERATOR]
    (option,) = [word for word in operator.cmdline() if word.startswith("--kubeconfig=")]
    return str(kubectl.json("auth", "whoami", option)["status"]["userInfo"]["username"])


def test_a_chart_that_helm_refuses_is_one_line_and_leaves_the_operator_as_it_was(
    environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "crds").symlink_to(find_manifests().root / "crds")
    folder = tmp_path / "helm" / "tenantry"
    folder.mkdir(parents=True)
    (folder / "Chart.yaml").write_text("{apiVersion: v2}")
    before = pids(environment.state_dir)
    with pytest.raises(LocalError, match=f"^helm cannot render {folder}: .*chart.metadata.name") as error:
        Environment(environment.state_dir, manifests=Manifests(tmp_path)).up()
    assert "\n" not in str(error.value)
    assert pids(environment.state_dir) == before
    assert environment.up() == []


def test_a_lost_token_is_made_anew(environment: Environment, kubectl: Kubectl) -> None:
    (environment.state_dir / "operator.token").unlink()
    assert environment.up() == [OPERATOR]
    assert account(environment, kubectl) == "system:serviceaccount:tenantry-system:tenantry"


def test_status_for_programs_and_its_exit_codes(environment: Environment, state_dir: Path) -> None:
    answer = tenantry(environment.state_dir, "status", "-o", "json")
    assert answer.returncode == 0
    status = json.loads(answer.stdout)
    assert status["running"] is True
    assert status["kubeconfig"] == str(environment.control_plane.kubeconfig)
    assert {part["name"]: part["pid"] for part in status["parts"]} == pids(environment.state_dir)
    absent = tenantry(state_dir, "status")
    assert (absent.returncode, absent.stdout) == (3, f"not running: {state_dir}\n")
    assert not state_dir.exists()


def test_two_at_once_start_one_and_down_leaves_nothing(state_dir: Path) -> None:
    both = [up_in_background(state_dir, "--no-tenants") for _ in range(2)]
    assert [process.wait(90) for process in both] == [0, 0]
    found = processes.find(state_dir)
    assert {part: len(group) for part, group in found.items()} == dict.fromkeys(PARTS, 1)
    answer = tenantry(state_dir, "down")
    assert (answer.returncode, answer.stdout) == (0, "")
    assert "stopped 3 processes" in answer.stderr
    assert not left_over(state_dir)
    assert not state_dir.exists()
    assert tenantry(state_dir, "down").returncode == 0


@pytest.mark.parametrize("moment", ["tenantry.lock", ETCD, API_SERVER, "kubectl"])
def test_down_after_a_kill_of_up_leaves_nothing(state_dir: Path, moment: str) -> None:
    process = up_in_background(state_dir, "--no-tenants")

    def reached() -> bool:
        return (state_dir / moment).exists() or moment in processes.find(state_dir)

    assert processes.await_condition(reached, 30)
    process.send_signal(signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
    assert tenantry(state_dir, "down").returncode == 0
    assert not left_over(state_dir)
    assert not state_dir.exists()


def test_an_interrupted_up_ends_what_it_started(state_dir: Path) -> None:
    process = up_in_background(state_dir, "--no-tenants")
    assert processes.await_condition(lambda: API_SERVER in processes.find(state_dir), 30)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert not left_over(state_dir)


def test_a_given_port_that_is_taken_is_named(state_dir: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        answer = tenantry(state_dir, "up", f"--port={port}")
    assert answer.returncode == 1
    assert answer.stderr == (
        f"error: port {port} on 127.0.0.1 is taken by another program: choose another with --port, or none\n"
    )
    assert not left_over(state_dir)


def test_a_part_that_cannot_start_names_its_log(state_dir: Path) -> None:
    state_dir.mkdir()
    (state_dir / "tenantry.lock").touch()
    (state_dir / "etcd").write_text("not a folder")
    log = state_dir / "logs" / "etcd.log"
    answer = tenantry(state_dir, "up")
    assert answer.returncode == 1
    assert answer.stderr == f"error: etcd stopped while it was starting (log: {log})\n"
    assert log.stat().st_size > 0


def test_a_build_that_fails_and_a_missing_tool_are_one_line(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text(
        '#!/bin/sh\n[ "$1" = version ] && echo go version go1.26.1 x/y || { echo broken; exit 1; }\n'
    )
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{go.parent}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    failed = tenantry(state_dir, "up")
    assert failed.returncode == 1
    assert failed.stderr.splitlines()[-1].startswith("error: building etcd failed: broken (log: ")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    missing = tenantry(state_dir, "up")
    assert missing.returncode == 1
    assert missing.stderr.startswith(f"error: KUBEBUILDER_ASSETS={tmp_path} has no program kube-apiserver")
    assert missing.stderr.count("\n") == 1


def test_somebody_elses_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    (tmp_path / "etcd" / "thesis.txt").write_text("years of work")
    for command in ("up", "down"):
        answer = tenantry(tmp_path, command)
        assert answer.returncode == 1
        assert "holds other files and is not an environment" in answer.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["etcd", "thesis.txt"]


def test_a_disk_that_is_full_is_one_line(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    binaries = find_binaries(lambda _: None)
    monkeypatch.setattr("tenantry.local.certificates.write_private", full)
    with pytest.raises(
        LocalError, match=f"the disk is full at {state_dir}/certificates.new/.*free some space"
    ):
        ControlPlane(state_dir, binaries=binaries).start()
    assert not left_over(state_dir)


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount a small file system"
)
def test_a_small_disk_names_the_log(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", disk], check=False)
    if mounted.returncode != 0:
        pytest.skip("may not mount a file system")
    try:
        answer = tenantry(disk / "environment", "up")
        assert answer.returncode == 1
        log = disk / "environment" / "logs" / "etcd.log"
        assert answer.stderr.splitlines()[-1] == (
            f"error: etcd stopped: the disk of {disk / 'environment'} is full (log: {log})"
        )
        assert tenantry(disk / "environment", "down").returncode == 0
        assert not left_over(disk)
    finally:
        subprocess.run(["umount", disk], check=True)

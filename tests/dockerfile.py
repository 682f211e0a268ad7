"""The Dockerfile as its builder reads it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

from tests.conftest import REPOSITORY


@dataclass(frozen=True)
class Step:
    """One instruction, on one line."""

    name: str
    text: str

    @property
    def command(self) -> str:
        """What a RUN runs, without what it mounts."""
        return re.sub(r"^(--\S+\s+)+", "", self.text)

    @property
    def arguments(self) -> list[str]:
        """Sources and target of a COPY."""
        return [word for word in shlex.split(self.text) if not word.startswith("--")]

    @property
    def variables(self) -> dict[str, str]:
        """What an ENV or a LABEL sets."""
        if self.name not in ("ENV", "LABEL"):
            return {}
        pairs = (word.partition("=") for word in shlex.split(self.text))
        return {name: value for name, _, value in pairs}


@dataclass(frozen=True)
class Stage:
    """From one FROM to the next."""

    base: str
    steps: list[Step] = field(default_factory=list)

    def texts(self, name: str) -> list[str]:
        """What follows each instruction of that name."""
        return [step.text for step in self.steps if step.name == name]


@dataclass(frozen=True)
class Dockerfile:
    """All of it."""

    arguments: dict[str, str]
    """Those before the first stage."""
    stages: list[Stage]

    @property
    def entrypoint(self) -> list[str]:
        """The program and its fixed arguments."""
        (text,) = self.stages[-1].texts("ENTRYPOINT")
        return [str(word) for word in json.loads(text)]


def read_dockerfile() -> Dockerfile:
    """Return the project's."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for item in DockerfileParser(str(REPOSITORY / "Dockerfile"), env_replace=False).structure:
        step = Step(item["instruction"], item["value"])
        if step.name == "FROM":
            stages.append(Stage(step.text))
        elif stages:
            stages[-1].steps.append(step)
        elif step.name == "ARG":
            name, _, value = step.text.partition("=")
            arguments[name] = value
    return Dockerfile(arguments, stages)


def sent_to_the_builder() -> set[str]:
    """Return the files, by their paths in the repository, that .dockerignore leaves."""
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return {name for name in exclude_paths(str(REPOSITORY), patterns) if (REPOSITORY / name).is_file()}


def copied(step: Step) -> set[Path]:
    """Return the files, by their paths in the repository, that a COPY takes."""
    *sources, _ = step.arguments
    return {
        Path(name)
        for name in sent_to_the_builder()
        if any(name == source or name.startswith(f"{source}/") for source in sources)
    }

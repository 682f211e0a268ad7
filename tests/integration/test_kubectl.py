"""docs/kubectl.md is what happens: each command of it is run, in order, on a control plane of its own.

`pytest tests/integration/test_kubectl.py --update-docs` writes the page anew; `git diff` then shows what changed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY, Cluster, embedded
from tests.integration.conftest import OperatorProcess, running
from tests.integration.transcript import Canon, Command, commands, rewritten

PAGE = REPOSITORY / "docs/kubectl.md"

SHOW_EVENTS = ("kubectl describe", "kubectl events", "kubectl get events")
"""Commands that show Events, which nobody waits for: they may come a moment later."""

EVENTS_SECONDS = 60.0

Run = Callable[[Command], Awaitable[str]]


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A control plane with nothing in it but what the page puts there."""
    with embedded(tmp_path_factory.mktemp("transcript")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
async def run(plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Run]:
    """Runs a command as a reader of the page does, and returns what it prints in canonical form."""
    folder = tmp_path_factory.mktemp("reader")
    environment = {
        **os.environ,
        "KUBECONFIG": plane.kubeconfig,
        "KUBECACHEDIR": str(folder),
        "PATH": f"{Path(plane.kubectl_program).parent}{os.pathsep}{os.environ['PATH']}",
    }
    canon = Canon()

    def shown(command: Command) -> str:
        done = subprocess.run(
            ["bash", "-c", command.text],
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return canon(done.stdout)

    async def settled(command: Command) -> str:
        """Return the output; with Events in it, give them time to become those of the page."""
        output = await asyncio.to_thread(shown, command)
        until = time.monotonic() + (EVENTS_SECONDS if command.text.startswith(SHOW_EVENTS) else 0)
        while output != command.output and time.monotonic() < until:
            await asyncio.sleep(0.2)
            output = await asyncio.to_thread(shown, command)
        return output

    with running(OperatorProcess(plane, folder)) as operator:
        await operator.start()
        yield settled


@pytest.mark.timeout(300)
async def test_every_command_of_the_page_prints_what_the_page_shows(run: Run, update_docs: bool) -> None:
    page = PAGE.read_text(encoding="utf-8")
    found = {command.line: await run(command) for command in commands(page)}
    now = rewritten(page, lambda command: found[command.line])
    if update_docs:
        PAGE.write_text(now, encoding="utf-8")
        return
    assert len(found) > 50
    assert now.splitlines() == page.splitlines(), "see the module's docstring for how to write the page anew"


# --- how a page is read and written -------------------------------------------------------------------------

SMALL = """Text with $ kubectl in it.

```console
$ kubectl get tenants
NAME   AGE
acme   5s
$ kubectl create -f - <<EOF
> kind: Tenant
> EOF
```

```yaml
$ kubectl: not a command
```
"""


def test_a_page_is_its_commands_and_writing_it_changes_nothing_else() -> None:
    assert commands(SMALL) == [
        Command(4, "kubectl get tenants", "NAME   AGE\nacme   5s"),
        Command(7, "kubectl create -f - <<EOF\nkind: Tenant\nEOF", ""),
    ]
    assert rewritten(SMALL, lambda command: command.output) == SMALL
    other = rewritten(SMALL, lambda command: command.output.replace("acme", "other"))
    assert other == SMALL.replace("acme", "other")


def test_ages_times_and_identifiers_are_the_same_in_every_run() -> None:
    uid = "193fd3fc-5118-4c25-9089-90ba06386922"
    later = datetime.now(UTC) + timedelta(days=30)
    canon = Canon()
    assert canon(f"NAME            PURGE-AFTER            AGE\nacme-193fd3fc   {later:%FT%TZ}   2m13s\n") == (
        "NAME            PURGE-AFTER            AGE\nacme-6ed85635   2026-04-01T09:30:00Z   5s"
    )
    assert canon(f"UID:  {uid}") == "UID:  6ed85635-850b-589b-8a0d-f2560531f187"
    assert canon('resourceVersion: "77"') == 'resourceVersion: "1042"'


def test_columns_after_an_age_move_with_it() -> None:
    one = "Events:\n  Type    Age               From\n  ----    ----              ----\n"
    one += "  Normal  9s (x2 over 10s)  tenantry\n"
    two = one.replace("              ----\n", "                  ----\n").replace("Age  ", "Age      ")
    two = two.replace("9s (x2 over 10s)", "10m2s (x2 over 10m3s)")
    assert Canon()(one) == Canon()(two)
    assert Canon()(one).endswith("  Normal  5s (x2 over 5s)  tenantry")
    assert Canon()(one) != Canon()(one.replace("x2", "x3"))
    assert Canon()("age 7s, as in prose") == "age 7s, as in prose"

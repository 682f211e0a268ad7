"""All plays of a table of acts and a table of troubles, beside each other in one run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Cluster
from tests.faults.acts import Act
from tests.faults.faults import Trouble
from tests.faults.proxy import Proxy
from tests.faults.scenario import Play, Stage
from tests.faults.view import viewed
from tests.integration.conftest import Api, OperatorProcess, running

HOLD_SECONDS = 16.0
"""How long troubles last: longer than a write may hang, and than a conflict goes untold."""

PATIENCE_SECONDS = 90.0
"""Within this after the trouble: its back-off has come to some ten seconds, and namespaces take long to go."""

SETTINGS = {
    # One that waits a moment for a busy server holds its worker: here everybody meets one at once.
    "TENANTRY_WORKERS": "128",
    "TENANTRY_LEASE_SECONDS": "60",
}


@dataclass
class Plays:
    """All plays after their end. log: what the operator said."""

    played: dict[tuple[str, str], Play]
    bystanders: dict[str, Play]
    log: str


@asynccontextmanager
async def all_played(
    cluster: Cluster,
    api: Api,
    folder: Path,
    acts: Mapping[str, Act],
    troubles: Mapping[str, Trouble],
    pairs: Sequence[tuple[str, str]],
    **settings: str,
) -> AsyncIterator[Plays]:
    """Play each pair of a trouble and an act once, and each act with nothing amiss meanwhile."""
    async with Proxy(cluster) as proxy, viewed(api.client) as view:
        operator = OperatorProcess(await proxy.door("a", folder), folder, **SETTINGS, **settings)
        with running(operator):
            await operator.start()
            stage = Stage(api, view, proxy, folder / "ledger.db", acts)
            await stage.rehearse()
            played = {pair: stage.cast(pair[1], troubles[pair[0]]) for pair in pairs}
            bystanders = {act: stage.cast(act) for act in acts}
            await stage.prepare([*played.values(), *bystanders.values()])
            await stage.perform([*played.values()], [*bystanders.values()], HOLD_SECONDS, PATIENCE_SECONDS)
            assert operator.process is not None
            assert operator.process.poll() is None
            yield Plays(played, bystanders, operator.log.read_text())

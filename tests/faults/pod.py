"""The operator as in a pod: where it ends by itself it is started again, as the kubelet does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.integration.conftest import OperatorProcess, running

PAUSE_SECONDS = 1.0
"""The kubelet waits longer after the first times."""


@dataclass
class Pod:
    """An operator that is kept running."""

    operator: OperatorProcess
    ends: list[str] = field(default_factory=list)
    """The last line that it said, each time that it ended."""

    @property
    def log(self) -> str:
        """All that it has said."""
        return self.operator.log.read_text()

    async def keep(self) -> None:
        """Start it whenever it is not running, until cancelled."""
        while True:
            with suppress(AssertionError, TimeoutError):  # it ended early, or is not ready yet
                await self.operator.start()
            process = self.operator.process
            assert process is not None
            while process.poll() is None:  # noqa: ASYNC110 - a process tells nobody
                await asyncio.sleep(0.05)
            self.ends.append(self.log.strip().splitlines()[-1])
            await asyncio.sleep(PAUSE_SECONDS)


@asynccontextmanager
async def kept(operator: OperatorProcess) -> AsyncIterator[Pod]:
    """Keep an operator running for the length of a block; on entry it is ready."""
    pod = Pod(operator)
    with running(operator):
        await operator.start()
        keeping = asyncio.create_task(_keep_started(pod))
        try:
            yield pod
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)


async def _keep_started(pod: Pod) -> None:
    process = pod.operator.process
    assert process is not None
    while process.poll() is None:  # noqa: ASYNC110 - a process tells nobody
        await asyncio.sleep(0.05)
    pod.ends.append(pod.log.strip().splitlines()[-1])
    await pod.keep()

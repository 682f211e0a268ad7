"""Exports of tenants' vectors: what one is, where they are kept, and those that are being written.

An export is a folder with two files, which anybody can read without us (`docs/shards.md` has the format):

    rows-<any>.jsonl.gz   a line of JSON for each row
    manifest.json         whose rows they are, how many, and the checksum of the file that it names

The manifest is written last and names a file that was read back: a folder without one is no export. The folder's name
comes from the archive and the placement, so that a second try finds the export of the first.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

FORMAT = "tenantry.dev/vectors/v1"
"""What a manifest says of itself. Fields are only added; a change of meaning is v2."""


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported: a tenant's place, and the archive that its purge belongs to. owner: a digest.

    epoch: of the place. server: what the shard's server says that it is.
    """

    tenant: str
    tenant_uid: str
    owner: str
    archive: str
    archive_uid: str
    epoch: int
    shard: str
    server: str
    dimensions: int
    metric: str
    type: str

    @property
    def name(self) -> str:
        """Return the name of the export, the same at each try."""
        return f"{self.tenant}/{self.archive_uid}-{self.epoch}"


@dataclass(frozen=True, slots=True)
class Exported:
    """An export that is complete and was read back. size: bytes of the file; sha256: of the file as it is stored."""

    source: Source
    url: str
    file: str
    rows: int
    size: int
    sha256: str
    finished: datetime
    format: str = FORMAT


class StoreFailed(Exception):  # noqa: N818 - as the port's other errors
    """The store cannot be used, or what is in it is damaged; `str()` is a sentence that says which file and why."""


class Store(Protocol):
    """Where exports are kept. Raises StoreFailed; whatever blocks is done in threads."""

    async def find(self, name: str) -> Exported | None:
        """Return the export of that name, read back and intact; None: there is none, or it is not complete."""

    async def put(
        self, source: Source, lines: AsyncGenerator[bytes, None], now: Callable[[], datetime]
    ) -> Exported:
        """Write an export; one of that name that is there already, and intact, stays and is returned.

        The generator is closed in any case.
        """


class Exports:
    """The store, if one is set, and the exports that are being written now.

    They go on behind reconciles, which may not last as long. What a process that dies was writing is begun anew.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.store = store
        self._tasks: dict[str, asyncio.Task[Exported | None]] = {}

    async def result(
        self,
        name: str,
        work: Callable[[], Coroutine[Any, Any, Exported | None]],
        wait: float,
        done: Callable[[], None],
    ) -> tuple[bool, Exported | None]:
        """Return whether the work of that name has ended, and its result; it is begun where it does not go on.

        wait: seconds to wait for it. done: called when it ends later. Raises what the work raised, once.
        """
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = asyncio.create_task(work(), name=f"export {name}")
        ended, _ = await asyncio.wait([task], timeout=wait)
        if not ended:
            task.remove_done_callback(done_callback := _Ended(done))
            task.add_done_callback(done_callback)
            return False, None
        self._tasks.pop(name, None)
        return True, task.result()

    async def finish(self) -> None:
        """Wait for the end of what goes on; its archives are woken."""
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def close(self) -> None:
        """End what is being written: the next leader begins it anew."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Ended:
    """Calls without the task; two of the same call are equal, so that one can be taken off."""

    call: Callable[[], None]

    def __call__(self, _: asyncio.Task[Exported | None]) -> None:
        self.call()

"""Several replicas of the operator with one ledger, each behind a door of its own, and what goes on meanwhile.

tenants ──► a ──(door a)──┐
            b ──(door b)──┼──► Proxy ──► kube-apiserver        its log tells who wrote what, and when
            c ──(door c)──┘
            └──► PostgreSQL
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg

from tests.conftest import Cluster
from tests.faults.proxy import Fault, Proxy
from tests.faults.replica import Replica
from tests.faults.view import View, now
from tests.faults.writers import Term, terms_of
from tests.integration.conftest import Api, Object

LEASE = "tenantry-operator"
LEASE_SECONDS = 6
PATIENCE = 60.0
"""Seconds within which anything that must come does come, on a machine that has much else to do."""
QUIET_SECONDS = 1.0

Rows = Mapping[str, Counter[str]]
"""How often each action is in the audit log, by tenant."""


class Member(Replica):
    """One replica: it stands by or leads, can be frozen and woken, and started again behind its door."""

    def __init__(self, name: str, cluster: Cluster, api: Api, folder: Path, **settings: str) -> None:
        super().__init__(cluster, api, folder, **settings)
        self.name = name

    @property
    def pid(self) -> int:
        """Its process; 0 where none runs."""
        return (self._process.pid or 0) if self._process is not None and self._process.is_alive() else 0

    @property
    def running(self) -> bool:
        """Whether it has a process, which may be frozen."""
        return bool(self.pid)

    async def start(self) -> None:
        """Start it; on return it stands by or leads."""
        await self._spawn({"ok\n", "standby\n"}, PATIENCE)

    async def freeze(self) -> None:
        """Stop it where it is, as a paused machine does; on return it is still."""
        os.kill(self.pid, signal.SIGSTOP)
        async with asyncio.timeout(PATIENCE):
            while psutil.Process(self.pid).status() != psutil.STATUS_STOPPED:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.001)

    def wake(self) -> None:
        """Let it go on; does nothing where it was not frozen."""
        if self.running:
            os.kill(self.pid, signal.SIGCONT)

    def said(self) -> str:
        """Return what it has logged since it began for the first time."""
        return self.log.read_text()

    async def end(self) -> float:
        """Stop it as the kubelet does; return the seconds that it took. Its exit code must be 0."""
        began = now()
        await self.stop()
        return now() - began


class Fleet:
    """The replicas, and all that a test asks about them."""

    def __init__(self, api: Api, view: View, proxy: Proxy, members: list[Member], database: str) -> None:
        self.api, self.view, self.proxy = api, view, proxy
        self.members = members
        self._namespace = proxy.cluster.settings.get("TENANTRY_LEASE_NAMESPACE", "default")
        self._database = database

    async def muster(self, count: int) -> Member:
        """Have so many replicas running, one of which leads; return that one. The log begins with its term."""
        self.proxy.fault = Fault()
        leader = await self._present_leader()
        if leader is None:
            await self.dismiss()
        surplus = self.others(*filter(None, [leader]))[count - 1 :]
        await asyncio.gather(*(member.end() for member in surplus))
        absent = [member for member in self.members if not member.running]
        await asyncio.gather(*(member.start() for member in absent[: count - len(self.others())]))
        leader = await self.leader()
        began, log = self.terms[-1].began, self.proxy.log
        log[:] = [item for item in log if item.kind == "leases" and (item.forwarded or 0.0) >= began]
        return leader

    async def dismiss(self) -> None:
        """Have no replica running, no Lease, and an empty log."""
        await asyncio.gather(*(member.end() for member in self.others()))
        await self.remove_lease()
        self.proxy.log.clear()

    async def leader(self, *others: Member, timeout: float = PATIENCE) -> Member:
        """Wait until the Lease names a replica that runs, and none of `others`; return it."""
        able = {member.pid: member for member in self.members if member.running and member not in others}

        def holder(lease: Object | None) -> bool:
            return _pid(lease) in able

        lease = await self.api.until("Lease", LEASE, holder, self._namespace, timeout=timeout)
        found = able[_pid(lease)]
        await self.until(lambda: bool(self.terms) and self.terms[-1].door == found.name, "the log has it")
        return found

    async def _present_leader(self) -> Member | None:
        pid = _pid(await self.lease())
        return next((member for member in self.members if member.running and member.pid == pid), None)

    async def lease(self) -> Object | None:
        """Return the Lease as it is now."""
        return await self.api.get("Lease", LEASE, self._namespace)

    async def edit_lease(self, **spec: Any) -> None:
        """Change the Lease by hand."""
        await self.api.patch("Lease", LEASE, {"spec": spec}, self._namespace)

    async def remove_lease(self) -> None:
        """Delete the Lease by hand."""
        await self.api.delete("Lease", LEASE, self._namespace)

    @property
    def terms(self) -> list[Term]:
        """The terms of the log, oldest first."""
        return terms_of(self.proxy.log)

    def behind(self, door: str) -> Member:
        """Return the replica behind a door."""
        return next(member for member in self.members if member.name == door)

    def others(self, *members: Member) -> list[Member]:
        """Return the replicas that run, but for some."""
        return [item for item in self.members if item.running and item not in members]

    async def stands_by(self, member: Member, since: int) -> None:
        """Wait until a replica asks for the Lease of another again, after so many requests in the log."""

        def asks() -> bool:
            asked = [item for item in self.proxy.log[since:] if item.door == member.name]
            return len([item for item in asked if (item.verb, item.kind) == ("get", "leases")]) >= 2

        await self.until(asks, f"{member.name} stands by")

    async def until(self, holds: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
        """Wait until something holds of the log."""
        try:
            async with asyncio.timeout(timeout):
                while not holds():  # noqa: ASYNC110 - a log tells nobody
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"not within {timeout:g} s: {what}") from None

    async def quiet(self) -> None:
        """Wait until nobody has written anything for a while."""
        await self.proxy.quiet(QUIET_SECONDS)

    async def audited(self) -> Rows:
        """Return what is in the audit log."""
        counted: dict[str, Counter[str]] = {}
        async with await psycopg.AsyncConnection.connect(self._database) as connection:
            found = await connection.execute("SELECT tenant, action FROM audit ORDER BY id")
            async for name, action in found:
                counted.setdefault(name or "", Counter())[action] += 1
        return counted


def _pid(lease: Object | None) -> int:
    """Return the process that a Lease names as its holder; -1 where it names none."""
    holder = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
    parts = holder.rsplit("_", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else -1

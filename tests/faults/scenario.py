"""One operator behind the proxy, many tenants, each with a fault and an act of its own: what comes of it.

All plays share one run, since most of their time is waiting. In the order of time:

    controls      tenants that no fault befalls and that act before any does: what everybody must look like in the end
    plays         the act begins while the fault is on; some faults last until they are lifted, all at once
    bystanders    act while everybody else is in trouble, and must not notice
    afterwards    everybody looks like their control, and nobody writes any more
"""

from __future__ import annotations

import asyncio
import math
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tenantry.adapters.kubernetes.client import ATTEMPTS
from tenantry.domain import names
from tenantry.runtime.queue import Backoff
from tests.faults.acts import ACTS, PATIENCE, Act, archive_of, told
from tests.faults.faults import Fault, Selected, Trouble, Ward, tenant_of
from tests.faults.proxy import Proxy, Request
from tests.faults.view import Object, View, now, picture
from tests.integration.conftest import Api

AT_ONCE = 24
"""Tenants that are prepared side by side."""

WAKES = 4
"""Tries that an act may cause by itself, beside those of the back-off: an edit and what follows from it are news."""

GUARDS = (("ResourceQuota", names.QUOTA), ("NetworkPolicy", names.DEFAULT_DENY))
"""Kind and name of what a tenant is never without, once it is there."""

QUIET_SECONDS = 2.5
"""Longer than the pause after which a Plan counts its tenants."""


def tries(seconds: float) -> int:
    """Return how often the queue may try a failing key within so many seconds, at most, with luck at every turn."""
    backoff = Backoff()
    count, at = 1, 0.0
    while True:
        at += backoff.delay(count, chance=1.0)
        if at > seconds:
            return count + WAKES
        count += 1


def worth_playing(troubles: Mapping[str, Trouble], acts: Mapping[str, Act] = ACTS) -> list[tuple[str, str]]:
    """Return each trouble with each act that is worth the time: one that writes what it befalls, or that it names."""
    return [
        (trouble, act)
        for trouble, what in troubles.items()
        for act, how in acts.items()
        if (not what.kinds or what.kinds & how.writes) and (not what.acts or act in what.acts)
    ]


@dataclass
class Play:
    """One tenant with its act and its fault, and what came of it."""

    act: str
    trouble: Trouble | None
    tenant: str
    fault: Selected | None = None
    said: str = ""
    problems: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    """Those about it from the beginning of its act until the fault was lifted."""
    seconds: float = 0.0
    """How long that was."""
    recovered: float = 0.0
    """Seconds from then until it looked like its control."""

    @property
    def busiest(self) -> tuple[str, int]:
        """Return the subject of most requests, and how many."""
        counted = Counter(str(request) for request in self.requests)
        return counted.most_common(1)[0] if counted else ("", 0)


class Stage:
    """Where plays are played. `ward` is the proxy's fault meanwhile. acts: what can be played, by name."""

    def __init__(
        self, api: Api, view: View, proxy: Proxy, ledger: Path, acts: Mapping[str, Act] = ACTS
    ) -> None:
        self.api, self.view, self.proxy, self.acts = api, view, proxy, acts
        self.ward = Ward()
        self._ledger = ledger
        self._expected: dict[str, tuple[str, Counter[str]]] = {}
        self._count = 0

    def cast(self, act: str, trouble: Trouble | None = None) -> Play:
        """Return a play with a new tenant."""
        self._count += 1
        return Play(act, trouble, f"t{self._count}")

    async def rehearse(self) -> None:
        """Play each act with no fault, and remember how it ends."""
        controls = [self.cast(act) for act in self.acts]
        await self.prepare(controls)
        await asyncio.gather(*(self._answered(play, 60) for play in controls))
        await self.quiet()
        for play in controls:
            self._expected[play.act] = self._end(play.tenant)

    async def prepare(self, plays: Iterable[Play]) -> None:
        """Bring every tenant to where its act begins."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(play: Play) -> None:
            async with gate:
                await self.acts[play.act].prepare(self.api, self.view, play.tenant)

        await asyncio.gather(*(one(play) for play in plays))

    async def perform(self, plays: list[Play], bystanders: list[Play], hold: float, patience: float) -> None:
        """Begin all acts in trouble; lift it after `hold` seconds; wait for all to look like their control."""
        for play in plays:
            assert play.trouble is not None
            play.fault = Selected(play.trouble.fault, play.trouble.where, play.trouble.first)
            self.ward.faults[play.tenant] = play.fault
        async with AsyncExitStack() as rivals:
            for play in plays:
                if play.trouble is not None and play.trouble.rival is not None:
                    rival = play.trouble.rival(self.api, self.view, play.tenant)
                    await rivals.enter_async_context(rival)
            self.proxy.fault = self.ward
            first, began = len(self.proxy.log), now()
            await asyncio.gather(*(self._begin(play) for play in plays))
            await self._bystand(bystanders, 2 * PATIENCE)
            await asyncio.gather(*(self._told(play) for play in plays))
            await asyncio.gather(*(self._met(play) for play in plays))
            await asyncio.sleep(max(0.0, began + hold - now()))
            self.proxy.fault = Fault()
        lifted = now()
        self._account(plays, first, lifted - began)
        await asyncio.gather(*(self._recovered(play, lifted, patience) for play in [*plays, *bystanders]))
        await self.quiet()
        for play in [*plays, *bystanders]:
            self._judge(play)

    async def quiet(self) -> None:
        """Wait until the operator has written nothing for a while."""
        await self.proxy.quiet(QUIET_SECONDS)

    async def _begin(self, play: Play) -> None:
        await self.acts[play.act].begin(self.api, self.view, play.tenant)

    async def _bystand(self, bystanders: list[Play], patience: float) -> None:
        """Play acts that nothing befalls, while everybody else is in trouble."""
        ended = await asyncio.gather(
            *(self._answered(play, patience) for play in bystanders), return_exceptions=True
        )
        for play, end in zip(bystanders, ended, strict=True):
            if end is not None:
                play.problems.append(f"while others are in trouble: {end}")

    async def _answered(self, play: Play, patience: float) -> None:
        began = now()
        await self._begin(play)
        done = self.acts[play.act].done
        await self.view.until(
            lambda: done(self.view, play.tenant), f"{play.act} is answered", patience, play.tenant
        )
        play.recovered = now() - began

    async def _met(self, play: Play) -> None:
        """Wait until the fault has befallen something."""
        if play.fault is not None and play.trouble is not None and play.trouble.rival is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(play.fault.hit.wait(), PATIENCE)

    async def _told(self, play: Play) -> None:
        """Wait until the conditions say what is waited for."""
        expected = play.trouble.told if play.trouble else None
        if expected is None:
            return

        def message() -> str:
            text = told(self._speaker(play), expected.reason)
            return text if re.search(expected.words, text) else ""

        what = f"it is told as {expected.reason} with /{expected.words}/"
        try:
            play.said = await self.view.until(message, what, PATIENCE, play.tenant)
        except AssertionError as error:
            status = (self._speaker(play) or {}).get("status")
            play.problems.append(f"{error}; its status is {status}")
            return
        if re.search(r"\b\w+(Error|Exception)\b", play.said.replace("InternalError", "")):
            play.problems.append(f"the message is not for people: {play.said}")

    def _speaker(self, play: Play) -> Object | None:
        kind = self.acts[play.act].told_on
        return (
            archive_of(self.view, play.tenant)
            if kind == "TenantArchive"
            else self.view.get(kind, play.tenant)
        )

    def _account(self, plays: Iterable[Play], first: int, seconds: float) -> None:
        of = {play.tenant: play for play in plays}
        for request in self.proxy.log[first:]:
            if tenant := tenant_of(request, of):
                of[tenant].requests.append(request)
        for play in of.values():
            play.seconds = seconds

    async def _recovered(self, play: Play, since: float, patience: float) -> None:
        expected, _ = self._expected[play.act]
        if play.trouble is None and play.problems:
            return
        try:
            await self.view.until(
                lambda: picture(self.view.of(play.tenant), play.tenant) == expected,
                "the end",
                patience,
                play.tenant,
            )
        except AssertionError:
            play.problems.append(f"{patience:g} s after all is well: {self._difference(play)}")
        if play.trouble is not None:
            play.recovered = now() - since

    def _difference(self, play: Play) -> str:
        expected = self._expected[play.act][0].splitlines()
        found = picture(self.view.of(play.tenant), play.tenant).splitlines()
        missing = Counter(expected) - Counter(found)
        surplus = Counter(found) - Counter(expected)
        return f"missing {list(missing)[:12]}, instead {list(surplus)[:12]}"

    def _end(self, tenant: str) -> tuple[str, Counter[str]]:
        return picture(self.view.of(tenant), tenant), audited(self._ledger)[tenant]

    def _judge(self, play: Play) -> None:
        """Compare the audit log, look for what must never be gone, and count requests."""
        ends = self.acts[play.act].ends
        for ref in [] if ends else GUARDS:
            if (gone := (ref[0], f"tenant-{play.tenant}", ref[1])) in self.view.deleted:
                play.problems.append(f"{gone} was gone for a while")
        rows, wanted = audited(self._ledger)[play.tenant], self._expected[play.act][1]
        repaired, at_most = rows.pop("Repaired", 0), wanted["Repaired"]
        fights = play.trouble is not None and play.trouble.fights
        if rows != wanted - Counter(Repaired=at_most) or (repaired > at_most and not fights):
            play.problems.append(f"the audit log has {rows} and {repaired} repairs, not {wanted}")
        if play.trouble is None or play.fault is None:
            return
        if not play.fault.met and play.trouble.rival is None:
            play.problems.append("the fault has met no request: this play plays nothing")
        subject, most = play.busiest
        if most > (bound := tries(play.seconds) * ATTEMPTS * self.acts[play.act].writers):
            play.problems.append(
                f"{most} times {subject} within {play.seconds:.0f} s, at most {bound} are due"
            )
        if play.trouble.gap:
            counted = Counter(str(request) for request in play.fault.met)
            due = math.ceil(play.seconds / play.trouble.gap) + WAKES
            play.problems += [
                f"{count} times {what} within {play.seconds:.0f} s, {due} are due where the server asks for "
                f"{play.trouble.gap:g} s each time"
                for what, count in counted.items()
                if count > due
            ]


def audited(ledger: Path) -> Mapping[str, Counter[str]]:
    """Return how often each action is in the audit log, by tenant."""
    connection = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT tenant, action FROM audit").fetchall()
    finally:
        connection.close()
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for tenant, action in rows:
        counted[tenant][action] += 1
    return counted

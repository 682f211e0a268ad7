"""When each alert fires, what it says then, and when it stays quiet; times are minutes after the first sample.

Series are in promtool's notation, one sample in 30 seconds: `1x20` is 1 and twenty more of it, `0+2x20` grows by 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

LEADER = 'tenantry_leader{pod="a"}'
STANDBY = 'tenantry_leader{pod="b"}'


@dataclass(frozen=True)
class Case:
    """Series, and that the alert fires at a minute, or at none up to it."""

    title: str
    series: Mapping[str, str]
    minute: int
    labels: Mapping[str, str] | None = None
    """Of the alert that fires, but for its severity; None where none does."""
    value: str = ""
    """What its description says for the value."""


def fires(title: str, series: Mapping[str, str], minute: int, value: str = "", **labels: str) -> Case:
    return Case(title, series, minute, labels, value)


def quiet(title: str, series: Mapping[str, str], minute: int) -> Case:
    return Case(title, series, minute)


def reconciles(**outcomes: str) -> dict[str, str]:
    name = "tenantry_reconcile_duration_seconds_count"
    return {f'{name}{{kind="Tenant",outcome="{key}"}}': value for key, value in outcomes.items()}


def requests(**codes: str) -> dict[str, str]:
    name = "tenantry_api_requests_total"
    return {f'{name}{{verb="PATCH",code="{key.strip("_")}"}}': value for key, value in codes.items()}


def not_ready(state: str, seconds: str) -> dict[str, str]:
    name = "tenantry_tenants_not_ready_oldest_seconds"
    return {f'{name}{{state="{state}",reason="PlanNotFound"}}': seconds}


def repaired(count: str) -> dict[str, str]:
    return {'tenantry_drift_repaired_total{kind="NetworkPolicy"}': count}


def probes(**results: str) -> dict[str, str]:
    return {f'tenantry_isolation_probes_total{{result="{key}"}}': value for key, value in results.items()}


def onboarded(slow: str, fast: str = "0x80") -> dict[str, str]:
    """Tenants by how long they took: `fast` in a second, `slow` (which counts these too) in up to a minute."""
    name = "tenantry_tenant_ready_seconds"
    return {
        f'{name}_bucket{{le="1"}}': fast,
        f'{name}_bucket{{le="30"}}': fast,
        f'{name}_bucket{{le="60"}}': slow,
        f'{name}_bucket{{le="+Inf"}}': slow,
        f"{name}_count": slow,
    }


CASES: dict[str, list[Case]] = {
    "TenantryAbsent": [
        fires("no metrics at all", {"up": "1x20"}, 6),
        fires("both are gone", {LEADER: "1x4 stale", STANDBY: "0x4 stale"}, 9),
        quiet("one still stands by", {LEADER: "1x4 stale", STANDBY: "0x30"}, 9),
        quiet("back within 5 minutes", {LEADER: "1x4 stale _x7 1x20"}, 9),
    ],
    "TenantryNoLeader": [
        fires("two stand by", {LEADER: "1x4 0x20", STANDBY: "0x24"}, 5),
        quiet("one takes over from the other", {LEADER: "1x4 0x20", STANDBY: "0x6 1x20"}, 6),
        quiet("nobody is there, which is TenantryAbsent", {"up": "1x20"}, 6),
    ],
    "TenantryTwoLeaders": [
        fires("two Leases", {LEADER: "1x20", STANDBY: "1x20"}, 3, "2"),
        quiet("a handover between two scrapes", {LEADER: "1x6 0x20", STANDBY: "0x5 1x20"}, 4),
        quiet(
            "each in a cluster of its own",
            {'tenantry_leader{cluster="east"}': "1x20", 'tenantry_leader{cluster="west"}': "1x20"},
            6,
        ),
    ],
    "TenantryNotSynced": [
        fires(
            "a leader that cannot list",
            {LEADER: "1x20", 'tenantry_synced{pod="a"}': "0x20"},
            6,
            pod="a",
        ),
        quiet("a standby has nothing to list", {STANDBY: "0x20", 'tenantry_synced{pod="b"}': "0x20"}, 9),
        quiet("a slow start", {LEADER: "1x20", 'tenantry_synced{pod="a"}': "0x8 1x12"}, 6),
    ],
    "TenantryQueueStuck": [
        fires("it only grows", {"tenantry_queue_oldest_seconds": "0+30x40"}, 14, "14m 0s"),
        quiet("a long burst", {"tenantry_queue_oldest_seconds": "0+30x18 0x20"}, 14),
        quiet("just at the limit", {"tenantry_queue_oldest_seconds": "60x40"}, 19),
    ],
    "TenantryReconcileErrors": [
        fires(
            "a bug with one tenant",
            reconciles(ok="0+5x60", error="0+1x60"),
            17,
            kind="Tenant",
        ),
        fires("it takes too long", reconciles(timeout="1+1x60"), 17, kind="Tenant"),
        quiet("some bad minutes", reconciles(ok="0+5x60", error="0+1x18 18x60"), 29),
        quiet("mistakes of users, and retries", reconciles(stalled="0+9x60", retry="0+9x60"), 29),
    ],
    "TenantryApiErrors": [
        fires("one in five", requests(_200="0+8x60", _503="0+2x60"), 15, "20%"),
        fires("no answer", requests(_200="0+1x60", error="0+1x60"), 15, "50%"),
        quiet("one in twenty", requests(_200="0+19x60", _503="0+1x60"), 29),
        quiet("conflicts and what is not there are normal", requests(_409="0+5x60", _404="0+5x60"), 29),
        quiet("a minute of errors", requests(_200="0+1x60", _500="0x10 4x2 9x50"), 29),
    ],
    "TenantryApiRefused": [
        fires(
            "a missing rule",
            requests(_403="0+1x100"),
            32,
            verb="PATCH",
            code="403",
        ),
        quiet("a while, as a namespace went away", requests(_403="0+1x20 20x80"), 40),
    ],
    "TenantryLedgerUnavailable": [
        fires(
            "writes fail",
            {'tenantry_ledger_failures_total{operation="write"}': "0 1+1x40"},
            7,
        ),
        quiet(
            "a database that fails over",
            {'tenantry_ledger_failures_total{operation="write"}': "0+1x4 4x40"},
            12,
        ),
    ],
    "TenantryRelistOverdue": [
        fires(
            "two lists failed",
            {"tenantry_list_age_seconds": "1200+30x20", "tenantry_list_interval_seconds": "600x20"},
            4,
            "24m 0s",
        ),
        quiet(
            "one list failed",
            {
                "tenantry_list_age_seconds": "600+30x20 30+30x20",
                "tenantry_list_interval_seconds": "600x40",
            },
            12,
        ),
    ],
    "TenantryRolesAmiss": [
        fires("two roles differ", {"tenantry_roles_amiss": "2x40"}, 16, "2"),
        quiet("during an upgrade", {"tenantry_roles_amiss": "2x20 0x20"}, 16),
    ],
    "TenantryTenantStalled": [
        fires(
            "for 75 minutes",
            not_ready("stalled", "4380+30x20"),
            4,
            "1h 17m 0s",
            reason="PlanNotFound",
        ),
        quiet("for half an hour", not_ready("stalled", "1800+30x20"), 4),
        quiet("it goes on by itself, which is another alert", not_ready("reconciling", "7200+30x20"), 4),
    ],
    "TenantryTenantNotReady": [
        fires(
            "for 20 minutes",
            not_ready("reconciling", "1200+30x20"),
            4,
            "24m 0s",
            reason="PlanNotFound",
        ),
        quiet("new ones all the time, each for a short while", not_ready("reconciling", "800x60"), 29),
        quiet("the user must act, which is another alert", not_ready("stalled", "7200+30x20"), 4),
    ],
    "TenantryDriftFight": [
        fires(
            "a controller every 3 minutes",
            repaired("0x5 1x5 2x5 3x5 4x5 5x5 6x5 7x5 8x5 9x5 10x5 11x5 12x5 13x5 14x5 15x5 16x5 17x5 18x5"),
            55,
            "5",
            kind="NetworkPolicy",
        ),
        fires("a loop every second", repaired("0+6x120"), 45, "180", kind="NetworkPolicy"),
        quiet("one bad command against 300 tenants", repaired("0x10 300x110"), 40),
        quiet("one in six minutes", repaired("0x11 1x11 2x11 3x11 4x11 5x11 6x11 7x11 8x11"), 50),
        quiet("one an hour", repaired("0x10 1x100"), 50),
    ],
    "TenantryPurgeOverdue": [
        fires("a finalizer holds it", {"tenantry_purge_overdue_seconds": "3600+30x20"}, 4, "1h 4m 0s"),
        quiet("a large namespace takes its time", {"tenantry_purge_overdue_seconds": "0+30x60"}, 29),
    ],
    "TenantrySlowOnboarding": [
        fires("all of them", onboarded(slow="0+1x80"), 20, "45s"),
        fires("four of four", onboarded(slow="0x5 1x5 2x5 3x5 4x60"), 22, "45s"),
        quiet("one that waited for its plan", onboarded(slow="0x10 1x70"), 30),
        quiet("one in three", onboarded(slow="0+3x80", fast="0+2x80"), 30),
        quiet("nobody is new", onboarded(slow="5x80"), 30),
    ],
    "TenantryIsolationLeak": [
        fires("one leak", probes(denied="0+4x80", leak="0x20 1x60"), 11, "1"),
        quiet("every try is denied", probes(denied="0+4x80", leak="0x80"), 30),
        quiet("counted long ago", probes(denied="0+4x120", leak="3x120"), 45),
    ],
    "TenantryShardDown": [
        fires(
            "its server is gone", {'tenantry_shard_ready{shard="shard-a"}': "1x4 0x40"}, 9, shard="shard-a"
        ),
        quiet("a restart", {'tenantry_shard_ready{shard="shard-a"}': "1x4 0x6 1x40"}, 12),
    ],
}

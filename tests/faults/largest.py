"""A Plan and a Tenant with every list, map, text and number at the limit that the schema sets.

What rules cost at runtime grows with them: both must be let in, whatever an API server's budget is.
"""

from __future__ import annotations

from tests.faults.hostile import EMOJI, Object, annotated, members, of_plan, tenant

_DOMAIN = ".".join(["d" * 60] * 4)


def largest_plan() -> Object:
    """A Plan with every list, map, text and number at its limit."""
    extended = {f"{number}.{_DOMAIN[:242]}/{'K' * 63}": "9" * 29 + "Ei" for number in range(8)}
    requests = {f"requests.{number:02d}.{_DOMAIN[:230]}/{'K' * 63}": "9" * 29 + "Ei" for number in range(26)}
    native = {
        f"{part}.{name}": "0." + "1" * 29 + "k"
        for part in ("requests", "limits")
        for name in ("cpu", "memory", "ephemeral-storage")
    }
    tiers = [{"upTo": 10**15 - 20 + number, "unitAmount": "9" * 12 + "." + "9" * 12} for number in range(19)]
    namespaces = [f"{number:02d}" + "n" * 61 for number in range(64)]
    meters = [f"{number:02d}" + "m" * 61 for number in range(32)]
    paths = {
        "model": ("provider", "name", "temperature", "maxTokens", "systemPrompt"),
        "retrieval": ("topK", "chunkSize", "rerank"),
        "limits": ("requestsPerSecond", "burst", "tokensPerMinute"),
    }
    settings = largest_settings()
    document = of_plan(
        displayName=EMOJI * 100,
        rank=1_000_000,
        trialDays=730,
        prices=[{"interval": each, "amount": "999999999999.99"} for each in ("month", "year")],
        usage=[
            {"meter": meter, "included": 1, "tiers": [*tiers, {"unitAmount": "9" * 12 + "." + "9" * 12}]}
            for meter in meters
        ],
        resources={
            "quota": {**requests, **native},
            "containerDefaults": {"limits": extended, "requests": extended},
            "containerMax": extended,
        },
        network={
            "ingress": {"namespaces": namespaces},
            "egress": {
                "internetPorts": list(range(65_472, 65_536)),
                "namespaces": namespaces,
                "cidrs": [f"2001:0db8:0000:0000:0000:0000:0000:00{number:02x}/128" for number in range(64)],
            },
        },
        limits={
            **settings["limits"],
            "perPeriod": [{"meter": meter, "soft": 10**15, "hard": 10**15} for meter in meters],
        },
        model=settings["model"],
        retrieval=settings["retrieval"],
        overridable=[f"{section}.{name}" for section, names in paths.items() for name in names],
    )
    return {**document, "metadata": {"name": "p" * 63}}


def largest_settings() -> Object:
    rate = 1_000_000_000
    return {
        "model": {
            "provider": "p" * 63,
            "name": "n" * 128,
            "temperature": "1.9999",
            "maxTokens": 10_000_000,
            "systemPrompt": EMOJI * 16_384,
        },
        "retrieval": {"topK": 1000, "chunkSize": 100_000, "rerank": True},
        "limits": {"requestsPerSecond": rate, "burst": rate, "tokensPerMinute": rate},
    }


def largest_tenant() -> Object:
    """A Tenant likewise, on that plan."""
    people = members(*(f"{number:03d}" + EMOJI * 250 for number in range(100)))
    accounts = [
        {"kind": "ServiceAccount", "name": f"s{number:03d}" + ".a" * 124 + "b", "role": "owner"}
        for number in range(100)
    ]
    document = tenant(
        "h" * 56,
        displayName=EMOJI * 100,
        plan="p" * 63,
        costCenters=[f"{number:03d}" + "c" * 60 for number in range(100)],
        members=[*people, *accounts],
        namespace={
            "adoption": "IfMarked",
            "labels": {f"{number:02d}.{_DOMAIN}/{'k' * 63}": "v" * 63 for number in range(32)},
        },
        overrides=largest_settings(),
        vectorStore={"dimensions": 16_000, "metric": "innerProduct", "type": "halfvec"},
        retentionDays=3650,
        owner={"email": "a@" + "b." * 125 + "bb"},
    )
    document["metadata"]["annotations"] = annotated(262_000)["metadata"]["annotations"]
    return document

"""The whole catalogue."""

from __future__ import annotations

from tests.integration.attacks import on_access, on_children, on_limits, on_neighbours

CHAPTERS = {
    "What the operator has made": on_children.ATTACKS,
    "Rights and identities": on_access.ATTACKS,
    "Neighbours, the operator, the network": on_neighbours.ATTACKS,
    "The plan's limits, nodes": on_limits.ATTACKS,
}

ATTACKS = tuple(attack for chapter in CHAPTERS.values() for attack in chapter)

"""The whole catalogue, and its part of docs/isolation.md, which `python -m` of this module writes."""

from __future__ import annotations

import re

from tests.conftest import REPOSITORY
from tests.integration.attacks import on_access, on_children, on_limits, on_neighbours
from tests.integration.attacks.catalogue import table
from tests.integration.attacks.daily import DAILY_WORK

PAGE = REPOSITORY / "docs/isolation.md"

CHAPTERS = {
    "What the operator has made, and the namespace": on_children.ATTACKS,
    "Rights and identities": on_access.ATTACKS,
    "Neighbours, the operator, the network": on_neighbours.ATTACKS,
    "The plan's limits, and nodes": on_limits.ATTACKS,
}

ATTACKS = tuple(attack for chapter in CHAPTERS.values() for attack in chapter)


def attacks() -> str:
    """Return the catalogue as tables."""
    return "\n".join(f"### {title}\n\n{table(chapter)}" for title, chapter in CHAPTERS.items())


def daily_work() -> str:
    """Return what is allowed as a list."""
    return "".join(f"- {work.what}{' (owners)' if len(work.who) == 1 else ''}\n" for work in DAILY_WORK)


def written(page: str) -> str:
    """Return the page with its generated parts as they should be."""
    for name, text in (("attacks", attacks()), ("daily work", daily_work())):
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->\n"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        page, count = pattern.subn(lambda _, whole=f"{begin}\n{text}\n{end}": whole, page)
        assert count == 1, f"docs/isolation.md has {count} parts for {name}"
    return page


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))

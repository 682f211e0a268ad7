"""The documentation is complete and nothing in it leads nowhere."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from tenantry.api.archive import ArchivePhase
from tenantry.api.common import PENDING_STATUS
from tenantry.api.crds import KINDS
from tenantry.domain.reasons import Action, ConditionType, Reason
from tests.conftest import REPOSITORY
from tests.integration.guide import PAGE, blocks

DOCS = REPOSITORY / "docs"
PAGES = sorted(
    path
    for folder in (".", "docs", "docs/kinds", "helm/tenantry", "helm/tenantry-crds")
    for path in (REPOSITORY / folder).glob("*.md")
)

_FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


@cache
def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(page)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (unique := f"{anchor}-{number}" if number else anchor) in found:
            number += 1
        found.add(unique)
    return found


def section(page: Path, title: str) -> str:
    """Return what is under a heading of the second level."""
    return prose(page).split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[str]:
    """Return the first cell of each row of the tables in a text, as it is between backquotes."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


# --- links -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(REPOSITORY)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target in _LINK.findall(prose(page)):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert not lost


def test_every_page_is_reached_from_the_readme() -> None:
    reached, waiting = set(), [REPOSITORY / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        names = (target.partition("#")[0] for target in _LINK.findall(prose(page)) if "://" not in target)
        waiting += [(page.parent / name).resolve() for name in names if name]
    assert set(DOCS.rglob("*.md")) <= reached


# --- conditions ------------------------------------------------------------------------------------------------

CONDITIONS = DOCS / "conditions.md"


def test_every_condition_is_explained() -> None:
    assert rows(section(CONDITIONS, "Conditions")) == list(ConditionType)


def test_every_reason_is_explained_and_no_other() -> None:
    explained = re.findall(r"^#### `(\w+)`$", section(CONDITIONS, "Reasons"), re.MULTILINE)
    assert sorted(explained) == sorted(Reason)
    assert PENDING_STATUS["conditions"][0]["reason"] == Reason.PENDING


def test_every_reason_tells_who_must_act() -> None:
    for text in section(CONDITIONS, "Reasons").split("\n#### ")[1:]:
        name, _, body = text.partition("\n")
        acts = re.search(r"\*\*[^*]+\*\*|Nobody must act|Set it to false|see `ChildDiffers`", body)
        assert acts, f"{name}: who must act, and how"


def test_every_event_is_told_of_and_no_other() -> None:
    assert sorted(rows(section(CONDITIONS, "Events"))) == sorted({*Action, *ArchivePhase})


# --- kinds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_the_example_of_a_kind_shows_every_field_of_its_spec(kind: type) -> None:
    page = (DOCS / "kinds" / f"{kind.__name__.lower()}.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    shown = set(yaml.safe_load(example)["spec"])
    fields = set(re.findall(r"^\| `spec\.(\w+)` \|", page, re.MULTILINE))
    # No shard exists before vectors do; the operator writes it when there is one.
    assert fields - shown <= {"placement"}
    assert shown <= fields


# --- the operations guide --------------------------------------------------------------------------------------


def test_every_block_of_the_guide_is_run_or_says_why_not() -> None:
    text = PAGE.read_text(encoding="utf-8")
    fences = len(re.findall(r"^ *```\w", text, re.MULTILINE))
    excused = len(re.findall(r"^ *<!-- not run: .+ -->\n *```sh$", text, re.MULTILINE))
    assert fences == len(blocks(text)) + excused


def test_every_block_of_the_guide_is_used_by_a_story() -> None:
    modules = sorted((REPOSITORY / "tests/integration").glob("test_operations*.py"))
    stories = "".join(module.read_text(encoding="utf-8") for module in modules)
    unused = [name for name in blocks(PAGE.read_text(encoding="utf-8")) if f'"{name}"' not in stories]
    assert not unused

"""A page of commands and their output, run again: what a reader sees is what happens.

A transcript is every fenced `console` block of a Markdown page, top to bottom:

    $ kubectl get tenants            a command; lines that begin with "> " continue it
    NAME   PLAN   PHASE ...          its output, standard output and errors together

Times, ages and identifiers differ from run to run. `Canon` replaces them by fixed ones and moves columns
accordingly, so that the page is compared, and written, to the letter.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
"""When everything on a page happens."""

AGE = "5s"
VERSION = "1042"

_FENCE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_RESOURCE_VERSION = re.compile(r"((?:Resource Version: +|resourceVersion: \"))\d+")
_DIFFED = re.compile(r"\S*/(LIVE|MERGED)-\d+/")
_TIME = re.compile(r"\b(\d{4}-\d\d-\d\d)([T ])(\d\d:\d\d:\d\d)(?:\.\d+)?(Z| \+0000(?: UTC)?)")
_UID = re.compile(r"\b([0-9a-f]{8})-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_SHORT_UID = re.compile(r"(?<=-)([0-9a-f]{8})\b(?!-)")
"""As in the name of a TenantArchive."""

_DURATION = r"(?:\d+[smhd])+"
_COUNTED = re.compile(rf"\(x(\d+) over {_DURATION}\)")
_AGES = frozenset({"AGE", "LAST SEEN", "Age"})


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page and the output that the page shows; `line` is where it stands."""

    line: int
    text: str
    output: str


def commands(page: str) -> list[Command]:
    """Return the commands of a page in order."""
    return [command for block in _FENCE.finditer(page) for command in _block(page, block)]


def rewritten(page: str, outputs: Callable[[Command], str]) -> str:
    """Return the page with the output of each command replaced."""

    def replaced(block: re.Match[str]) -> str:
        shown = []
        for command in _block(page, block):
            prompt = "$ " + command.text.replace("\n", "\n> ")
            shown.append("\n".join(filter(None, (prompt, outputs(command)))))
        return "```console\n" + "\n".join(shown) + "\n```"

    return _FENCE.sub(replaced, page)


def _block(page: str, block: re.Match[str]) -> Iterator[Command]:
    began = page.count("\n", 0, block.start(1)) + 1
    text: list[str] = []
    output: list[str] = []
    for number, line in enumerate(block[1].splitlines(), began):
        if line.startswith("> ") and text and not output:
            text.append(line[2:])
            continue
        if not line.startswith("$ "):
            output.append(line)
            continue
        if text:
            yield Command(began, "\n".join(text), "\n".join(output))
        text, output, began = [line[2:]], [], number
    if text:
        yield Command(began, "\n".join(text), "\n".join(output))


class Canon:
    """Replaces what differs between two runs; an identifier gets the same replacement on the whole page."""

    def __init__(self) -> None:
        self._uids: dict[str, uuid.UUID] = {}

    def __call__(self, output: str) -> str:
        """Return output with fixed times, ages and identifiers, and columns that fit them."""
        output = _RESOURCE_VERSION.sub(rf"\g<1>{VERSION}", output)
        output = _DIFFED.sub(r"/tmp/\1/", output)
        output = _TIME.sub(_fixed_time, output)
        output = _UID.sub(lambda found: str(self._fixed(found[1])), output)
        output = _SHORT_UID.sub(lambda found: str(self._fixed(found[1]))[:8], output)
        return "\n".join(line.rstrip() for line in _tables(output.rstrip().split("\n")))

    def _fixed(self, digits: str) -> uuid.UUID:
        name = f"{len(self._uids)}.tenantry.dev"
        return self._uids.setdefault(digits, uuid.uuid5(uuid.NAMESPACE_DNS, name))


def _fixed_time(found: re.Match[str]) -> str:
    """Keep how many days from now a time is."""
    when = datetime.fromisoformat(f"{found[1]}T{found[3]}+00:00")
    fixed = NOW + timedelta(days=round((when - datetime.now(UTC)) / timedelta(days=1)))
    return f"{fixed:%Y-%m-%d}{found[2]}{fixed:%H:%M:%S}{found[4]}"


def _tables(lines: list[str]) -> Iterator[str]:
    """Set tables anew that have a column of ages: the width of a column follows its longest cell."""
    number = 0
    while number < len(lines):
        starts = _columns(lines[number])
        end = number + 1
        if starts is None:
            yield lines[number]
        else:
            while end < len(lines) and lines[end].strip():
                end += 1
            yield from _table(lines[number:end], starts)
        number = end


def _columns(header: str) -> list[int] | None:
    """Return where the columns of a header begin, None where the line heads no table with ages."""
    cells = list(re.finditer(r"\S+(?: \S+)*", header))
    return [cell.start() for cell in cells] if _AGES & {cell[0] for cell in cells} else None


def _table(lines: list[str], starts: list[int]) -> list[str]:
    ends = [*starts[1:], None]
    rows = [[line[start:end].strip() for start, end in zip(starts, ends, strict=True)] for line in lines]
    for column, title in enumerate(rows[0]):
        if title in _AGES:
            for row in rows[1:]:
                row[column] = re.sub(rf"^{_DURATION}", AGE, _COUNTED.sub(rf"(x\1 over {AGE})", row[column]))
    # kubectl's two ways: `get` and `events` against `describe`.
    gap, least = (3, 6) if rows[0][0].isupper() else (2, 0)
    widths = [max(least, *(len(row[column]) + gap for row in rows)) for column in range(len(starts) - 1)]
    return [" " * starts[0] + "".join(map(str.ljust, row[:-1], widths)) + row[-1] for row in rows]

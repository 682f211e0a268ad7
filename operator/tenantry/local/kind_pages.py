"""The tables in docs/kinds: fields, columns and field selectors of each kind, from its CustomResourceDefinition."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tenantry.api.crds import KINDS, crd_document
from tenantry.local.errors import LocalError

FOLDER = "docs/kinds"

_DEFAULT: Final = re.compile(r" Defaults to [^.]+\.$")
"""Said in a column of its own."""

_MARKS: Final = re.compile(r"(<!-- generated: .* -->\n).*(<!-- /generated -->\n)", re.DOTALL)

JsonObject = dict[str, Any]


def updated(root: Path) -> dict[str, str]:
    """The text of every page as it should be, by its path below `root`, a checkout. Raises LocalError, OSError."""
    pages = {}
    for kind in KINDS:
        name = f"{FOLDER}/{kind.__name__.lower()}.md"
        page = (root / name).read_text(encoding="utf-8")
        if not _MARKS.search(page):
            raise LocalError(
                f"{root / name} has no place for the fields, between <!-- generated: ... --> and <!-- /generated -->"
            )
        tables = render(crd_document(kind))
        pages[name] = _MARKS.sub(lambda found, tables=tables: found[1] + tables + found[2], page)  # type: ignore[misc]
    return pages


def render(definition: JsonObject) -> str:
    """The tables of one kind, as Markdown."""
    (version,) = definition["spec"]["versions"]
    fields = version["schema"]["openAPIV3Schema"]["properties"]
    parts = [
        _table("## Spec", ("field", "type", "default", "meaning"), _fields(fields["spec"], "spec")),
        _table("## Status", ("field", "type", "meaning"), _status(fields["status"])),
        _table(
            "## Columns of `kubectl get`",
            ("column", "shows", "with"),
            (
                (column["name"].upper(), column["description"], "`-o wide`" if column.get("priority") else "")
                for column in version["additionalPrinterColumns"]
            ),
        ),
    ]
    selectors = [f"`{field['jsonPath'][1:]}`" for field in version.get("selectableFields", [])]
    if selectors:
        parts.append(f"\nField selectors, as in `kubectl get --field-selector`: {', '.join(selectors)}.\n")
    return "".join(parts)


def _table(title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["", title, "", _row(columns), "|" + " --- |" * len(columns), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    """A row of a table; what Markdown would take for a tag or a border is escaped."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace('<', '&lt;') for cell in cells)} |"


def _fields(schema: JsonObject, path: str) -> Iterator[tuple[str, str, str, str]]:
    """Path, type, default and description of each field below `schema`, in the order of the schema."""
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        default = "required" if name in required else _default(field)
        yield f"`{where}`", _type(field), default, _DEFAULT.sub("", field.get("description", ""))
        yield from _fields(*_inside(field, where))


def _status(schema: JsonObject) -> Iterator[tuple[str, str, str]]:
    """The same without defaults; conditions are explained in docs/conditions.md."""
    for where, kind, _, meaning in _fields(schema, "status"):
        if not where.startswith("`status.conditions[]."):
            yield where, kind, meaning


def _inside(field: JsonObject, where: str) -> tuple[JsonObject, str]:
    """The schema of what a field holds, and the path to it."""
    if "items" in field:
        return field["items"], f"{where}[]"
    if isinstance(field.get("additionalProperties"), dict):
        return field["additionalProperties"], f"{where}.*"
    return field, where


def _type(field: JsonObject) -> str:
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "items" in field:
        return f"list of {_type(field['items'])}"
    if isinstance(field.get("additionalProperties"), dict):
        return f"map of {_type(field['additionalProperties'])}"
    named = {"date-time": "time", "int64": "integer", "int32": "integer"}
    return named.get(field.get("format", "")) or str(field.get("type", "any"))


def _default(field: JsonObject) -> str:
    return f"`{json.dumps(field['default'])}`" if field.get("default") not in (None, "") else ""

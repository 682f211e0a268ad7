"""The table of values in a chart's README.md, from its values.schema.json and its values.yaml."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tenantry.local.errors import LocalError

_MARKS = re.compile(r"(<!-- values: .* -->\n).*(<!-- /values -->\n)", re.DOTALL)

JsonObject = dict[str, Any]


def updated(folder: Path) -> str:
    """The README.md of a chart with its table as it should be. Raises LocalError, OSError."""
    readme = (folder / "README.md").read_text(encoding="utf-8")
    if not _MARKS.search(readme):
        raise LocalError(
            f"{folder / 'README.md'} has no place for the values, between <!-- values: ... --> and <!-- /values -->"
        )
    table = "| value | default | meaning |\n| --- | --- | --- |\n" + "".join(_rows(folder))
    return _MARKS.sub(lambda found: found[1] + table + found[2], readme)


def _rows(folder: Path) -> Iterator[str]:
    schema = json.loads((folder / "values.schema.json").read_text(encoding="utf-8"))
    defaults = yaml.safe_load((folder / "values.yaml").read_text(encoding="utf-8"))
    for name, default, description in leaves(schema, defaults):
        shown = "" if default in (None, "") else f"`{json.dumps(default, separators=(', ', ': '))}`"
        yield f"| `{name}` | {shown} | {description} |\n"


def leaves(schema: JsonObject, defaults: JsonObject, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Path, default and description of each value, in the order of values.yaml.

    A value whose content is free, such as `nodeSelector`, is one.
    """
    for key, default in defaults.items():
        field = schema["properties"][key]
        name = f"{path}{key}"
        if isinstance(default, dict) and "properties" in field and default:
            yield from leaves(field, default, f"{name}.")
        else:
            yield name, default, field["description"]

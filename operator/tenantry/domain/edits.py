"""What an edit of a spec did, in words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

MOST_TOLD = 5

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,39}")
"""Names, numbers and quantities. Not people's addresses nor prose: more people read Events than specs."""


def in_words(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return what changed from one spec to the next: ``changed spec.plan from free to pro and removed ...``."""
    done = [_told(*difference) for difference in _differences("spec", before, after)]
    if len(done) > MOST_TOLD:
        told = done[: MOST_TOLD - 1]
        done = [*told, f"changed {len(done) - len(told)} more fields"]
    if not done:
        return "changed the spec"
    *first, last = done
    return f"{', '.join(first)} and {last}" if first else last


def _differences(
    path: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the path of each field that differs, with both values; None where it is unset."""
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was == now:
            continue
        objects = all(value is None or isinstance(value, Mapping) for value in (was, now))
        within = _differences(f"{path}.{name}", was or {}, now or {}) if objects else ()
        yield from list(within) or [(f"{path}.{name}", was, now)]


def _told(path: str, was: Any, now: Any) -> str:
    old, new = _plain(was), _plain(now)
    if now is None:
        return f"removed {path}"
    if was is None:
        return f"set {path}" + (f" to {new}" if new else "")
    return f"changed {path}" + (f" from {old} to {new}" if old and new else "")


def _plain(value: Any) -> str:
    """Return a value that is short and says nothing about people, empty for any other."""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if isinstance(value, bool | int | str) and _PLAIN.fullmatch(text) else ""

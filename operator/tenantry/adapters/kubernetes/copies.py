"""The newest version of each Tenant that was seen: an edit of a Plan with 500 tenants asks for none of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


class Copies:
    """Tenants by name, as JSON: an eighth of what they take as objects, and nobody changes what others read."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}

    def keep(self, name: str, manifest: Mapping[str, Any]) -> None:
        """Remember a Tenant in place of what was known of that name; one that is nested too deeply has to be read."""
        try:
            self._kept[name] = orjson.dumps(manifest)
        except TypeError:
            self.drop(name)

    def get(self, name: str) -> dict[str, Any] | None:
        """Return a copy that is the caller's own, None where there is none."""
        kept = self._kept.get(name)
        if kept is None:
            return None
        manifest: dict[str, Any] = orjson.loads(kept)
        return manifest

    def drop(self, name: str) -> None:
        """Forget a Tenant that is gone, or whose copy is not to be trusted."""
        self._kept.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._kept

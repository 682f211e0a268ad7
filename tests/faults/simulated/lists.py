"""Whole lists of the fake API server, for the operator's own code that lists everything anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tenantry.adapters.kubernetes.kinds import CHILD_KINDS, OWN_KINDS
from tests.faults.simulated.apiserver import ApiServer, is_watched

Answer = dict[str, Any]

KINDS = {kind.path(): kind.kind for kind in (*OWN_KINDS, *CHILD_KINDS)}
"""By path."""


class Lists:
    """As much of `adapters.kubernetes.client.Client` as lists need.

    `meanwhile` is called when a list has been made and its answer is on its way.
    """

    def __init__(self, api: ApiServer, meanwhile: Callable[[], object]) -> None:
        self._api = api
        self._meanwhile = meanwhile
        self._kept: dict[str, Answer] = {}

    def keep(self) -> None:
        """Make all lists now, for whoever asks for them next, however long that is."""
        self._kept = {path: self._made(path) for path in KINDS}

    async def send(self, method: str, path: str, *, query: Mapping[str, Any]) -> Answer:
        """Answer a list."""
        assert method == "GET"
        answer = self._kept.pop(path, None) or self._made(path)
        self._meanwhile()
        return answer

    def _made(self, path: str) -> Answer:
        items = [item for item in self._api.list(KINDS[path]) if is_watched(item)]
        return {"metadata": {"resourceVersion": str(self._api.version)}, "items": items}

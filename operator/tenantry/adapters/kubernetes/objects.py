"""Reads and writes on the API server, fenced by the Lease; each answer goes straight into what is seen."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from tenantry.adapters.kubernetes.client import APPLY, JSON, MERGE, Client
from tenantry.adapters.kubernetes.events import Events
from tenantry.adapters.kubernetes.kinds import KINDS, Kind
from tenantry.domain import names
from tenantry.reconcile.ports import Conflict, Manifest, Missing, Refused

_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

Writing = Callable[[str, str, str], AbstractContextManager[None]]
"""Called with a kind, a namespace and a name."""


class ApiObjects:
    """The port `Objects` on a real API server.

    leads: asked before each time that a write is sent; a process that has lost its Lease writes nothing more.
    wrote, gone: told of each write's outcome, so that a reconcile sees its own writes before the watch brings
    them. writing: encloses each write of the object that it is called with. conflicted: told the kind and name of
    an object that is not as it was seen, by a write of it that met a Conflict.
    """

    def __init__(
        self,
        client: Client,
        leads: Callable[[], bool],
        wrote: Callable[[Manifest], None],
        gone: Callable[[str, str, str, str], None],
        writing: Writing = lambda *_: nullcontext(),
        conflicted: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._client = client
        self._leads = leads
        self._wrote = wrote
        self._gone = gone
        self._writing = writing
        self._conflicted = conflicted
        self._events = Events(client, leads)

    async def get(self, kind: str, name: str, namespace: str = "") -> Manifest | None:
        """Read one object as it is now; None where there is none."""
        try:
            return _typed(await self._client.send("GET", KINDS[kind].path(name, namespace)), KINDS[kind])
        except LookupError:
            return None

    async def apply(self, manifest: Manifest, *, manager: str = names.MANAGER) -> Manifest:
        """Server-side apply, forced; returns the object as stored."""
        return await self._write("PATCH", manifest, content_type=APPLY, manager=manager, force=True)

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; one of that name that is there already raises Conflict."""
        return await self._write("POST", manifest, content_type=JSON)

    async def apply_status(self, manifest: Manifest, *, manager: str = names.MANAGER) -> Manifest:
        """Server-side apply on the status subresource; returns the object as stored."""
        return await self._write(
            "PATCH", manifest, content_type=APPLY, manager=manager, subresource="status", force=True
        )

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace the object; `metadata.resourceVersion` is the condition.

        The API server compares the data of a ControllerRevision byte by byte: it is spelled as Python's own encoder
        does, whose blanks no patch would keep.
        """
        text = json.dumps(manifest).encode() if manifest["kind"] == "ControllerRevision" else None
        return await self._write("PUT", manifest, content_type=JSON, text=text)

    async def patch(self, manifest: Manifest, changes: Mapping[str, Any]) -> Manifest | None:
        """Merge changes into the metadata of the very object read (uid and resourceVersion are the condition).

        Returns the object as stored, None where it went away meanwhile.
        """
        kept = ("name", "namespace", "uid", "resourceVersion")
        metadata = {key: manifest["metadata"][key] for key in kept if key in manifest["metadata"]}
        body = {
            "apiVersion": manifest["apiVersion"],
            "kind": manifest["kind"],
            "metadata": {**metadata, **changes},
        }
        try:
            return await self._write("PATCH", body, content_type=MERGE)
        except Missing:
            return None

    async def delete(
        self, kind: str, name: str, namespace: str = "", *, uid: str, resource_version: str | None = None
    ) -> None:
        """Delete that very object; one that is gone, or another by the same name, is no error.

        With a resourceVersion, an object that changed since raises Conflict.
        """
        conditions = {"uid": uid, **({"resourceVersion": resource_version} if resource_version else {})}
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": conditions}
        body["propagationPolicy"] = "Background"
        try:
            answer = await self._client.send(
                "DELETE", KINDS[kind].path(name, namespace), body=body, allowed=self._leads
            )
        except LookupError:
            self._gone(kind, namespace, name, uid)
            return
        except Conflict:
            if resource_version is not None or await self._is(kind, name, namespace, uid):
                raise
            return
        if answer.get("kind") == kind and answer["metadata"].get("deletionTimestamp"):
            self._wrote(answer)
        else:
            self._gone(kind, namespace, name, uid)

    async def try_create(self, manifest: Manifest) -> None:
        """Have the API server judge an object, which is not created: Refused where it would not let it in.

        That one of its name is there already is found last, after admission, and is no reason.
        """
        path = KINDS[manifest["kind"]].path(namespace=manifest["metadata"].get("namespace", ""))
        query = {"fieldManager": names.MANAGER, "dryRun": "All"}
        with suppress(Conflict):
            await self._client.send("POST", path, query=query, body=manifest, allowed=self._leads)

    async def may(self, verb: str, kind: str, name: str) -> bool:
        """Return whether the API server would let us do that to a cluster-scoped object; it is not done.

        Everybody may ask that about themselves; where that right was taken away the answer is no.
        """
        group = KINDS[kind].api_version.rpartition("/")[0]
        asked = {"group": group, "resource": KINDS[kind].plural, "verb": verb, "name": name}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        try:
            answer = await self._client.send("POST", _ACCESS_REVIEWS, body=body)
        except Refused:
            return False
        return bool(answer["status"].get("allowed"))

    async def emit(self, about: Manifest, reason: str, message: str, *, warning: bool = False) -> None:
        """Send an Event about an object, beside the reconcile. Never raises or waits: an Event is a courtesy."""
        self._events.send(about, reason, message, warning)

    async def drain(self, seconds: float) -> None:
        """Give the Events that are on their way so long, and no longer."""
        await self._events.drain(seconds)

    async def _is(self, kind: str, name: str, namespace: str, uid: str) -> bool:
        """Return whether the object by that name is still that very one."""
        found = await self.get(kind, name, namespace)
        return found is not None and found["metadata"]["uid"] == uid

    async def _write(
        self,
        method: str,
        manifest: Manifest,
        *,
        content_type: str,
        manager: str = names.MANAGER,
        subresource: str = "",
        force: bool = False,
        text: bytes | None = None,
    ) -> Manifest:
        kind = KINDS[manifest["kind"]]
        metadata = manifest["metadata"]
        name = "" if method == "POST" else metadata["name"]
        path = kind.path(name, metadata.get("namespace", ""), subresource)
        query = {"fieldManager": manager, **({"force": "true"} if force else {})}
        with self._writing(kind.kind, metadata.get("namespace", ""), metadata["name"]):
            try:
                answer = await self._client.send(
                    method,
                    path,
                    query=query,
                    body=text or manifest,
                    content_type=content_type,
                    allowed=self._leads,
                )
            except LookupError as error:
                # The namespace, or the object itself, went away since it was read.
                self._conflicted(kind.kind, metadata["name"])
                raise Missing(str(error)) from error
            except Conflict:
                self._conflicted(kind.kind, metadata["name"])
                raise
            stored = _typed(answer, kind)
            self._wrote(stored)
        return stored


def _typed(answer: Manifest, kind: Kind) -> Manifest:
    """Return an object with its kind: items of lists come without."""
    answer["kind"] = kind.kind
    answer["apiVersion"] = kind.api_version
    return answer

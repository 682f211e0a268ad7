"""The Secret by which an application uses its tenant's place on a vector shard."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping

from tenantry.desired.owner import Manifest, Owner, child
from tenantry.domain import names


def vector_store(owner: Owner, contents: Mapping[str, str]) -> Manifest:
    """Return the Secret with the contents that the shard's engine gives."""
    data = {key: b64encode(contents[key].encode()).decode() for key in sorted(contents)}
    return child(owner, "v1", "Secret", names.VECTOR_STORE, type="Opaque", data=data)

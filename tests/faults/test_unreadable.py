"""Objects that a JSON decoder refuses, in every list and watch that the operator keeps for all tenants together.

An API server passes some of what people write on as it was written: 10,000 levels deep, with halves of characters.
Members of a tenant may write none of these objects (tests/integration/attacks). Who writes Tenants may, and the
controllers and backups of others; and members, where admission policies are off.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

from tenantry.domain import names
from tests.conftest import Cluster
from tests.faults.hostile import archive, tenant
from tests.integration.conftest import Api, OperatorProcess, is_ready, running

Object = dict[str, Any]

CALM = 60.0
"""Seconds in which everything must have come to its end; nothing is measured here."""

DEPTHS = (900, 9_000)
"""Levels: orjson reads 1,024 and writes 254, Python's own decoder reads a little less than 1,000."""

REVISIONS = "/apis/apps/v1/namespaces/default/controllerrevisions"
ARCHIVES = "/apis/tenantry.dev/v1alpha1/tenantarchives"
TENANTS = "/apis/tenantry.dev/v1alpha1/tenants"
OURS = {names.MANAGED_BY: names.MANAGER}

FREE_FORM: dict[str, str] = {
    **{f"map-{depth}": '{"a":' * depth + "1" + "}" * depth for depth in DEPTHS},
    **{f"list-{depth}": '{"a":' + "[" * depth + "]" * depth + "}" for depth in DEPTHS},
    "brackets-in-texts": '{"a":"[{\\"\\\\' + "[" * 9_000 + '","b":' + "[" * 9_000 + "]" * 9_000 + "}",
    "half-a-character": '{"a":"\\ud83d","b":"\\\\ud83d","c":"\\ud83d\\ude00","d":"\\\\\\ud83d"}',
    "the-other-half": '{"\\ude00":1}',
    "a-key-twice": '{"a":1,"a":{"a":2}}',
    "a-long-fraction": '{"a":0.' + "9" * 5_000 + "}",
}
"""JSON where an API server takes any, as it is written."""

HERE = '"HERE"'


def revision(name: str) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {"name": name, "namespace": "default"},
        "revision": 1,
        "data": json.loads(HERE),
    }


def managed(document: Object) -> Object:
    """An object that says of itself who manages fields of it."""
    entry = {
        "manager": "deep",
        "operation": "Update",
        "apiVersion": document["apiVersion"],
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": json.loads(HERE),
    }
    return {**document, "metadata": {**document["metadata"], "managedFields": [entry]}}


def plain(kind: str, name: str, **metadata: Any) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, **metadata}}


def documents() -> dict[str, str]:
    """By path, kind by kind: an object as JSON."""
    found = {}
    for case, content in FREE_FORM.items():
        found[f"{REVISIONS}/{case}"] = json.dumps(revision(case)).replace(HERE, content)
        kept = archive(tenantSpec=json.loads(HERE), tenant=case)
        kept["metadata"]["name"] = f"{case}-1f0c9a2e"
        found[f"{ARCHIVES}/{case}-1f0c9a2e"] = json.dumps(kept).replace(HERE, content)
    for depth in DEPTHS:
        name = f"deep-{depth}"
        fields = '{"f:a":' * depth + "{}" + "}" * depth
        for path, document in {
            f"{TENANTS}/{name}": tenant(name, deletionPolicy="Delete"),
            f"/api/v1/namespaces/default/configmaps/{name}": plain("ConfigMap", name, labels=OURS),
            f"/api/v1/namespaces/{name}": plain("Namespace", name),
        }.items():
            found[path] = json.dumps(managed(document)).replace(HERE, fields)
    return dict(sorted(found.items()))


async def an_edit_gets_through(api: Api, text: str) -> None:
    """A Tenant's edit, and a child's repair."""
    await api.patch("Tenant", "innocent", {"spec": {"displayName": text}})
    await api.until("Tenant", "innocent", is_ready, timeout=CALM)
    await api.patch("ConfigMap", "tenant-config", {"data": {"more": text}}, "tenant-innocent")
    await api.until(
        "ConfigMap",
        "tenant-config",
        lambda found: found is not None and "more" not in found["data"],
        "tenant-innocent",
        timeout=CALM,
    )


async def test_what_no_decoder_reads_hides_nothing_else(
    cluster: Cluster, api: Api, tmp_path_factory: Any
) -> None:
    operator = OperatorProcess(cluster, tmp_path_factory.mktemp("operator"))
    with running(operator):
        await operator.start()
        await api.apply(tenant("innocent", plan="pro"))
        await api.until("Tenant", "innocent", is_ready, timeout=CALM)
        for where, those in groupby(documents(), lambda path: path.rpartition("/")[0]):
            for path in those:
                cluster.kubectl("create", "--raw", where, "-f", "-", input=documents()[path])
            await an_edit_gets_through(api, where)
        assert operator.process is not None
        assert operator.process.poll() is None
        assert operator.stop() == 0

        await operator.start()
        await an_edit_gets_through(api, "restart")
        for depth in DEPTHS:
            cluster.kubectl("wait", "--for=condition=Ready", f"tenant/deep-{depth}", f"--timeout={CALM:g}s")
            cluster.kubectl("delete", f"tenant/deep-{depth}", f"--timeout={CALM:g}s")
        for path in documents():
            if TENANTS not in path:
                cluster.kubectl("delete", "--raw", path)
        await an_edit_gets_through(api, "end")
        said = operator.log.read_text()
        for name in ("ControllerRevision default/map-9000", "Tenant deep-9000", "Namespace deep-9000"):
            assert f"{name} is read but for what is nested in it more than" in said
        assert "Traceback" not in said

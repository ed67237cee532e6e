"""The files in examples/monitoring: they use metrics that there are, and the alert rules fire when they should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from entrypoint.report.answers import Lags
from entrypoint.serve.metrics import AgentInit
from entrypoint.serve.state import State

if TYPE_CHECKING:
    from prometheus_client import Metric

PROJECT = Path(__file__).parents[2]
MONITORING = PROJECT / "examples" / "monitoring"
NAME = re.compile(r"agent_init_\w+")

FIELDS = dict(
    line.split("=", 1)
    for line in """VERSION=1.0
STATE=stopping
SINCE=1.0
STARTED=1.0
WAS_READY=1
AGENT=2
REQUESTED=2.0
KILL=9.0
WATCHDOG=5.0
LAST_PING=2.0
OOM_BEFORE=0
FORWARDED=USR1:1
REAPED=1
REFUSED=0""".splitlines()
)


def families() -> list[Metric]:
    """All metrics, where everything is known."""
    memory = SimpleNamespace(used=1, peak=1, limit=1, oom_kills=lambda _: 0)
    measures: Any = SimpleNamespace(memory=memory, tree=SimpleNamespace(processes=1, cpu_seconds=1.0, resident_bytes=1))
    source: Any = SimpleNamespace(state=State(FIELDS), version=1)
    lags = Lags(0.1, (0.1,), (1, 1), 1.0, 1)
    loops: Any = SimpleNamespace(lags=lags, can_answer=True, silent=0, blocked_seconds=0.0)
    return list(AgentInit(source, measures, loops).collect())


def samples() -> set[str]:
    """The names of all samples."""
    return {sample.name for family in families() for sample in family.samples}


def test_the_dashboard_uses_metrics_that_there_are() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= len(dashboard["panels"]) > 10
    assert {name for query in queries for name in NAME.findall(query)} <= samples()


@pytest.mark.parametrize("file", ["alerts.yaml", "alerts-test.yaml"])
def test_the_alert_rules_use_metrics_that_there_are(file: str) -> None:
    found = set(NAME.findall((MONITORING / file).read_text()))
    assert len(found) > 5
    assert found <= samples()


def test_the_documentation_lists_each_metric() -> None:
    page = (PROJECT / "docs" / "http.md").read_text()
    histograms = [family for family in families() if family.type == "histogram"]
    parts = {sample.name for family in histograms for sample in family.samples}
    listed = samples() - parts | {family.name for family in histograms}
    short = {"agent_init_memory_peak_bytes", "agent_init_memory_limit_bytes"}  # `_peak_bytes`, after their prefix
    assert listed - short <= set(NAME.findall(page)) <= listed


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_the_alert_rules_fire_when_they_should() -> None:
    for command in (["check", "config", "prometheus.yaml"], ["test", "rules", "alerts-test.yaml"]):
        ran = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=60)
        assert ran.returncode == 0, ran.stdout + ran.stderr

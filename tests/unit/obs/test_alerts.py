"""The shipped alerts speak of metrics, labels and reasons that exist."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
import yaml

from trimtab.api.openai import ErrorCode
from trimtab.model.reason import ReasonCode
from trimtab.obs.metrics import ExtenderMetrics, GatewayMetrics, OperatorMetrics

FILE = Path(__file__).parents[3] / "manifests" / "monitoring" / "alerts.yaml"
RULES: list[dict[str, Any]] = [rule for group in yaml.safe_load(FILE.read_text())["groups"] for rule in group["rules"]]


def label_names() -> dict[str, set[str]]:
    """Every sample name that a process can show, with the labels that it has."""
    names: dict[str, set[str]] = {}
    for metrics in (OperatorMetrics(), ExtenderMetrics(), GatewayMetrics()):
        for collector, samples in metrics.registry._collector_to_names.items():
            for sample in samples:
                names[sample] = set(getattr(collector, "_labelnames", ()))
    return names


KNOWN = label_names()


def selectors(rule: dict[str, Any]) -> list[tuple[str, str]]:
    """Return each metric that a rule uses, with what stands in its braces."""
    return re.findall(r"\b(trimtab_\w+)(?:\{([^}]*)\})?", rule["expr"])


def alternatives(text: str) -> list[str]:
    return [one for _, values in re.findall(r'(\w+)=~?"([^"]*)"', text) for one in values.split("|")]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_uses_metrics_and_labels_that_exist(rule: dict[str, Any]) -> None:
    used = selectors(rule)
    assert used
    for name, inside in used:
        assert name in KNOWN
        assert set(re.findall(r"(\w+)=", inside)) <= KNOWN[name]
    shown = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
    assert shown <= {label for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in by.split(", ")}


@pytest.mark.parametrize(
    ("metric", "codes"), [("trimtab_operator_pools", ReasonCode), ("trimtab_gateway_requests_total", ErrorCode)]
)
def test_codes_in_alerts_are_codes_that_exist(metric: str, codes: type[StrEnum]) -> None:
    named = {
        code for rule in RULES for name, inside in selectors(rule) if name == metric for code in alternatives(inside)
    }
    assert named
    assert named <= {code.value for code in codes}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "description"}
    assert all(text and not text.endswith(".") for text in [rule["annotations"]["summary"]])


def test_names_are_unique() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) >= 5

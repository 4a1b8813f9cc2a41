"""The labelled corpus: what is wrong with each log is found, and nothing else is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dpo_telemetry.foreign.open import open_log
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.diagnosis import RULES, Diagnosis
from dpo_telemetry.health.rule import Context

CORPUS = Path(__file__).parent / "corpus"
LABELS: dict[str, dict[str, Any]] = json.loads((CORPUS / "labels.json").read_bytes())
HEALTHY = [name for name, label in LABELS.items() if not label["expect"]]
EACH_LOG = pytest.mark.parametrize("name", LABELS)


def alerts_of(name: str) -> list[HealthAlert]:
    """What is found in a log, as a reader who knows what its label says would find it."""
    label = LABELS[name]
    log = open_log(CORPUS / label["split"] / f"{name}.json")
    if label["beta"] is None and label["loss_kind"] is None:
        return log.alerts
    diagnosis = Diagnosis(Context(beta=label["beta"], loss_kind=label["loss_kind"]))
    for table in (log.series.train, log.series.eval):
        diagnosis.feed(table.rows(table.effective_rows()))
    return diagnosis.alerts()


@EACH_LOG
def test_what_is_wrong_is_found(name: str) -> None:
    label = LABELS[name]
    found = {alert.code for alert in alerts_of(name) if alert.severity != "info" or label.get("info")}
    assert set(label["expect"]) <= found, label["why"]


@EACH_LOG
def test_nothing_else_is_raised(name: str) -> None:
    label = LABELS[name]
    admitted = {*label["expect"], *label["allow"]}
    raised = [alert for alert in alerts_of(name) if alert.severity != "info"]
    assert [alert for alert in raised if alert.code not in admitted] == [], label["why"]


def diagnosed_in_pieces(name: str, piece: int) -> Iterator[Diagnosis]:
    """The diagnosis after each few training rows, as a live run is looked at, and then with the evaluations."""
    label = LABELS[name]
    series = open_log(CORPUS / label["split"] / f"{name}.json").series
    diagnosis = Diagnosis(Context(beta=label["beta"], loss_kind=label["loss_kind"]))
    for table in (series.train, series.eval):
        order = table.effective_rows()
        for start in range(0, len(order), piece):
            diagnosis.feed(table.rows(order[start : start + piece]))
            yield diagnosis
    yield diagnosis


@EACH_LOG
def test_a_live_run_ends_with_the_alerts_of_its_replay(name: str) -> None:
    whole, pieces = (list(diagnosed_in_pieces(name, piece))[-1].alerts() for piece in (1 << 16, 7))
    assert pieces == whole


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_silent_all_the_way(name: str) -> None:
    for diagnosis in diagnosed_in_pieces(name, 1):
        assert [alert for alert in diagnosis.alerts() if alert.severity != "info"] == []


@pytest.mark.parametrize("name", [name for name, label in LABELS.items() if label["expect"]])
def test_an_alert_that_was_taken_back_does_not_come_again(name: str) -> None:
    raised: Counter[tuple[str, str | None]] = Counter()
    before: set[tuple[str, str | None]] = set()
    for diagnosis in diagnosed_in_pieces(name, 1):
        now = {(alert.code, alert.metric) for alert in diagnosis.alerts() if alert.severity != "info"}
        raised.update(now - before)
        before = now
    assert [key for key, times in raised.items() if times > 1] == []


def test_each_label_has_its_log_and_each_log_its_label() -> None:
    logs = {(path.parent.name, path.stem) for path in CORPUS.glob("*/*.json")}
    assert logs == {(label["split"], name) for name, label in LABELS.items()}


def test_the_corpus_is_large_and_a_fifth_is_kept_apart() -> None:
    held = sum(label["split"] == "held" for label in LABELS.values())
    assert len(LABELS) >= 100
    assert len(HEALTHY) >= 40
    assert 5 * held >= len(LABELS)


def test_every_rule_has_three_logs_two_open_and_one_held() -> None:
    splits = Counter((code, label["split"]) for label in LABELS.values() for code in label["expect"])
    lacking = [code for code in RULES if splits[code, "open"] < 2 or splits[code, "held"] < 1]
    assert lacking == []


def test_no_label_admits_what_no_rule_raises() -> None:
    named = {code for label in LABELS.values() for code in (*label["expect"], *label["allow"])}
    assert named <= RULES.keys()

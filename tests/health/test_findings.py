"""Causes stand above their consequences, each with its evidence and what to try."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
import pytest

from dpo_telemetry.events import Alert
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.causes import CAUSES, CONSEQUENCES
from dpo_telemetry.health.diagnosis import RULES
from dpo_telemetry.health.findings import findings
from dpo_telemetry.health.kind import LN2

from .simulated import Row, diagnosed, learning, simulate


def said(code: str, severity: str = "warning") -> HealthAlert:
    return HealthAlert(code=code, severity=severity, message=f"{code} was seen", advice=f"mend {code}")  # type: ignore[arg-type]


def test_every_code_has_a_name_as_a_cause() -> None:
    assert RULES.keys() <= CAUSES.keys()
    assert len(set(CAUSES)) == len(CAUSES)


def test_no_cause_explains_itself_or_what_does_not_exist() -> None:
    for cause, codes in CONSEQUENCES.items():
        assert cause in CAUSES
        assert set(codes) <= CAUSES.keys() - {cause}


def test_a_cause_is_tried_before_what_it_explains() -> None:
    order = list(CAUSES)
    for cause, codes in CONSEQUENCES.items():
        for code in codes:
            assert order.index(cause) < order.index(code), (cause, code)


@pytest.mark.parametrize("cause", CONSEQUENCES)
def test_all_that_a_cause_explains_is_one_finding(cause: str) -> None:
    alerts = [said(code) for code in CONSEQUENCES[cause]] + [said(cause)]
    (finding,) = findings(alerts)
    assert finding.codes == [cause, *CONSEQUENCES[cause]]
    assert finding.cause == CAUSES[cause]
    assert finding.try_ == f"mend {cause}"
    for code in CONSEQUENCES[cause]:
        assert f"{code} was seen" in finding.text


def test_a_consequence_belongs_to_one_finding() -> None:
    found = findings([said("lr_zero"), said("adapter_frozen"), said("loss_not_falling"), said("overfitting")])
    assert [finding.codes for finding in found] == [
        ["lr_zero", "adapter_frozen", "loss_not_falling"],
        ["overfitting"],
    ]


def test_a_note_explains_nothing() -> None:
    found = findings([said("bf16_rounding", "info"), said("loss_not_falling")])
    assert [finding.codes for finding in found] == [["loss_not_falling"]]


def test_a_loss_that_is_not_finite_stays_a_finding_of_its_own() -> None:
    alerts = [
        said("empty_completions"),
        HealthAlert(code="nonfinite", severity="critical", metric="loss", message="x"),
    ]
    assert [finding.codes for finding in findings(alerts)] == [["empty_completions"], ["nonfinite"]]


def test_a_learning_rate_far_too_high_is_one_finding() -> None:
    thrown = np.arange(120) >= 40
    rows = simulate(
        np.where(thrown, np.random.default_rng(1).normal(size=120) * 12, 0.0),
        chosen_nats=-400.0 * thrown,
        scatter_nats=80.0,
        changed={"grad_norm": np.where(thrown, 900.0, 2.0)},
    )
    rows[1]["rewards/chosen"] = 1e-4
    found = diagnosed(rows).findings()
    assert found[0].cause == "learning rate too high"
    assert {"grad_exploding", "loss_not_falling"} <= set(found[0].codes)


def test_alerts_carry_finite_figures_and_references() -> None:
    broken: list[list[Row]] = [
        simulate(-learning(120)),
        simulate(learning(150, reach=250.0, pace=20.0)),
        [row | {"loss": math.nan, "logps/chosen": 0.0} for row in simulate(learning(80))],
        [row | {"loss": 13.0} for row in simulate(learning(60) / 50)],
        simulate(np.zeros(100), rate=np.zeros(100)),
    ]
    seen = [alert for rows in broken for alert in diagnosed(rows).alerts()]
    assert len({alert.code for alert in seen}) >= 6
    for alert in seen:
        assert alert.evidence, alert.code
        assert all(math.isfinite(value) for value in alert.evidence.values()), alert.code
        assert alert.references, alert.code
        assert alert.severity in RULES[alert.code].SEVERITIES, alert.code
        assert json.loads(msgspec.json.encode(alert))["evidence"] == alert.evidence


def test_what_another_process_wrote_down_has_no_figures() -> None:
    event = Alert(v=1, t=1.0, m=1.0, code="oom", severity="critical", message="out of memory")
    alert = HealthAlert.of_event(event)
    assert (alert.evidence, alert.references) == ({}, [])
    decoded = msgspec.json.decode(b'{"code":"oom","severity":"critical","message":"x"}', type=HealthAlert)
    assert (decoded.evidence, decoded.references) == ({}, [])


def test_a_run_in_which_nothing_moves_names_the_cause_first() -> None:
    rows = simulate(np.zeros(100), changed={"grad_norm": 0.0, "loss": LN2})
    (finding,) = diagnosed(rows).findings()
    assert finding.codes == ["adapter_frozen", "loss_not_falling", "grad_vanishing"]

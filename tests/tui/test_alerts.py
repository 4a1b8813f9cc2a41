"""What the alerts of a run come to: groups, counts, evidence, the panel, and what is kept of them."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest
from textual.content import Content

from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.findings import findings
from dpo_telemetry.reader.status import Status
from dpo_telemetry.series.columns import Series
from dpo_tui.attention import Attention, load, save
from dpo_tui.charts.chart import Ink
from dpo_tui.panels.alert_details import rests_on, told
from dpo_tui.panels.alerts import alerts, shown_groups
from dpo_tui.panels.figures import figures
from dpo_tui.signs import ASCII, UNICODE
from dpo_tui.snapshot import Snapshot
from dpo_tui.views.alerts import counts, groups
from dpo_tui.views.evidence import charts, evidence, wall_s
from dpo_tui.views.series import Metrics, MetricView

EMPTY = HealthAlert(
    code="empty_completions", severity="critical", metric="logps/chosen", step=2, last_step=9, count=8,
    message="log-probs are exactly 0", advice="Raise max_length.", evidence={"share": 1.0, "rows": 8.0},
)  # fmt: skip
NAN = HealthAlert(
    code="nonfinite", severity="warning", metric="logits/rejected", step=2, message="logits are not finite"
)
FLAT = HealthAlert(code="loss_not_falling", severity="warning", metric="loss", step=5, message="it is flat")
SPIKE = HealthAlert(code="gpu_throttled", severity="warning", step=4, message="a card is slowed down")
NOTE = HealthAlert(code="margin_small", severity="info", step=1, message="margins are small")
ALL = (EMPTY, NAN, FLAT, SPIKE, NOTE)


def snapshot(
    *found: HealthAlert, attention: Attention | None = None, metrics: Metrics | None = None
) -> Snapshot:
    return Snapshot(
        name="demo", now_s=1_000_000.0, link="live", status=Status("training"), alerts=found,
        findings=tuple(findings(found)), attention=attention or Attention(), metrics=metrics,
    )  # fmt: skip


def metric(name: str, steps: list[int], values: list[float], wall_s: float = 0.0) -> MetricView:
    empty = Series(np.empty(0, np.int64), np.empty(0), np.empty(0))
    walls = np.full(len(steps), wall_s)
    return MetricView(name, Series(np.array(steps, np.int64), np.array(values), walls), empty)


def plain(lines: list[Content]) -> list[str]:
    return [line.plain for line in lines]


def test_a_cause_comes_first_with_its_symptoms_and_info_last() -> None:
    found = groups(ALL, findings(ALL), Attention())
    assert [group.first.code for group in found] == ["empty_completions", "gpu_throttled", "margin_small"]
    assert [alert.code for alert in found[0].symptoms] == ["nonfinite", "loss_not_falling"]
    assert found[0].title == "completions truncated away"
    assert counts(found) == {"critical": 1, "warning": 3, "info": 1}


def test_what_was_acknowledged_goes_behind_what_was_not() -> None:
    attention = Attention().with_seen((EMPTY,), seen=True)
    found = groups(ALL, findings(ALL), attention)
    assert [(group.first.code, group.seen) for group in found] == [
        ("gpu_throttled", False), ("margin_small", False), ("empty_completions", True),
    ]  # fmt: skip


def test_an_alert_that_got_worse_asks_again() -> None:
    milder = replace_severity(EMPTY)
    attention = Attention().with_seen((milder,), seen=True)
    assert attention.seen(milder)
    assert not attention.seen(EMPTY)
    assert not attention.with_seen((milder,), seen=False).seen(milder)


def replace_severity(alert: HealthAlert) -> HealthAlert:
    return HealthAlert(code=alert.code, severity="warning", metric=alert.metric, message=alert.message)


def test_a_muted_cause_takes_its_symptoms_out_of_counts_and_overview_but_stays_in_the_list() -> None:
    attention = Attention().with_muted("empty_completions", muted=True)
    shown = snapshot(*ALL, attention=attention)
    found = shown_groups(shown)
    assert [group.muted for group in found] == [False, False, True]
    assert counts(found) == {"warning": 1, "info": 1}
    assert "truncated" not in "\n".join(plain(alerts(shown, 80, 20, UNICODE)))
    assert "gpu" not in "\n".join(plain(figures(snapshot(EMPTY, attention=attention), 60, 2, UNICODE)))
    assert plain(figures(snapshot(EMPTY, attention=attention), 60, 2, UNICODE))[1] == "no alerts"


def test_a_muted_symptom_can_be_heard_again() -> None:
    attention = Attention().with_muted("nonfinite", muted=True)
    found = groups(ALL, findings(ALL), attention)
    assert [alert.code for alert in found[0].symptoms] == ["loss_not_falling"]
    assert (found[-1].first.code, found[-1].muted) == ("nonfinite", True)
    assert counts(found) == {"critical": 1, "warning": 2, "info": 1}


def test_every_alert_is_in_one_group_however_findings_and_alerts_fit() -> None:
    for known in (findings(ALL), findings(ALL[:1]), []):
        for present in (ALL, ALL[1:], ()):
            for muted in ((), ("nonfinite",), ("empty_completions",)):
                found = groups(present, known, Attention(muted=frozenset(muted)))
                shown = [alert for group in found for alert in group.all_alerts]
                assert sorted(alert.code for alert in shown) == sorted(alert.code for alert in present)


def test_the_panel_counts_symptoms_and_dims_what_was_acknowledged() -> None:
    lines = alerts(snapshot(*ALL), 80, 20, UNICODE)
    assert plain(lines)[0].endswith("1 critical  3 warning  1 info")
    assert plain(lines)[1:4] == [
        "✖ completions truncated away  step 2-9  +2 symptoms", "  log-probs are exactly 0", "  Raise max_length.",
    ]  # fmt: skip
    seen = alerts(snapshot(EMPTY, attention=Attention().with_seen((EMPTY,), seen=True)), 80, 20, UNICODE)
    assert plain(seen)[1] == "✖ completions truncated away  step 2-9  acknowledged  log-probs are exactly 0"
    assert {str(span.style) for span in seen[1].spans} == {"$muted"}


@pytest.mark.parametrize("height", range(1, 14))
@pytest.mark.parametrize("width", [10, 38, 80])
def test_the_panel_fits_any_room_and_says_what_it_leaves_out(width: int, height: int) -> None:
    lines = plain(alerts(snapshot(*ALL), width, height, ASCII))
    assert len(lines) <= max(2, height)
    shown = sum(line[:1] in ("X", "!", "i") for line in lines[1:])
    assert shown == 3 or f"and {3 - shown} more"[:width] in lines
    assert all(len(line) <= max(width, 12) for line in lines[1:])


def test_evidence_is_the_metric_around_its_steps_with_these_marked() -> None:
    steps = list(range(1, 501))
    values = [1.0] * 500
    values[299:305] = [9.0] * 6
    alert = HealthAlert(
        code="loss_spike", severity="warning", metric="loss", step=300, last_step=305, message="it jumps",
        evidence={"level": 1.0},
    )  # fmt: skip
    drawn = evidence(alert, {"loss": metric("loss", steps, values)})
    assert drawn is not None
    assert drawn.step_range == (280, 325)
    whole, level, asked = drawn.lines
    assert (int(whole.steps[0]), int(whole.steps[-1])) == (280, 325)
    assert (level.name, level.values.tolist()) == ("level before", [1.0, 1.0])
    assert (asked.name, asked.ink, asked.steps.tolist()) == ("in question", Ink.NONFINITE, [*range(300, 306)])
    assert set(asked.values) == {9.0}


def test_evidence_of_a_single_row_that_is_nan_can_be_drawn() -> None:
    drawn = evidence(NAN, {"logits/rejected": metric("logits/rejected", [2], [math.nan])})
    assert drawn is not None
    assert drawn.step_range == (1, 3)
    assert math.isnan(drawn.lines[-1].values[0])


def test_chosen_is_drawn_against_rejected_and_the_loss_beside_where_there_is_room() -> None:
    metrics = {
        name: metric(name, [1, 2, 3], [0.0, 0.0, 0.0]) for name in ("loss", "logps/chosen", "logps/rejected")
    }
    drawn = charts((EMPTY, NAN), metrics, limit=3)
    assert [chart.metric for chart in drawn] == ["logps/chosen", "loss"]
    assert [line.name for line in drawn[0].lines] == ["rejected", "chosen", "in question"]
    assert [chart.metric for chart in charts((EMPTY, NAN), metrics, limit=1)] == ["logps/chosen"]


@pytest.mark.parametrize(
    "alert", [SPIKE, HealthAlert(code="x", severity="info", metric="unknown", message="m")]
)
def test_an_alert_without_a_series_has_no_chart(alert: HealthAlert) -> None:
    metrics = {"loss": metric("loss", [1], [1.0]), "none": metric("none", [], [])}
    assert evidence(alert, metrics) is None
    assert evidence(alert, None) is None
    assert charts((alert,), metrics, limit=3) == []


def test_the_wall_clock_of_the_first_step_is_told_where_the_log_has_it(
    utc: None,
) -> None:
    known = {"logps/chosen": metric("logps/chosen", [1, 2, 3], [0.0] * 3, wall_s=1_000_000.0 - 90)}
    unknown = {"logps/chosen": metric("logps/chosen", [1, 2, 3], [0.0] * 3)}
    assert wall_s(EMPTY, known) == 1_000_000.0 - 90
    assert wall_s(EMPTY, unknown) is None
    group = groups([EMPTY], findings([EMPTY]), Attention())[0]
    text = told(group, None, snapshot(EMPTY, metrics=Metrics(known)), UNICODE).plain
    assert "since step 2, 1970-01-12 13:45, 1 m 30 s ago  8 times" in text
    assert (
        "since step 2  8 times" in told(group, None, snapshot(EMPTY, metrics=Metrics(unknown)), UNICODE).plain
    )


def test_details_say_cause_reason_advice_and_what_it_rests_on() -> None:
    group = shown_groups(snapshot(*ALL))[0]
    lines = told(group, None, snapshot(*ALL), UNICODE).plain.splitlines()
    assert lines[0] == "✖ completions truncated away"
    assert lines[2:] == ["Log-probs are exactly 0.", "try  Raise max_length."]
    assert rests_on(group, None).plain.splitlines() == [
        "evidence  share 1   rows 8", "explains  logits are not finite; it is flat",
    ]  # fmt: skip
    symptom = told(group, NAN, snapshot(*ALL), UNICODE).plain
    assert "because  completions truncated away" in symptom
    assert told(group, None, snapshot(*ALL), UNICODE, brief=True).plain.startswith("Log-probs are exactly 0.")


def test_text_of_a_log_cannot_steer_the_details() -> None:
    hostile = HealthAlert(
        code="c\x1b[2J",
        severity="warning",
        metric="m\x1b]0;t\x07",
        message="[red]x[/] \x1b[31m\u202e",
        advice="\r\n",
    )
    shown = snapshot(hostile)
    group = shown_groups(shown)[0]
    text = told(group, None, shown, UNICODE).plain + rests_on(group, None).plain
    assert "[red]x[/]" in text
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(text)


def test_what_was_acknowledged_and_muted_is_kept_by_run(state_dir: Path) -> None:
    attention = Attention().with_seen((EMPTY, SPIKE), seen=True).with_muted("nonfinite", muted=True)
    save("run/../a", attention)
    assert load("run/../a") == attention
    assert load("another") == Attention()
    files = [file for file in state_dir.rglob("*") if file.is_file()]
    assert len(files) == 1
    assert files[0].parent.name == "alerts"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[1]", b'{"acknowledged": [["a", "b", "fatal"]]}', b'{"muted": 3}', b"\xff\xfe", b"[" * 100_000,
        b'{"muted": ["' + b"x" * 2_000_000 + b'"]}',
    ],
    ids=["empty", "torn", "list", "severity", "type", "not utf-8", "deep", "large"],
)  # fmt: skip
def test_a_damaged_file_is_as_none(state_dir: Path, content: bytes) -> None:
    save("run", Attention(muted=frozenset({"x"})))
    file = next(file for file in state_dir.rglob("*.json"))
    file.write_bytes(content)
    assert load("run") == Attention()


def test_where_nothing_can_be_kept_nothing_breaks(state_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    state_dir.write_text("a file in the way")
    save("run", Attention(muted=frozenset({"x"})))
    assert "cannot be written" in caplog.text
    assert load("run") == Attention()


@pytest.fixture
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()

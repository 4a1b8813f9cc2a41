"""The effective series: for each step, the newest attempt that reached it."""

from __future__ import annotations

import math

import numpy as np

from dpo_telemetry.series.columns import SeriesStore, Table


def table(*rows: tuple[int, int, dict[str, float]]) -> Table:
    """Rows of (attempt, step, metrics)."""
    made = Table()
    for attempt, step, metrics in rows:
        made.append(step, metrics.items(), attempt=attempt, wall_s=100.0 * attempt + step)
    return made


def test_rows_in_order_are_all_effective() -> None:
    rows = table(*((1, step, {"loss": step / 10}) for step in (1, 2, 3)))
    loss = rows.effective("loss")
    assert loss.steps.tolist() == [1, 2, 3]
    assert loss.wall_s.tolist() == [101.0, 102.0, 103.0]
    assert len(rows.superseded("loss")) == 0


def test_a_resume_supersedes_the_steps_it_reaches_and_no_others() -> None:
    rows = table(*((1, n, {"loss": 1.0}) for n in (1, 2, 3, 4)), *((2, n, {"loss": 2.0}) for n in (2, 3)))
    assert rows.effective("loss").values.tolist() == [1.0, 2.0, 2.0, 1.0]
    assert rows.superseded("loss").steps.tolist() == [2, 3]


def test_the_newest_attempt_wins_in_whatever_order_rows_are_read() -> None:
    rows = table((2, 2, {"loss": 2.0}), (1, 1, {"loss": 1.0}), (1, 2, {"loss": 1.0}))
    assert rows.effective("loss").values.tolist() == [1.0, 2.0]


def test_of_a_repeated_step_in_one_attempt_the_later_row_counts() -> None:
    rows = table((1, 1, {"loss": 1.0}), (1, 1, {"loss": 2.0}))
    assert rows.effective("loss").values.tolist() == [2.0]
    assert rows.superseded("loss").values.tolist() == [1.0]


def test_a_metric_that_only_some_rows_log_has_only_those_steps() -> None:
    rows = table((1, 1, {"loss": 1.0}), (1, 2, {"loss": 1.0, "entropy": 3.0}), (1, 3, {"loss": 1.0}))
    assert rows.effective("entropy").steps.tolist() == [2]
    aligned = rows.rows(rows.effective_rows())
    assert aligned.present["entropy"].tolist() == [False, True, False]
    assert aligned.logged("entropy")[1].tolist() == [3.0]
    assert len(aligned.logged("nothing")[0]) == 0


def test_the_tail_is_what_was_appended_since() -> None:
    rows = table((1, 1, {"loss": 1.0, "entropy": 3.0}), (1, 2, {"loss": 2.0}), (1, 3, {"loss": 3.0}))
    tail = rows.tail(1)
    assert tail.steps.tolist() == [2, 3]
    assert tail.columns["loss"].tolist() == [2.0, 3.0]
    assert "entropy" not in tail.columns


def test_nan_and_infinities_are_values() -> None:
    rows = table((1, 1, {"loss": math.nan}), (1, 2, {"loss": math.inf}))
    np.testing.assert_equal(rows.effective("loss").values, [math.nan, math.inf])


def test_training_and_evaluation_share_steps_without_replacing_each_other() -> None:
    store = SeriesStore()
    store.train.append(10, [("loss", 0.6)])
    store.eval.append(10, [("eval_loss", 0.7)])
    assert store.names() == ["loss", "eval_loss"]
    assert (store.last("loss"), store.last("eval_loss"), store.last("other")) == (0.6, 0.7, None)
    assert len(store.superseded("eval_loss")) == 0

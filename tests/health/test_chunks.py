"""What the rules say depends on the rows, and not on how they were cut into chunks."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dpo_telemetry.health.diagnosis import RULES, Diagnosis
from dpo_telemetry.health.rule import Context
from dpo_telemetry.series.columns import Rows, Table

from .simulated import Row, learning, simulate

NUMBERS = st.sampled_from(
    [
        0.0,
        math.log(2),
        0.6914,
        0.5,
        1.0,
        -536.0,
        -0.1,
        -211.37,
        1e-6,
        13.0,
        5e-324,
        -1e308,
        math.nan,
        math.inf,
    ]
)
NAMES = (
    "loss", "grad_norm", "learning_rate", "rewards/chosen", "rewards/rejected", "rewards/margins",
    "rewards/accuracies", "logps/chosen", "logps/rejected", "entropy", "epoch", "chosen_length", "rejected_length",
    "eval_loss", "eval_rewards/accuracies", "eval_rewards/margins", "eval_rewards/chosen",
)  # fmt: skip


def fed(rows: Sequence[Row], cuts: Sequence[int]) -> Diagnosis:
    """A diagnosis of rows at steps 1, 2, ... that came in chunks between these cuts."""
    diagnosis, table = Diagnosis(Context()), Table()
    for start, end in pairwise([0, *cuts, len(rows)]):
        for step in range(start, end):
            table.append(step + 1, rows[step].items())
        diagnosis.feed(table.tail(start))
    return diagnosis


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(NAMES), NUMBERS), min_size=1, max_size=8), st.integers(1, 8))
def test_any_rows_one_by_one_show_what_they_show_at_once(pattern: list[Row], repeats: int) -> None:
    rows = [dict(row) for row in pattern * repeats]
    single, at_once = fed(rows, range(1, len(rows))), fed(rows, [])
    assert single.alerts() == at_once.alerts()
    assert single.findings() == at_once.findings()
    assert single.kind == at_once.kind


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(1, 159), unique=True, max_size=12),
    st.sampled_from([0.5, 4.0, 40.0]),
)
def test_runs_cut_anywhere_show_what_they_show_at_once(seed: int, cuts: list[int], scatter: float) -> None:
    margins = learning(160, reach=20.0) * np.random.default_rng(seed).choice([-1, 0, 1, 8])
    rows = simulate(margins, chosen_nats=-6 * np.abs(margins), scatter_nats=scatter, seed=seed, pairs=2)
    assert fed(rows, sorted(cuts)).alerts() == fed(rows, []).alerts()


def size_of(value: object, seen: set[int]) -> int:
    """Bytes that an object and all it refers to hold."""
    if id(value) in seen or isinstance(value, type):
        return 0
    seen.add(id(value))
    inner: list[object] = list(getattr(value, "__dict__", {}).values())
    if isinstance(value, dict):
        inner += [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set):
        inner += list(value)
    buffer = value.base.nbytes if isinstance(value, np.ndarray) and isinstance(value.base, np.ndarray) else 0
    return sys.getsizeof(value) + buffer + sum(size_of(part, seen) for part in inner)


def test_what_rules_remember_does_not_grow_with_the_rows() -> None:
    def chunk(first: int) -> Rows:
        rng = np.random.default_rng(first)
        columns = {name: rng.normal(size=5000) for name in NAMES}
        steps = np.arange(first, first + 5000)
        return Rows(steps, columns, {name: np.ones(5000, np.bool_) for name in NAMES})

    diagnosis = Diagnosis(Context())
    diagnosis.feed(chunk(1))
    before = size_of(diagnosis, set())
    for at in range(1, 10):
        diagnosis.feed(chunk(1 + 5000 * at))
    assert size_of(diagnosis, set()) <= before + 20_000
    assert before < 60_000 * len(RULES)

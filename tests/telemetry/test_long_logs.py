"""Long logs are read a block at a time: what they say is what they say a row at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dpo_telemetry import events
from dpo_telemetry.foreign import json_columns
from dpo_telemetry.foreign.json_columns import ColumnDecoder
from dpo_telemetry.foreign.open import open_log
from dpo_telemetry.reader.lines import LineReader
from dpo_telemetry.reader.source import Chunk
from dpo_telemetry.reader.steps import MIN_BYTES

from .conftest import Lines
from .test_reading_runs import RANK_0, model_of, seen

STEPS = 600


def step(lines: Lines, number: int, more: dict[str, events.Number] | None = None, **others: Any) -> bytes:
    lines.now_s += 1.0
    metrics: dict[str, events.Number] = {
        "loss": 0.7 - number / 1e4,
        "rewards/margins": number / 1e3,
        "grad_norm": 1.0,
    }
    extra: dict[str, Any] = {"tokens": 2048, "times_s": {"step": 1.0 + number % 7}} | others
    return events.encode(events.Step(**lines.stamp(), step=number, metrics=metrics | (more or {}), **extra))


def file_of(lines: Lines, between: dict[int, bytes] | None = None, **others: Any) -> bytes:
    parts = [lines.start(max_steps=STEPS)]
    for number in range(1, STEPS + 1):
        parts += [step(lines, number, **others), (between or {}).get(number, b"")]
    return b"".join(parts)


ALIKE: dict[str, Callable[[Lines], bytes]] = {
    "steps alone": file_of,
    "steps with their epoch": lambda lines: file_of(lines, epoch=1.5),
    "a NaN at each step": lambda lines: file_of(lines).replace(b'"grad_norm":1.0', b'"grad_norm":"nan"'),
    "infinities": lambda lines: file_of(lines).replace(b'"grad_norm":1.0', b'"grad_norm":"-inf"'),
    "memory between the steps": lambda lines: file_of(
        lines,
        {
            at: lines.event(events.Memory(**lines.stamp(), phase="train", components={"adapters": at}))
            for at in range(STEPS)
        },
    ),
    "other kinds and damage between the steps": lambda lines: file_of(
        lines,
        {
            9: b"torn{\n",
            50: b'{"k":"weather","v":7}\n',
            300: lines.evaluation(300, eval_loss=0.5),
            301: b"\n",
        },
    ),
}
MIXED: dict[str, Callable[[Lines], bytes]] = {
    "a metric more at one step": lambda lines: file_of(lines, {300: step(lines, 301, {"late": 1.0})}),
    "a metric less at one step": lambda lines: file_of(lines, {300: lines.step(301, 1.0, loss=0.5)}),
    "a step without tokens": lambda lines: file_of(lines).replace(b'"tokens":2048,', b"", 1),
    "a step without metrics": lambda lines: file_of(lines, {200: lines.step(200, 1.0)}),
    "a step that is no number": lambda lines: file_of(lines).replace(b'"step":77,', b'"step":"x",'),
    "a metric that is text": lambda lines: file_of(lines).replace(b'"rewards/margins":0.077', b'"rewards/margins":"high"'),
    "a time that is text": lambda lines: file_of(lines).replace(b'"times_s":{"step":7.0}', b'"times_s":{"step":"7"}'),
    "an epoch at one step": lambda lines: file_of(lines).replace(b'"tokens":2048', b'"tokens":2048,"epoch":2.0', 1),
    "zeros in the middle": lambda lines: file_of(lines, {100: b'{"k":"step","v"' + bytes(500)}),
    "a line that is too long": lambda lines: file_of(lines, {100: b'{"k":"step","v":1,"x":"' + b"y" * (2 << 20) + b'"}\n'}),
    "names that no field may have": lambda lines: file_of(lines).replace(b'"grad_norm"', b'"gr\\"ad\\u0007"'),
}  # fmt: skip


@pytest.mark.parametrize("write", [*ALIKE.values(), *MIXED.values()], ids=[*ALIKE, *MIXED])
def test_a_long_event_file_says_what_its_lines_say(write: Callable[[Lines], bytes]) -> None:
    data = write(Lines())
    assert len(data) > MIN_BYTES
    pieces = [Chunk(RANK_0, at, data[at : at + 5000]) for at in range(0, len(data), 5000)]
    assert seen(model_of(Chunk(RANK_0, 0, data))) == seen(model_of(*pieces))


def test_tokens_and_time_of_each_step_are_kept_apart_from_the_metrics() -> None:
    model = model_of(Chunk(RANK_0, 0, file_of(Lines())))
    assert model.work.effective("tokens").values.tolist() == [2048.0] * STEPS
    assert model.work.effective("step_time_s").values[:3].tolist() == [2.0, 3.0, 4.0]
    assert model.series.names() == ["loss", "rewards/margins", "grad_norm"]


@pytest.mark.parametrize("write", ALIKE.values(), ids=ALIKE)
def test_steps_that_are_alike_become_columns(write: Callable[[Lines], bytes]) -> None:
    read = LineReader().feed_columns(write(Lines()))
    assert read.steps is not None
    assert read.steps.values.shape == (3, STEPS)
    assert not any(isinstance(event, events.Step) for event in read.events)


def rows_of(spoil: Callable[[int, dict[str, Any]], dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        spoil(
            number,
            {
                "loss": 0.7 - number / 1e4,
                "grad_norm": 1 + number % 3,
                "rewards/margins": number / 1e3,
                "step": number,
            },
        )
        for number in range(1, 1501)
    ]


def at(where: int, **change: Any) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    return lambda number, row: row | change if number == where else row


ROWS: dict[str, Callable[[int, dict[str, Any]], dict[str, Any]]] = {
    "plain": lambda _, row: row,
    "NaN at each step": lambda _, row: row | {"logits/chosen": math.nan, "logits/rejected": -math.inf},
    "numbers as text": lambda _, row: {name: str(value) for name, value in row.items()},
    "one NaN": at(700, loss=math.nan),
    "an evaluation": at(700, eval_loss=0.5),
    "a summary at the end": at(1500, train_loss=0.5, train_runtime=5.0),
    "text": at(700, note="saved"),
    "text for a number": at(700, loss="high"),
    "steps of a total": lambda number, row: row | {"step": f"{number}/1500"},
    "no value": at(700, loss=None),
    "a list": at(700, extra=[1, {"a": "}"}]),
    "an object": at(700, extra={"a": 1}),
    "true": at(700, loss=True),
    "a whole number that no float holds": at(700, loss=10**400),
    "a restart": lambda number, row: row | {"step": number if number < 1000 else number - 300},
}


@pytest.mark.parametrize("spoil", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("form", ["lines", "state", "list"])
def test_a_long_json_log_says_what_its_rows_say(
    spoil: Callable[[int, dict[str, Any]], dict[str, Any]],
    form: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = rows_of(spoil)
    text = {
        "lines": "\n".join(map(json.dumps, rows)),
        "state": json.dumps({"log_history": rows, "max_steps": 1500}, indent=2),
        "list": json.dumps(rows, separators=(",", ":")),
    }[form]
    path = tmp_path / "log"
    path.write_text(text)
    assert len(text) > json_columns.MIN_BYTES
    found = open_log(path)
    monkeypatch.setattr(json_columns, "MIN_BYTES", len(text) + 1)
    wanted = open_log(path)
    assert found.series.names() == wanted.series.names()
    for name in wanted.series.names():
        for got, own in (
            (found.series.effective(name), wanted.series.effective(name)),
            (found.series.superseded(name), wanted.series.superseded(name)),
        ):
            assert got.steps.tolist() == own.steps.tolist(), name
            assert list(map(str, got.values)) == list(map(str, own.values)), name
    assert (found.alerts, found.findings) == (wanted.alerts, wanted.findings)
    assert found.lines_not_understood == wanted.lines_not_understood


@pytest.mark.parametrize("case", ["plain", "NaN at each step", "numbers as text"])
def test_rows_that_are_alike_become_columns(case: str) -> None:
    rows = rows_of(ROWS[case])
    decoder = ColumnDecoder()
    lines = "\n".join(map(json.dumps, rows)).encode()
    for found in (decoder.of_lines(lines), decoder.of_list(json.dumps(rows).encode())):
        assert found is not None
        assert [len(values) for values in found.values] == [1500] * len(rows[0])


def test_a_log_with_rows_of_several_kinds_in_each_block_is_soon_read_as_rows() -> None:
    decoder = ColumnDecoder()
    plain = json.dumps(rows_of(ROWS["plain"])).encode()
    mixed = json.dumps(rows_of(ROWS["an evaluation"])).encode()
    assert decoder.of_list(mixed) is None
    assert decoder.of_list(plain) is not None
    assert [decoder.of_list(mixed) for _ in range(json_columns.MAX_FAILURES)] == [None] * 3
    assert decoder.of_list(plain) is None

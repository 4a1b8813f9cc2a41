"""A run as lines, and how it ends."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import pytest
from tests.tui.conftest import RunBuilder

from dpo_telemetry import events
from dpo_telemetry.reader.source import DirectorySource
from dpo_tui.follow import follow


def followed(builder: RunBuilder) -> tuple[int, list[str]]:
    lines: list[str] = []
    builder.flush()
    now_s = builder.now_s
    code = follow(builder.run, DirectorySource(builder.run), clock=lambda: now_s, write=lines.append)
    return code, lines


def finish(builder: RunBuilder, **margins: float) -> None:
    metrics = {f"eval_rewards/{name}": events.to_number(value) for name, value in margins.items()}
    builder.put(events.Eval(**builder.stamp(), step=3, metrics=metrics))
    builder.put(
        events.Checkpoint(**builder.stamp(), step=3, path="adapter", size_bytes=19_540_000, final=True)
    )
    builder.exit()


def test_each_step_is_a_line_and_the_summary_says_how_it_went(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run(max_steps=3)
    builder.phase("load", message="SmolLM2-135M-Instruct")
    builder.train(3)
    finish(builder, margins=0.412, margins_low=0.301, margins_high=0.533)
    code, lines = followed(builder)
    assert code == 0
    assert "loading   SmolLM2-135M-Instruct" in lines
    steps = [line for line in lines if line.startswith("step")]
    assert len(steps) == 3
    for part in ("step 1/3", "loss", "margin", "accuracy", "grad norm", "6.80 s"):
        assert part in steps[0]
    text = "\n".join(lines)
    assert "finished at step 3 after 20 s" in text
    assert "held-out margin   0.4120   95 % interval 0.3010 to 0.5330" in text
    assert f"adapter           {builder.run.path}/adapter" in text
    assert "verdict           clean" in text
    assert f"dpo-tui replay {builder.run.path}" in text


def test_a_failed_run_is_bad_news(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run(max_steps=3)
    builder.train(2)
    builder.exit(1, "alert nonfinite: stop")
    code, lines = followed(builder)
    assert code == 1
    assert any(line.startswith("failed at step 2") and "alert nonfinite: stop" in line for line in lines)


def test_a_run_that_finished_on_numbers_that_are_not_finite_did_not_end_well(
    new_run: Callable[..., RunBuilder],
) -> None:
    builder = new_run(max_steps=3)
    builder.step(1)
    builder.step(2, loss=math.nan)
    builder.step(3)
    builder.exit()
    code, lines = followed(builder)
    assert code == 1
    assert sum(line.startswith("critical: nonfinite at step 2") for line in lines) == 1
    assert "nan" in next(line for line in lines if line.startswith("step 2"))


def test_text_of_the_run_cannot_steer_the_terminal(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run(max_steps=1)
    builder.phase("load", message="\x1b]0;owned\x07\x1b[2Jmodel\nsecond line")
    builder.exit(1, "\x1b[31mred")
    _, lines = followed(builder)
    text = "".join(lines)
    assert "\x1b" not in text
    assert "\n" not in text


def test_lines_come_while_the_run_is_going_on(new_run: Callable[..., RunBuilder]) -> None:
    builder = new_run(max_steps=2)
    builder.step(1)
    builder.flush()
    seen = threading.Event()
    lines: list[str] = []
    codes: list[int] = []

    def write(line: str) -> None:
        lines.append(line)
        seen.set()

    def run() -> None:
        source = DirectorySource(builder.run)
        codes.append(follow(builder.run, source, clock=lambda: builder.now_s, write=write))

    thread = threading.Thread(target=run)
    thread.start()
    assert seen.wait(10)
    builder.step(2)
    builder.exit()
    thread.join(10)
    assert codes == [0]
    assert [line.split()[1] for line in lines if line.startswith("step")] == ["1/2", "2/2"]


@pytest.mark.parametrize("reason", ["stopped on request"])
def test_a_run_that_was_told_to_stop_ended_well(new_run: Callable[..., RunBuilder], reason: str) -> None:
    builder = new_run()
    builder.train(2)
    builder.exit(0, reason)
    code, lines = followed(builder)
    assert code == 0
    assert any(line.startswith("stopped at step 2") for line in lines)

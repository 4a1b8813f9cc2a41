"""What is asked of a running trainer is served where it can be, and answered in any case."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import pytest

from dpo_profiles.schema import Data, Profile
from dpo_telemetry import events
from dpo_telemetry.rundir import control
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_trainer import job
from dpo_trainer.data.source import load_rows

from .conftest import (
    MakeProfile,
    Trained,
    TrainRun,
    after_step,
    read_events,
)


def test_sigterm_ends_the_run_after_the_step_with_a_checkpoint(
    make_profile: MakeProfile, train: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_step(monkeypatch, 2, lambda: signal.raise_signal(signal.SIGTERM))
    ended = train(make_profile(train={"max_steps": 5}))
    assert ended.code == 0
    assert [step.step for step in ended.of(events.Step)] == [1, 2]
    (end,) = ended.of(events.Exit)
    assert (end.code, end.reason) == (0, "stopped")
    assert [saved.path for saved in ended.of(events.Checkpoint)] == ["checkpoints/step-00002"]
    assert not ended.run.adapter_dir.exists()


@pytest.mark.parametrize("action", ["save", "evaluate", "stop"])
def test_a_request_is_served_at_the_end_of_the_step_and_answered(
    make_profile: MakeProfile,
    new_run: Callable[[Profile], RunDirectory],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Any],
    action: events.Action,
) -> None:
    profile = make_profile(train={"max_steps": 3})
    run = new_run(profile)
    asked: list[str] = []
    seen = run.attempt(1).event_file("rank-00000")

    def ask() -> None:
        asked.append(control.submit(run, action, issuer="test", attempt=1).id)
        eventually(lambda: b'"k":"request"' in seen.read_bytes(), "the request is seen")

    after_step(monkeypatch, 1, ask)
    code = job.run(run.path, 1)
    ended = Trained(run, code, read_events(run))
    (answer,) = ended.of(events.Answer)
    assert (answer.id, answer.ok) == (asked[0], True)
    assert "step 1" in answer.message
    saved = [event.step for event in ended.of(events.Checkpoint)]
    evaluated = [event.step for event in ended.of(events.Eval)]
    assert (1 in saved) == (action in ("save", "stop"))
    assert (1 in evaluated) == (action == "evaluate")
    assert len(ended.of(events.Step)) == (1 if action == "stop" else 3)


def test_a_stop_while_the_run_loads_ends_it_without_a_checkpoint(
    make_profile: MakeProfile, train: TrainRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(data: Data) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return load_rows(data)

    monkeypatch.setattr(job, "load_rows", interrupted)
    ended = train(make_profile())
    assert ended.code == 0
    (end,) = ended.of(events.Exit)
    assert (end.code, end.reason) == (0, "stopped")
    assert ended.of(events.Step) == []
    assert list(ended.run.checkpoints_dir.iterdir()) == []


def test_a_request_that_a_failing_run_cannot_serve_is_answered_too(
    poisoned_profile: Profile,
    new_run: Callable[[Profile], RunDirectory],
    monkeypatch: pytest.MonkeyPatch,
    eventually: Callable[..., Any],
) -> None:
    run = new_run(poisoned_profile)
    asked: list[str] = []
    seen = run.attempt(1).event_file("rank-00000")

    def ask() -> None:
        asked.append(control.submit(run, "save", issuer="test", attempt=1).id)
        eventually(lambda: b'"k":"request"' in seen.read_bytes(), "the request is seen")

    after_step(monkeypatch, 1, ask)
    assert job.run(run.path, 1) == 1
    (answer,) = [event for event in read_events(run) if isinstance(event, events.Answer)]
    assert (answer.id, answer.ok) == (asked[0], False)
    assert answer.message.startswith("the run ended: ")

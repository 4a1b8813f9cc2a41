"""A run that was killed goes on from its checkpoint as if it had not been, also under another engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dpo_telemetry import events
from dpo_telemetry.events import Step

from .conftest import DEEPSPEED, SHARDING, Ended, MakeProfile, Workshop
from .test_parity import LOSS_TOLERANCE, MARGIN_TOLERANCE


def metrics(ended: Ended, after: int) -> list[tuple[int, dict[str, events.Number]]]:
    steps: list[Step] = ended.of(events.Step)
    return [(step.step, step.metrics) for step in steps if step.step > after]


def last_evaluation(ended: Ended) -> dict[str, events.Number]:
    """All but what a clock says."""
    metrics = ended.of(events.Eval)[-1].metrics
    return {n: v for n, v in metrics.items() if not n.endswith(("_runtime", "_per_second"))}


@pytest.mark.parametrize("backend", SHARDING)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_resumed_run_is_bit_for_bit_the_uninterrupted_one(
    workshop: Workshop, profile_of: MakeProfile, tmp_path: Path, backend: str, dtype: str
) -> None:
    (tmp_path / "bf16.json").write_text(json.dumps(DEEPSPEED | {"bf16": {"enabled": dtype == "bfloat16"}}))
    file = str(tmp_path / "bf16.json") if backend == "deepspeed-zero3" else ""
    profile = profile_of(
        backend,
        model={"compute_dtype": dtype},
        quantization={"storage_dtype": dtype},
        engine={"deepspeed_file": file},
        adapter={"dropout": 0.2},
        train={"max_steps": 4},
        save={"every_steps": 2},
        schedule={"kind": "cosine", "warmup_ratio": 0.25},
    )
    whole = workshop.go(workshop.new_run(profile))
    assert whole.codes == [0, 0], whole.log()
    resumed = workshop.go(workshop.attempt_after(whole, 2, profile))
    assert resumed.codes == [0, 0], resumed.log()
    assert {resumed.of(events.Start, rank)[0].resumed_from_step for rank in (0, 1)} == {2}
    assert metrics(resumed, 0) == metrics(whole, 2)
    assert last_evaluation(resumed) == last_evaluation(whole)
    assert resumed.adapter().read_bytes() == whole.adapter().read_bytes()


def test_a_run_that_keeps_its_layers_gathered_resumes_from_a_checkpoint_made_after_an_evaluation(
    workshop: Workshop, profile_of: MakeProfile
) -> None:
    profile = profile_of(
        "fsdp2",
        train={"max_steps": 3},
        save={"every_steps": 2},
        eval={"every_steps": 1, "micro_batch_pairs": 2},
    )
    whole = workshop.go(workshop.new_run(profile), fault="layers_stay_gathered")
    assert whole.codes == [0, 0], whole.log()
    resumed = workshop.go(workshop.attempt_after(whole, 2, profile), fault="layers_stay_gathered")
    assert resumed.codes == [0, 0], resumed.log()
    assert metrics(resumed, 0) == metrics(whole, 2)
    assert resumed.adapter().read_bytes() == whole.adapter().read_bytes()


@pytest.mark.parametrize(("first", "second"), [SHARDING, SHARDING[::-1]])
def test_a_checkpoint_of_one_engine_goes_on_under_the_other(
    workshop: Workshop, profile_of: MakeProfile, learned: Callable[[str], Ended], first: str, second: str
) -> None:
    whole = learned(first)
    other = profile_of(second, train={"max_steps": 5}, save={"every_steps": 3})
    resumed = workshop.go(workshop.attempt_after(whole, 3, other))
    assert resumed.codes == [0, 0], resumed.log()
    assert [step for step, _ in metrics(resumed, 0)] == [4, 5]
    assert resumed.metric("loss") == pytest.approx(whole.metric("loss")[3:], rel=LOSS_TOLERANCE)
    for name in ("rewards/margins", "grad_norm", "learning_rate", "num_tokens"):
        assert resumed.metric(name) == pytest.approx(
            whole.metric(name)[3:], rel=LOSS_TOLERANCE, abs=MARGIN_TOLERANCE
        )

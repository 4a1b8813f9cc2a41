"""What a rehearsal looks at, each as one finding."""

from __future__ import annotations

import math
from pathlib import Path

from dpo_daemon.rehearse import adapter
from dpo_daemon.rehearse.derive import STEPS
from dpo_daemon.rehearse.record import Record
from dpo_daemon.rehearse.verdict import Finding
from dpo_profiles.schema import Profile
from dpo_telemetry import events
from dpo_telemetry.figures import size
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.rundir.layout import RunDirectory

CURVE = ("loss", "rewards/margins")
GPU_TOLERANCE = 1e-3
"""Relative to the loss, and absolute for margins: kernels of a GPU add in an order of their own."""
UPDATES_APART = 2.0
"""AdamW moves a weight by about the learning rate: two attempts on a GPU may differ by so many of these."""


def launch(record: Record, log: str) -> Finding:
    """All ranks began, ended, and say that they finished."""
    ended = record.ended
    if record.overdue or ended is None:
        text = (
            f"came to no end in time (--limit) and was ended; {record.overdue or 'no exit file'}; see {log}"
        )
        return Finding("launch", False, text)
    if ended.code != 0 or ended.signal:
        return Finding("launch", False, f"{ended.reason}; see {log}")
    unlike = [rank.rank for rank in record.ranks if rank.exit is None or rank.exit.reason != "finished"]
    if unlike:
        return Finding("launch", False, f"rank {unlike[0]} does not say that it finished; see {log}")
    count = len(record.ranks)
    return Finding("launch", True, f"{count} rank{'s' if count > 1 else ''} from start to end")


def self_test(record: Record) -> list[Finding]:
    """The checks before the first update, each as it tells; one that fails ends the attempt."""
    if not record.self_tests:
        return [Finding("self-test", False, "rank 0 tells of no check before the first update")]
    told = [line.partition(": ") for line in record.self_tests]
    return [Finding(f"self-test: {name}", True, text) for name, _, text in told]


def steps(record: Record) -> Finding:
    """Every step was made, with a finite loss."""
    missing = [step for step in range(1, STEPS + 1) if step not in record.steps]
    if missing:
        return Finding("steps", False, f"step {missing[0]} of {STEPS} is not in the record")
    losses = [_metric(record.steps[step], "loss") for step in range(1, STEPS + 1)]
    shown = ", ".join(f"{loss:.4f}" for loss in losses)
    return Finding("steps", all(map(math.isfinite, losses)), f"loss {shown}")


def evaluation(record: Record) -> Finding:
    """The held-out pairs were looked at after each step."""
    missing = [step for step in range(1, STEPS + 1) if step not in record.evals]
    if missing:
        return Finding("evaluation", False, f"there is none at step {missing[0]}")
    losses = [_metric(record.evals[step], "eval_loss") for step in range(1, STEPS + 1)]
    pairs = record.evals[STEPS].pairs
    shown = ", ".join(f"{loss:.4f}" for loss in losses) + (f" on {pairs} pairs" if pairs else "")
    return Finding("evaluation", all(map(math.isfinite, losses)), f"loss {shown}")


def checkpoints(run: RunDirectory) -> Finding:
    """Every step left a checkpoint."""
    folders = [run.checkpoints_dir / f"step-{step:05d}" for step in range(1, STEPS + 1)]
    missing = [folder.name for folder in folders if not folder.is_dir()]
    if missing:
        return Finding("checkpoint", False, f"checkpoints/{missing[0]} is not there")
    bytes_of_one = sum(file.stat().st_size for file in folders[-1].rglob("*") if file.is_file())
    return Finding("checkpoint", True, f"one at each step, {size(bytes_of_one)}")


def resume(record: Record, log: str) -> Finding:
    """The second attempt went on behind the checkpoint of the first step."""
    whole = launch(record, log)
    if not whole.ok:
        return Finding("resume", False, whole.text)
    begun_at = record.start.resumed_from_step if record.start else None
    if begun_at != STEPS - 1 or list(record.steps) != [STEPS]:
        made = ", ".join(map(str, record.steps)) or "none"
        return Finding("resume", False, f"resumed from step {begun_at}, and made these steps: {made}")
    return Finding("resume", True, f"from the checkpoint of step {begun_at}")


def curve(first: Record, second: Record) -> Finding:
    """The step made twice has the same loss and margin; on a CPU to the last bit."""
    parts, ok = [], True
    for metric in CURVE:
        a, b = (_metric(record.steps[STEPS], metric) for record in (first, second))
        close = math.isclose(a, b, rel_tol=GPU_TOLERANCE, abs_tol=GPU_TOLERANCE)
        ok = ok and (a == b or (close and not on_cpu(first)))
        parts.append(f"{metric} {a:.6g}" if a == b else f"{metric} {a:.9g} and resumed {b:.9g}")
    return Finding("same curve", ok, f"step {STEPS}: {', '.join(parts)}")


def final_adapter(first: Path, second: Path, profile: Profile, *, exact: bool) -> Finding:
    """Both attempts' final adapters are whole, and the same; on a CPU to the last bit."""
    for folder in (first, second):
        if problem := adapter.problem_with(folder, profile.adapter.r):
            return Finding("adapter", False, problem)
    weights = second / adapter.WEIGHTS
    shown = f"{adapter.count_tensors(second)} tensors, {size(weights.stat().st_size)}"
    if adapter.same_bytes(first, second):
        return Finding("adapter", True, f"{shown}, the resumed one the same byte for byte")
    apart = adapter.largest_difference(first, second)
    ok = not exact and apart <= UPDATES_APART * profile.optimizer.learning_rate
    return Finding("adapter", ok, f"{shown}, the resumed one differs by up to {apart:.3g}")


def alerts(model: RunModel) -> Finding:
    """No alert is critical."""
    critical = [f"{alert.code}: {alert.message}" for alert in model.alerts if alert.severity == "critical"]
    if critical:
        return Finding("alerts", False, "; ".join(critical))
    others = sorted({alert.code for alert in model.alerts})
    return Finding("alerts", True, f"none critical ({', '.join(others)})" if others else "none")


def on_cpu(record: Record) -> bool:
    """Whether the ranks computed on a CPU."""
    return record.start is None or record.start.device == "cpu"


def _metric(event: events.Step | events.Eval, name: str) -> float:
    return events.from_number(event.metrics.get(name, "nan"))

"""What the diagnosis finds in the labelled corpus, and how long it takes over long logs.

    python benchmarks/diagnosis.py [--json] [--quick] [--record]

Recall is the share of the expected codes that are raised, in percent; a false alarm is a warning
or critical alert that a log's label does not admit. The part `held` was kept from whoever set the
thresholds. Long logs are those of a healthy run and are replayed by `dpo-tui` in a process of its
own: as JSON lines, as a run directory, and as 10 MB of a terminal's output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from dpo_telemetry import events
from dpo_telemetry.foreign.open import open_log
from dpo_telemetry.health.alerts import HealthAlert
from dpo_telemetry.health.diagnosis import Diagnosis
from dpo_telemetry.health.rule import Context
from dpo_telemetry.rundir.create import create_attempt, create_run
from harness import Figure, Measured, Row, main

CORPUS = Path(__file__).parents[1] / "tests" / "health" / "corpus"
SPLITS = ("open", "held")
RECALL_GOAL_PERCENT = 95.0
STEPS, QUICK_STEPS = 1_000_000, 100_000
STDOUT_BYTES = 10_000_000
ROUNDS = 3
REPLAY_GOAL_S, REPLAY_GOAL_MB, STDOUT_GOAL_S = 5.0, 500.0, 1.0


@dataclass
class Tally:
    """Logs of one code, or of health."""

    logs: int = 0
    missed: list[str] = field(default_factory=list)
    """Logs in which the code is and was not found."""
    false_alarms: list[str] = field(default_factory=list)
    """`log` for each alert with this code that the label does not admit."""


class Replay(NamedTuple):
    """What one replay cost."""

    took_s: float
    cpu_s: float
    """Of its process: what it would take on a machine that nobody else uses."""
    peak_mb: float


def judge(labels: dict[str, Any], split: str) -> dict[str, Tally]:
    """What is found in one part of the corpus, by code; logs without a fault are under "healthy"."""
    tallies: dict[str, Tally] = defaultdict(Tally)
    for name, label in labels.items():
        if label["split"] != split:
            continue
        alerts = _alerts(CORPUS / split / f"{name}.json", label)
        raised = {alert.code for alert in alerts if alert.severity != "info"}
        found = {alert.code for alert in alerts} if label.get("info") else raised
        for code in label["expect"] or ["healthy"]:
            tallies[code].logs += 1
            if code != "healthy" and code not in found:
                tallies[code].missed.append(name)
        for code in raised.difference(label["expect"], label["allow"]):
            tallies[code].false_alarms.append(name)
    return tallies


def _alerts(path: Path, label: dict[str, Any]) -> list[HealthAlert]:
    log = open_log(path)
    if label["beta"] is None and label["loss_kind"] is None:
        return log.alerts
    diagnosis = Diagnosis(Context(beta=label["beta"], loss_kind=label["loss_kind"]))
    for table in (log.series.train, log.series.eval):
        diagnosis.feed(table.rows(table.effective_rows()))
    return diagnosis.alerts()


def corpus_figures(labels: dict[str, Any]) -> Measured:
    """Recall and false alarms of both parts, and a table by code."""
    measured = Measured()
    rows: dict[str, Row] = {}
    for split in SPLITS:
        tallies = judge(labels, split)
        expected = sum(tally.logs for code, tally in tallies.items() if code != "healthy")
        missed = sum(len(tally.missed) for tally in tallies.values())
        alarms = sum(len(tally.false_alarms) for tally in tallies.values())
        recall = 100 * (expected - missed) / expected
        measured.figures[f"recall_{split}"] = Figure(
            value=round(recall, 2), goal=RECALL_GOAL_PERCENT, peer={}
        )
        measured.figures[f"false_alarms_{split}"] = Figure(value=alarms, goal=0.0, peer={})
        for code, tally in sorted(tallies.items()):
            row = rows.setdefault(code, {"code": code})
            row[f"{split}_logs"] = tally.logs
            row[f"{split}_found"] = tally.logs - len(tally.missed)
            row[f"{split}_missed"] = " ".join(tally.missed)
            row[f"{split}_false_alarms"] = " ".join(tally.false_alarms)
    columns = [
        f"{split}_{column}" for split in SPLITS for column in ("logs", "found", "missed", "false_alarms")
    ]
    measured.tables["by code"] = [
        {"code": code, **{column: row.get(column, "") for column in columns}}
        for code, row in sorted(rows.items())
    ]
    return measured


def healthy_rows(steps: int) -> Iterator[dict[str, float]]:
    """Ten metrics a step of a run whose margins grow to 1 and stay there, with the noise of a batch."""
    block = 10_000
    for first in range(1, steps + 1, block):
        rng = np.random.default_rng(first)
        step = np.arange(first, min(first + block, steps + 1))
        level = 1 - np.exp(-6 * step / steps)
        margin = np.where(step == 1, 0.0, level + rng.normal(0, 0.3, len(step)) * np.sqrt(level))
        chosen = 0.2 * margin
        columns = {
            "loss": np.log1p(np.exp(-margin)),
            "grad_norm": rng.gamma(20, 0.1, len(step)),
            "learning_rate": 5e-6 * np.minimum(step / (0.05 * steps), 1 - 0.99 * step / steps),
            "rewards/chosen": chosen,
            "rewards/rejected": chosen - margin,
            "rewards/accuracies": 0.5 + 0.25 * level + rng.integers(-2, 3, len(step)) / 16,
            "rewards/margins": margin,
            "logps/chosen": rng.normal(-250, 12, len(step)) + 10 * chosen,
            "logps/rejected": rng.normal(-240, 12, len(step)) + 10 * (chosen - margin),
            "logits/chosen": rng.normal(-2.2, 0.05, len(step)),
        }
        listed = [values.tolist() for values in columns.values()]
        yield from (dict(zip(columns, row, strict=True)) for row in zip(*listed, strict=True))


def write_json_lines(path: Path, steps: int) -> None:
    """One object a step."""
    encode = msgspec.json.Encoder().encode
    with path.open("wb") as file:
        for step, row in enumerate(healthy_rows(steps), start=1):
            file.write(encode({"step": step, **row}) + b"\n")


def write_run(folder: Path, steps: int) -> Path:
    """A run directory of one rank."""
    run = create_run(folder / "runs", "long")
    attempt = create_attempt(run, "[loss]\nbeta = 0.1\n", b"{}")
    with attempt.event_file("rank-00000").open("wb") as file:
        for step, row in enumerate(healthy_rows(steps), start=1):
            metrics: dict[str, events.Number] = dict(row)
            file.write(events.encode(events.Step(**events.stamp(), step=step, metrics=metrics)))
    return run.path


def write_stdout(path: Path, size_bytes: int) -> None:
    """A terminal's output: a progress bar redrawn each step, a dict behind it, now and then a warning."""
    steps = size_bytes // 600
    written = 0
    with path.open("wb") as file:
        for step, row in enumerate(healthy_rows(steps), start=1):
            drawn = "█" * (step * 20 // steps)
            bar = f"\r{100 * step // steps:3}%|{drawn:20}| {step}/{steps} [1:02:03<2:03:04,  1.31s/it]"
            text = f"{row | {'epoch': step / steps}}\n{bar}"
            if step % 50 == 0:
                text += "UserWarning: torch.utils.checkpoint: the use_reentrant parameter should be passed\n"
            data = text.encode()
            written += len(data)
            if written > size_bytes:
                return
            file.write(data)


def replay(path: Path, home: Path) -> Replay:
    """One headless replay by a process of its own."""
    environment = os.environ | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "XDG_STATE_HOME": str(home)}
    command = [str(Path(sys.executable).with_name("dpo-tui")), "replay", "--headless", "--json", str(path)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    answer = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    took_s = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    result = json.loads(answer)
    if process.returncode != 0:
        raise SystemExit(f"error: {path.name}: not clean: {[alert['code'] for alert in result['alerts']]}")
    return Replay(took_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def speed_figures(quick: bool) -> Measured:
    """Seconds and peak memory of replays, the best of some rounds."""
    measured = Measured()
    steps = QUICK_STEPS if quick else STEPS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines, stdout = folder / "trainer_log.jsonl", folder / "train.log"
        write_json_lines(lines, steps)
        write_stdout(stdout, STDOUT_BYTES)
        logs = {"json_lines": lines, "run_directory": write_run(folder, steps), "stdout_10mb": stdout}
        for kind, path in logs.items():
            rounds = [replay(path, folder) for _ in range(1 if quick else ROUNDS)]
            took_s, cpu_s, peak_mb = (min(values) for values in zip(*rounds, strict=True))
            long = kind != "stdout_10mb"
            goal_s = (None if quick else REPLAY_GOAL_S) if long else STDOUT_GOAL_S
            called = f"{kind}_{steps}_steps" if long else kind
            measured.figures[f"{called}_s"] = Figure(value=round(took_s, 3), goal=goal_s, peer={})
            measured.figures[f"{called}_cpu_s"] = Figure(value=round(cpu_s, 3), goal=None, peer={})
            measured.figures[f"{called}_rss_mb"] = Figure(
                value=round(peak_mb, 1), goal=REPLAY_GOAL_MB if long else None, peer={}
            )
    return measured


def measure(quick: bool) -> Measured:
    """All figures."""
    labels = json.loads((CORPUS / "labels.json").read_bytes())
    corpus, speed = corpus_figures(labels), speed_figures(quick)
    return Measured(corpus.figures | speed.figures, corpus.tables)


if __name__ == "__main__":
    main("diagnosis", measure, ("numpy", "msgspec"))

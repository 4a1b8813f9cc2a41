"""Makes the labelled corpus: trains the tiny model well and badly, and writes the logs down.

`python tests/health/make_corpus.py [--only NAME] [--missing]` from anywhere; NAME may be the beginning
of several. Takes half an hour on one core. A log that is made again is the same but for the timings in
its last row.
"""

from __future__ import annotations

import json
import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import click

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import datasets
import torch
import transformers
from tests.health.generator.astray import ASTRAY
from tests.health.generator.case import Case
from tests.health.generator.healthy import HEALTHY
from tests.health.generator.published import PUBLISHED
from tests.health.generator.slow import SLOW
from tests.health.generator.still import STILL
from tests.health.generator.training import Rows
from tests.health.generator.unstable import UNSTABLE
from tests.health.generator.written import WRITTEN

CORPUS = Path(__file__).parent / "corpus"
LABELS = CORPUS / "labels.json"
CASES = (*HEALTHY, *STILL, *SLOW, *UNSTABLE, *ASTRAY, *WRITTEN, *PUBLISHED)
MAX_ROWS = 160
SIGNIFICANT_DIGITS = 6
NOT_KEPT = (
    "total_flos",
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
    "eval_num_tokens",
    "num_tokens",
)
"""Change from machine to machine, or say nothing of health."""


def write(case: Case) -> Rows:
    """Make one log and write it."""
    rows = [{name: value for name, value in row.items() if name not in NOT_KEPT} for row in case.make()]
    if len(rows) > MAX_ROWS:
        raise click.ClickException(f"{case.name}: has {len(rows)} rows; log less often")
    if not case.exact:
        rows = [{name: _rounded(value) for name, value in row.items()} for row in rows]
    state = {
        "best_global_step": None,
        "best_metric": None,
        "epoch": rows[-1].get("epoch"),
        "global_step": max(row["step"] for row in rows),
        "is_hyper_param_search": False,
        "is_local_process_zero": True,
        "is_world_process_zero": True,
    }
    history = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    text = json.dumps(state)[:-1] + f', "log_history": [\n{history}\n]}}\n'
    _path(case).write_text(text)
    return rows


def _path(case: Case) -> Path:
    return CORPUS / ("held" if case.held else "open") / f"{case.name}.json"


def _rounded(value: Any) -> Any:
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{SIGNIFICANT_DIGITS}g}")
    return value


def write_labels() -> None:
    """Write the labels of all logs that are there."""
    labels = {case.name: case.label() for case in CASES if _path(case).exists()}
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(label)}" for name, label in labels.items())
    LABELS.write_text(f"{{\n{text}\n}}\n")


def summary(rows: Rows, metric: str, points: int = 9) -> str:
    """A few values of one metric from first to last, to see what a log shows."""
    values = [row[metric] for row in rows if metric in row]
    chosen = [values[round(at * (len(values) - 1) / (points - 1))] for at in range(points)] if values else []
    return " ".join(f"{value:9.4g}" for value in chosen)


SHOWN = (
    "loss",
    "grad_norm",
    "learning_rate",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "eval_loss",
    "eval_rewards/accuracies",
)
"""Metrics of the summary."""


@click.command()
@click.option("--only", multiple=True, default=("",), help="Names that begin so; may be given again.")
@click.option("--missing", is_flag=True, help="Only logs that are not there.")
def main(only: tuple[str, ...], missing: bool) -> None:
    """Make the corpus again."""
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.simplefilter("ignore")
    for case in CASES:
        if case.name.startswith(only) and not (missing and _path(case).exists()):
            rows = write(case)
            click.echo(f"{case.name}: {len(rows)} rows; expect {' '.join(case.expect) or 'nothing'}")
            for metric in SHOWN:
                if line := summary(rows, metric):
                    click.echo(f"  {metric:24}{line}")
            write_labels()
    write_labels()


if __name__ == "__main__":
    main()

"""Runs and verdicts as tables, coloured on a terminal only."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dpo_daemon.rehearse.verdict import Verdict
from dpo_daemon.summary import Summary
from dpo_telemetry import events
from dpo_telemetry.figures import ago, duration
from dpo_telemetry.reader.model import RunModel
from dpo_telemetry.reader.status import State
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.text import printable

CLOSING_METRICS = ("loss", "rewards/margins", "rewards/accuracies", "eval_loss", "eval_rewards/margins",
                   "eval_rewards/accuracies")  # fmt: skip
_STATE_STYLE: dict[State, str] = {"finished": "green", "failed": "red", "hung": "red", "silent": "red"}


def print_runs(summaries: Iterable[Summary]) -> None:
    """One line a run."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "state", "step", "left", "alerts", "updated"):
        table.add_column(title, overflow="fold" if title == "run" else "ellipsis")
    for summary in summaries:
        table.add_row(
            Text(printable(summary.name)),
            _state(summary),
            _steps(summary),
            duration(summary.eta_s) if summary.eta_s is not None else "",
            _alerts(summary),
            ago(summary.updated),
        )
    Console().print(table)


def print_status(run: RunDirectory, model: RunModel, summary: Summary, keeper_alive: bool) -> None:
    """All that fits on a screen without a chart."""
    table = _facts()
    table.add_row("run", Text(f"{summary.name}  ({run.path})"))
    table.add_row("state", _state_and_reason(summary))
    table.add_row("attempt", str(summary.attempt or "none"))
    table.add_row("step", _steps(summary))
    if summary.eta_s is not None:
        table.add_row("time left", duration(summary.eta_s))
    for name, value in summary.metrics.items():
        table.add_row(printable(name), _number(value))
    if model.checkpoints:
        newest = model.checkpoints[-1]
        table.add_row("newest save", Text(f"step {newest.step}  {printable(newest.path)}"))
    if not summary.ended:
        absent = f"gone; `dpo-daemon keep {summary.name}` serves the run again"
        table.add_row("keeper", "alive" if keeper_alive else absent)
    console = Console()
    console.print(table)
    _print_alerts(console, model)


def print_closing(run: RunDirectory, model: RunModel, summary: Summary, took_s: float) -> None:
    """What is left of a run that was followed to its end."""
    table = _facts()
    table.add_row("run", Text(summary.name))
    table.add_row("state", _state_and_reason(summary))
    table.add_row("step", _steps(summary))
    table.add_row("took", duration(took_s))
    for name in CLOSING_METRICS:
        if name in summary.metrics:
            table.add_row(name, _number(summary.metrics[name]))
    final = [checkpoint for checkpoint in model.checkpoints if checkpoint.final]
    if final:
        table.add_row("adapter", Text(str(run.path / final[-1].path)))
    table.add_row("see it again", Text(f"dpo-tui replay {run.path}"))
    console = Console()
    console.rule()
    console.print(table)
    _print_alerts(console, model)


def print_verdict(verdict: Verdict) -> None:
    """What a rehearsal looked at, what was replaced for it, and one line that says what it comes to."""
    console = Console()
    where = f" on {printable(verdict.device)}" if verdict.device else ""
    ranks = f"{verdict.ranks} rank{'s' if verdict.ranks > 1 else ''}"
    console.print(Text(f"{verdict.profile}: {verdict.backend}, {ranks}{where}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for check in verdict.checks:
        state = Text("ok", "green") if check.ok else Text("failed", "bold red")
        table.add_row(state, check.name, Text(printable(check.text)))
    console.print(table)
    for note in verdict.notes:
        console.print(Text(f"- {printable(note)}"), soft_wrap=True)
    failed = sum(not check.ok for check in verdict.checks)
    said = f"{failed} of {len(verdict.checks)} checks failed" if failed else "the rehearsal went well"
    console.print(Text(said, "bold red" if failed else "green"))
    if verdict.run:
        console.print(Text(f"its run is kept in {verdict.run}"), soft_wrap=True)


def _facts() -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    return table


def _state(summary: Summary) -> Text:
    return Text(summary.state, _STATE_STYLE.get(summary.state, ""))


def _state_and_reason(summary: Summary) -> Text:
    if summary.reason in ("", summary.state):
        return _state(summary)
    if summary.reason.startswith(summary.state):
        return Text(printable(summary.reason), _STATE_STYLE.get(summary.state, ""))
    return _state(summary) + Text(f": {printable(summary.reason)}")


def _steps(summary: Summary) -> str:
    return f"{summary.step} of {summary.max_steps}" if summary.max_steps else str(summary.step)


def _alerts(summary: Summary) -> str:
    shown = [f"{count} {severity}" for severity, count in reversed(summary.alerts.items()) if count]
    return ", ".join(shown)


def _number(value: events.Number) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"


def _print_alerts(console: Console, model: RunModel) -> None:
    for alert in model.alerts:
        style = "bold red" if alert.severity == "critical" else "yellow"
        console.print(
            Text(f"{alert.severity} {alert.code}: ", style) + Text(printable(alert.message)), soft_wrap=True
        )
        if alert.advice:
            console.print(Text(f"  {printable(alert.advice)}"), soft_wrap=True)

"""A result as a page of text for people."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from dpo_telemetry.events import Severity
from dpo_telemetry.foreign.open import ReplayedLog
from dpo_telemetry.health.alerts import Finding, HealthAlert
from dpo_telemetry.series.columns import SeriesStore
from dpo_telemetry.text import printable
from dpo_tui.headless.result import MetricSummary, Result
from dpo_tui.headless.sparkline import sparkline

SEVERITY_STYLE: dict[Severity, str] = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
MIN_SPARKLINE_CELLS, MAX_SPARKLINE_CELLS = 8, 40
SHOWN_REFERENCES = 4
TABLE_CELLS = 76
"""What the columns before the sparkline take when their figures are long."""


def print_page(console: Console, result: Result, log: ReplayedLog) -> None:
    """Verdict, findings with their evidence and what to try, alerts for information, and a table of metrics."""
    console.print(_verdict(result))
    for number, finding in enumerate(result.findings, 1):
        console.print(_finding(number, finding, _of_finding(finding, log.alerts)))
    for alert in log.alerts:
        if alert.severity == "info":
            console.print(_alert(alert))
    console.print(_metrics(result, log.series, console.width))


def _of_finding(finding: Finding, alerts: list[HealthAlert]) -> list[HealthAlert]:
    """The alerts that a finding is made of, its cause first."""
    serious = [alert for alert in alerts if alert.severity != "info"]
    return [alert for code in finding.codes for alert in serious if alert.code == code]


def _verdict(result: Result) -> RenderableType:
    clean = result.verdict == "clean"
    line = Text.assemble(
        ("✓ clean" if clean else "✗ alerts", "bold green" if clean else "bold red"),
        f"  {printable(result.source)}",
        (f"  {result.format}, {_span(result)}", "dim"),
    )
    notes = []
    if result.attempts > 1:
        notes.append(f"{result.attempts} attempts, {result.superseded_rows} superseded rows")
    if result.lines_not_understood:
        lines = "1 line" if result.lines_not_understood == 1 else f"{result.lines_not_understood} lines"
        notes.append(f"{lines} not understood")
    return Group(line, Text("  " + ", ".join(notes), "yellow")) if notes else line


def _span(result: Result) -> str:
    rows = f"{result.rows} row" + ("s" if result.rows != 1 else "")
    if result.first_step is None:
        return rows
    if result.first_step == result.last_step:
        return f"{rows} at step {result.first_step} ({result.step_source})"
    return f"{rows}, steps {result.first_step} to {result.last_step} ({result.step_source})"


def _finding(number: int, finding: Finding, alerts: list[HealthAlert]) -> RenderableType:
    head = Text.assemble((f"{number}. {finding.cause}", "bold"), (f"  [{', '.join(finding.codes)}]", "dim"))
    lines = [Text(printable(finding.text)), Text.assemble(("Try: ", "bold"), printable(finding.try_))]
    seen = {name: value for alert in reversed(alerts) for name, value in alert.evidence.items()}
    if seen:
        figures = ", ".join(f"{printable(name)} {value:.4g}" for name, value in seen.items())
        lines.append(Text.assemble(("Seen: ", "bold"), figures))
    known = list(dict.fromkeys(reference for alert in alerts for reference in alert.references))
    if known:
        lines.append(
            Text.assemble(("See: ", "bold"), printable(", ".join(known[:SHOWN_REFERENCES])), style="dim")
        )
    return Group(Text(""), head, Padding(Group(*lines), (0, 0, 0, 3)))


def _alert(alert: HealthAlert) -> RenderableType:
    return Text.assemble(
        ("\n" + alert.severity, SEVERITY_STYLE[alert.severity]), f"  {alert.code}: {printable(alert.message)}"
    )


def _metrics(result: Result, series: SeriesStore, width: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column("metric", no_wrap=True)
    for name in ("rows", "bad", "first", "last", "min", "max"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("course", no_wrap=True)
    cells = max(MIN_SPARKLINE_CELLS, min(MAX_SPARKLINE_CELLS, width - TABLE_CELLS))
    for name, metric in result.metrics.items():
        table.add_row(
            Text(printable(name, 40)),
            str(metric.count),
            Text(str(metric.nonfinite), "bold red") if metric.nonfinite else "",
            *_figures(metric),
            sparkline(series.effective(name).values, cells),
        )
    return Group(Text(""), table)


def _figures(metric: MetricSummary) -> list[str]:
    values = (metric.first, metric.last, metric.min, metric.max)
    return ["-" if value is None else f"{float(value):.3g}" for value in values]

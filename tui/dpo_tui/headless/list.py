"""Many results: a line each, and what they come to."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.text import Text

from dpo_telemetry.text import printable
from dpo_tui.headless.result import Outcome

SHOWN_CODES = 12


class Listing:
    """Prints each outcome as it comes, and counts."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._verdicts: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        """Print one line: verdict, log, and the causes that were found; errors go to stderr, and not here."""
        if outcome.result is None:
            self._verdicts["not readable"] += 1
            return
        result = outcome.result
        self._verdicts[result.verdict] += 1
        self._codes.update({alert.code for alert in result.alerts if alert.severity != "info"})
        clean = result.verdict == "clean"
        line = Text.assemble(
            ("✓ " if clean else "✗ ", "green" if clean else "bold red"), printable(result.source)
        )
        causes = ", ".join(printable(finding.cause) for finding in result.findings)
        if causes:
            line.append(f"  {causes}", "yellow")
        self._console.print(line, soft_wrap=True)

    def finish(self) -> None:
        """Print the summary: verdicts, and in how many logs each code was seen."""
        total = sum(self._verdicts.values())
        parts = [f"{count} {verdict}" for verdict, count in self._verdicts.most_common()]
        self._console.print(Text(f"{total} logs: {', '.join(parts)}", "bold"), soft_wrap=True)
        if self._codes:
            codes = ", ".join(f"{code} {count}" for code, count in self._codes.most_common(SHOWN_CODES))
            self._console.print(Text(f"  {codes}"), soft_wrap=True)

"""Which runs there are: live ones first, then the newest; what did not change is not read again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dpo_telemetry.reader.status import ENDED
from dpo_telemetry.rundir.find import list_runs
from dpo_telemetry.rundir.layout import RunDirectory
from dpo_telemetry.rundir.live import live_runs
from dpo_tui.views.runs import RunRow, fingerprint, look

Clock = Callable[[], float]
Rows = tuple[RunRow, ...]

REPORT_EVERY_S = 0.25
"""A long first look is shown in pieces."""
SETTLED = (*ENDED, "silent", "damaged")
"""States that last until a file changes."""


class RunList:
    """The runs of a folder and the live ones from anywhere, or those that were named. For one thread."""

    def __init__(
        self, runs_dir: Path, named: Sequence[RunDirectory] = (), *, clock: Clock = time.time
    ) -> None:
        self.runs_dir = runs_dir
        self.named = tuple(dict.fromkeys(named))
        self._clock = clock
        self._known: dict[Path, tuple[tuple[object, ...], RunRow]] = {}

    def look(self, report: Callable[[Rows], None], wanted: Callable[[], bool] = lambda: True) -> None:
        """Hand `report` the rows in their order, again and again while more come; the last time all of them.

        Ends early, and without a last report, where `wanted` is no longer true.
        """
        live = {os.path.realpath(run.path) for run in live_runs()}
        runs = list(self.named) or list_runs(self.runs_dir)
        runs.sort(key=lambda run: os.path.realpath(run.path) in live)
        rows: list[RunRow] = []
        said_s = time.monotonic()
        for run in reversed(runs):
            if not wanted():
                return
            rows.append(self._row(run, os.path.realpath(run.path) in live))
            if time.monotonic() - said_s > REPORT_EVERY_S:
                said_s = time.monotonic()
                report(ordered(rows))
        self._known = {row.run.path: self._known[row.run.path] for row in rows}
        report(ordered(rows))

    def _row(self, run: RunDirectory, registered: bool) -> RunRow:
        mark = (registered, *fingerprint(run))
        known = self._known.get(run.path)
        if known is not None and known[0] == mark and known[1].state in SETTLED:
            return known[1]
        row = look(run, registered=registered, now_s=self._clock())
        self._known[run.path] = (mark, row)
        return row


def ordered(rows: Sequence[RunRow]) -> Rows:
    """Live first, then the newest."""
    return tuple(sorted(rows, key=lambda row: (not row.live, -row.created_s, row.name)))
